// The captions of one room as a reader sees them: which segment says what, and in which order.
//
// Pure: no DOM, sockets or clocks. Events come in through `receive` and `receiveHistory`, what
// changed goes out through `nextChanges`; `now` is wall-clock milliseconds. Events may come
// twice (data channel, WebSocket, replay) and late; a segment's higher revision wins.
//
// The order is that of first appearance. Segment times count from each speaker's own first
// audio, so they cannot order two speakers; the server's order of events can.

/** A gap right after another of the same speaker and reason is the same trouble to a reader. */
const sameTrouble = (item, gap) =>
  item?.kind === "gap" && item.participant === gap.participant && item.reason === gap.reason;

export class CaptionLedger {
  #items = [];
  #byKey = new Map();
  #names = new Map();
  #origins = new Map();
  #gapEnds = new Map();
  #run = 0;
  #changed = new Set();
  #finals = [];
  #reordered = false;

  /** The highest sequence number seen: what a resuming client tells the server. */
  lastSeq = 0;
  /** How many items were dropped from the front; the full transcript still has them. */
  trimmed = 0;

  /** What a reader sees, in order: captions that have text, and gaps. */
  get items() {
    return this.#items.filter((item) => item.kind === "gap" || item.text !== "");
  }

  /** Takes a caption or gap event; false when it was not one, or brought nothing new. */
  receive(event, now) {
    if (typeof event?.participant !== "string") return false;
    if (event.type !== "caption" && event.type !== "gap") return false;
    if (Number.isInteger(event.seq)) this.lastSeq = Math.max(this.lastSeq, event.seq);
    if (typeof event.name === "string") this.learnName(event.participant, event.name);
    return event.type === "caption" ? this.#receiveCaption(event, now) : this.#receiveGap(event, now);
  }

  /** Names reach a gap from the roster: the event itself carries only the participant. */
  learnName(participant, name) {
    this.#names.set(participant, name);
  }

  nameOf(participant) {
    return this.#names.get(participant) ?? "Someone";
  }

  /**
   * The server does not know us any more, so the room may have begun anew and its segment ids
   * with it. What was read stays, under keys of its own; words never confirmed are dropped.
   */
  startRun() {
    this.#items = this.#items.filter((item) => item.kind === "gap" || item.final);
    this.#byKey = new Map(this.#items.map((item) => [item.key, item]));
    this.#gapEnds.clear();
    this.#origins.clear();
    this.#run += 1;
    this.lastSeq = 0;
    this.#reordered = true;
  }

