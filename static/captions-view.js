// Draws a CaptionLedger: the visible list, following the newest words, and a log for screen readers.
//
// Changes are drawn in batches, and only rows that changed are touched: a room runs for hours.
// The visible list is silent to screen readers, because a tentative caption is rewritten several
// times a second; a hidden log receives each final once.

/** Rows shown. Far beyond a few hundred, layout and memory grow for words nobody scrolls to. */
const SHOWN = 500;
/** Near enough to the end to count as reading along. */
const FOLLOW_PX = 48;
/** A pause this long shows the speaker's name and the time again. */
const TURN_MS = 60_000;
/** After a long absence (a hidden tab, a replay) only the newest finals are read aloud. */
const ANNOUNCED = 3;
const HUES = 8;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export class CaptionsView {
  #ledger;
  #list;
  #scroller;
  #jump;
  #announcer;
  #empty;
  #trimmed;
  #rows = new Map();
  #hues = new Map();
  #isFollowing = true;
  #frame = 0;
  #timer = 0;

  constructor(ledger) {
    const $ = (id) => document.getElementById(id);
    this.#ledger = ledger;
    this.#list = $("captions");
    this.#scroller = $("captions-region");
    this.#jump = $("jump-latest");
    this.#announcer = $("announcer");
    this.#empty = $("empty");
    this.#trimmed = $("trimmed");
    this.#scroller.addEventListener("scroll", () => this.#followScroll(), { passive: true });
    this.#jump.addEventListener("click", () => this.jumpToLatest());
    // A keyboard on a phone, a rotated screen: the newest words stay in sight.
    new ResizeObserver(() => this.#isFollowing && this.#scrollToEnd()).observe(this.#scroller);
  }

  /** Draws what changed, with the next frame. */
  refresh() {
    if (this.#timer) return;
    this.#frame = requestAnimationFrame(() => this.#draw());
    // A hidden tab gets no frames; its list and log are kept up all the same.
    this.#timer = setTimeout(() => this.#draw(), 250);
  }

  jumpToLatest() {
    this.#isFollowing = true;
    this.#scrollToEnd();
    this.#showJump();
    this.#scroller.focus({ preventScroll: true });
  }

  /** A colour for each speaker, in order of appearance, the same in the roster and the captions. */
  hueOf(participant) {
    if (!this.#hues.has(participant)) this.#hues.set(participant, this.#hues.size % HUES);
    return this.#hues.get(participant);
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#timer = 0;
    // Rows vanish above a reader who scrolled up only when there is no other way.
    this.#ledger.trim(this.#isFollowing ? SHOWN : SHOWN * 2);
    const { items, finals, reordered } = this.#ledger.nextChanges();
    for (const item of items) this.#fill(item);
    if (reordered) this.#arrange();
    this.#trimmed.hidden = this.#ledger.trimmed === 0;
    if (this.#isFollowing) this.#scrollToEnd();
    this.#showJump();
    this.#announce(finals);
  }

  #fill(item) {
    let row = this.#rows.get(item.key);
    if (!row) {
      row = item.kind === "gap" ? gapRow(item) : captionRow(item, this.hueOf(item.participant));
      this.#rows.set(item.key, row);
    }
    if (item.kind === "gap") fillGap(row, item, this.#ledger.nameOf(item.participant));
    else fillCaption(row, item);
  }

  /** Puts the rows in the ledger's order, moving only those out of place. */
  #arrange() {
    const items = this.#ledger.items;
    const present = new Set(items.map((item) => item.key));
    for (const [key, row] of this.#rows) {
      if (present.has(key)) continue;
      row.root.remove();
      this.#rows.delete(key);
    }
    let next = this.#list.firstElementChild;
    let previous = null;
    for (const item of items) {
      if (!this.#rows.has(item.key)) this.#fill(item);
      const { root } = this.#rows.get(item.key);
      if (root === next) next = next.nextElementSibling;
      else this.#list.insertBefore(root, next);
      setData(root, "continued", String(continuesTurn(item, previous)));
      previous = item;
    }
    this.#empty.hidden = items.length > 0;
  }

  #announce(finals) {
    for (const item of finals.slice(-ANNOUNCED)) {
      const line = document.createElement("p");
      line.textContent = `${item.name}: ${item.text}`;
      if (item.language) line.lang = item.language;
      this.#announcer.append(line);
    }
    // Kept short: whoever browses the page would otherwise meet every caption twice.
    while (this.#announcer.childElementCount > ANNOUNCED) this.#announcer.firstElementChild.remove();
  }

  #followScroll() {
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller;
    this.#isFollowing = scrollHeight - clientHeight - scrollTop < FOLLOW_PX;
    this.#showJump();
  }

  #scrollToEnd() {
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #showJump() {
    if (this.#jump.hidden !== this.#isFollowing) this.#jump.hidden = this.#isFollowing;
  }
}

function captionRow(item, hue) {
  const root = element("li", "caption");
  root.dataset.segment = item.segment;
  root.dataset.participant = item.participant;
  root.dataset.hue = hue;
  const speaker = element("span", "speaker");
  const time = element("time", "at");
  const words = element("p", "words");
  const stable = element("span", "stable");
  const tentative = element("span", "tentative");
  words.append(stable, tentative);
  root.append(speaker, time, words);
  return { root, speaker, time, words, stable, tentative };
}

function fillCaption(row, item) {
  setData(row.root, "final", String(item.final));
  setText(row.speaker, item.name);
  setText(row.stable, item.stable);
  setText(row.tentative, item.tentative);
  if (item.language && row.words.lang !== item.language) row.words.lang = item.language;
  if (item.at !== null && row.time.dateTime === "") {
    row.time.dateTime = new Date(item.at).toISOString();
    row.time.textContent = clock.format(item.at);
  }
}

function gapRow(item) {
  const root = element("li", "gap");
  root.dataset.gap = item.participant;
  root.dataset.reason = item.reason;
  return { root };
}

function fillGap(row, item, name) {
  setText(row.root, `${name} — ${describeLoss(item.lostS)} of audio lost: ${item.reason}`);
}

function describeLoss(lostS) {
  if (lostS < 0.1) return "less than 0.1 s";
  return lostS < 60 ? `${lostS.toFixed(1)} s` : `${Math.floor(lostS / 60)} min ${Math.round(lostS % 60)} s`;
}

function continuesTurn(item, previous) {
  return item.kind === "caption" && previous?.kind === "caption"
    && item.participant === previous.participant && item.name === previous.name
    && Math.abs((item.at ?? 0) - (previous.at ?? 0)) < TURN_MS;
}

function element(tag, className) {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setData(node, name, value) {
  if (node.dataset[name] !== value) node.dataset[name] = value;
}