  /**
   * Merges the room's transcript: it stands before everything it does not know itself, because
   * that is still unfinished or was said since. Only the last `limit` segments are taken.
   */
  receiveHistory(transcript, limit = Infinity) {
    for (const { participant, name } of transcript.participants ?? []) this.learnName(participant, name);
    const segments = transcript.segments ?? [];
    this.trimmed += Math.max(0, segments.length - limit);
    const historic = segments.slice(-limit).map((segment) => this.#historicItem(segment));
    this.#placeHistoricGaps(historic, transcript.gaps ?? []);
    const known = new Set(historic.map((item) => item.key));
    const rest = this.#items.filter((item) => !known.has(item.key) && !this.#isRetold(item, historic));
    const earlier = rest.filter((item) => item.run < this.#run);
    const later = rest.filter((item) => item.run === this.#run);
    this.#items = [...earlier, ...historic, ...later];
    this.#byKey = new Map(this.#items.map((item) => [item.key, item]));
    this.#reordered = true;
  }

  /** Drops the oldest items beyond `limit`. */
  trim(limit) {
    const surplus = this.#items.length - limit;
    if (surplus <= 0) return;
    for (const item of this.#items.splice(0, surplus)) {
      this.#byKey.delete(item.key);
      this.#changed.delete(item.key);
    }
    this.trimmed += surplus;
    this.#reordered = true;
  }

  /**
   * What changed since the last call: `items` whose content differs, `finals` to announce (live
   * ones only, oldest first), and whether items came, went or moved.
   */
  nextChanges() {
    const items = [...this.#changed].map((key) => this.#byKey.get(key)).filter(Boolean);
    const changes = { items, finals: this.#finals, reordered: this.#reordered };
    this.#changed.clear();
    this.#finals = [];
    this.#reordered = false;
    return changes;
  }

  #receiveCaption(event, now) {
    if (typeof event.segment !== "string") return false;
    const key = `${this.#run}/${event.segment}`;
    const known = this.#byKey.get(key);
    if (known && !supersedes(event, known)) return false;
    const item = known ?? this.#add({ key, run: this.#run, kind: "caption", segment: event.segment, text: "" });
    const hadText = item.text !== "";
    Object.assign(item, contentOf(event), {
      name: event.name ?? this.nameOf(event.participant),
      at: item.at ?? this.#wallClock(event, now),
    });
    if (hadText !== (item.text !== "")) this.#reordered = true;
    if (item.final) this.#dropEarlierTelling(item);
    if (item.final && item.text !== "") this.#finals.push(item);
    this.#changed.add(key);
    return true;
  }

  #receiveGap(gap, now) {
    if (!Number.isFinite(gap.start) || !Number.isFinite(gap.end)) return false;
    // One speaker's gaps come in order of time, so one at or before the last was seen already.
    if (gap.end <= (this.#gapEnds.get(gap.participant) ?? -Infinity)) return false;
    this.#gapEnds.set(gap.participant, gap.end);
    const last = this.#items.at(-1);
    const item = sameTrouble(last, gap) && last.run === this.#run
      ? extendGap(last, gap)
      : this.#add({ ...this.#gapItem(gap), at: this.#wallClock(gap, now) });
    this.#changed.add(item.key);
    return true;
  }

  #add(item) {
    this.#items.push(item);
    this.#byKey.set(item.key, item);
    this.#reordered = true;
    return item;
  }

  #gapItem({ participant, start, end, reason }) {
    const key = `${this.#run}/gap/${participant}/${start}`;
    return { key, run: this.#run, kind: "gap", participant, reason, start, end, lostS: end - start };
  }

  #historicItem(segment) {
    const key = `${this.#run}/${segment.segment}`;
    const known = this.#byKey.get(key);
    if (known?.final) return known;
    const item = known ?? { key, run: this.#run, kind: "caption", segment: segment.segment };
    // Revision -1: the transcript carries none, and a final restated later must still win.
    Object.assign(item, contentOf({ ...segment, stable: segment.text, final: true, revision: -1 }), {
      name: segment.name ?? this.nameOf(segment.participant),
      // Without it no time is claimed: the room's start could be an hour off.
      at: item.at ?? spokenAt(segment),
    });
    this.#changed.add(key);
    return item;
  }

  #placeHistoricGaps(historic, gaps) {
    for (const gap of gaps) {
      const seen = this.#gapEnds.get(gap.participant) ?? -Infinity;
      this.#gapEnds.set(gap.participant, Math.max(seen, gap.end));
      const before = historic.findLastIndex((item) => item.participant === gap.participant && item.start <= gap.start);
      const after = historic.findIndex((item) => item.participant === gap.participant);
      // Behind the speaker's words before it, else ahead of their first, else at the end.
      const place = before >= 0 ? before + 1 : after >= 0 ? after : historic.length;
      if (sameTrouble(historic[place - 1], gap)) extendGap(historic[place - 1], gap);
      else historic.splice(place, 0, this.#gapItem(gap));
    }
  }

  /** True for an item of this or an earlier run that the transcript tells again. */
  #isRetold(item, historic) {
    if (item.kind === "caption") return historic.some((other) => isSameUtterance(item, other));
    return historic.some((other) => other.kind === "gap" && other.participant === item.participant
      && item.start >= other.start && item.end <= other.end);
  }

  #dropEarlierTelling(item) {
    if (this.#run === 0) return;
    const retold = this.#items.find((other) => other.run < this.#run && isSameUtterance(other, item));
    if (!retold) return;
    this.#items.splice(this.#items.indexOf(retold), 1);
    this.#byKey.delete(retold.key);
    this.#reordered = true;
  }

  /**
   * When an event's audio was heard. Where the server does not say, the speaker's first audio is
   * estimated as the earliest that any event of theirs allows: every delay on the way makes an
   * event look later, none makes it look earlier.
   */
  #wallClock(event, now) {
    const exact = spokenAt(event);
    if (exact !== null) return exact;
    const estimate = now - event.end * 1000 - (event.latency_ms ?? 0);
    const origin = Math.min(estimate, this.#origins.get(event.participant) ?? Infinity);
    this.#origins.set(event.participant, origin);
    return origin + event.start * 1000;
  }
}

/** A final ends its segment; only a later final restates it. */
function supersedes(event, known) {
  if (known.final && !event.final) return false;
  if (!known.final && event.final) return true;
  return event.revision > known.revision;
}

function contentOf({ participant, revision, stable, tentative, final, start, end, language }) {
  const settled = final ? (stable ?? "") + (tentative ?? "") : (stable ?? "");
  const open = final ? "" : (tentative ?? "");
  return {
    participant, revision, start, end, language,
    final: Boolean(final),
    stable: settled,
    tentative: open,
    text: (settled + open).trim(),
  };
}

function isSameUtterance(one, other) {
  return one !== other && one.kind === "caption" && one.segment === other.segment
    && one.start === other.start && one.text === other.text;
}

function extendGap(item, gap) {
  item.end = gap.end;
  item.lostS += gap.end - gap.start;
  return item;
}

/** The server's word for when a segment was spoken; null where it says nothing. */
function spokenAt({ spoken_at: at }) {
  const parsed = Date.parse(at ?? "");
  return Number.isFinite(parsed) ? parsed : null;
}
