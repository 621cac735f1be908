// What the room page shows around the captions: roster, connection, engine, load, notices, stage.
//
// Each function draws one thing from the facts it is given. It refuses to know where they come
// from, and to decide anything.

const $ = (id) => document.getElementById(id);

/** The language of those who leave it to the engine. */
export const DETECT = "auto";

const EXTENSIONS = ["txt", "srt", "vtt", "json"];

const STATUS_TEXT = {
  connecting: "Connecting…",
  connected: "Connected",
  reconnecting: "Reconnecting…",
  closed: "Not joined",
  error: "Not connected",
};

// States by which the engine comes nearer to being ready.
const ENGINE_PREPARES = ["starting", "downloading", "loading", "warming", "restarting"];

const ENGINE_ALERT = {
  downloading: "The speech model is being fetched. Captions begin as soon as it is here.",
  loading: "The speech engine is still loading. Captions begin as soon as it is ready.",
  warming: "The speech engine is still loading. Captions begin as soon as it is ready.",
  restarting: "The speech engine is restarting. Captions go on in a few seconds.",
  failed: "The speech engine has failed. No captions are written at the moment.",
};

/** join: asked to join; in: in the room; left: the captions stay to be read. */
export function showStage(stage) {
  document.documentElement.dataset.stage = stage;
  $("join-panel").hidden = stage === "in";
  $("transcript").hidden = stage === "join";
  $("sidebar").hidden = stage === "join";
  // People of a room one has left would be a stale claim.
  document.querySelector(".people").hidden = stage !== "in";
  for (const id of ["mute", "enable-mic", "leave", "mic-note"]) $(id).classList.toggle("away", stage !== "in");
  if (stage === "left") $("engine-alert").hidden = true;
  $("join-title").textContent = stage === "left" ? "You have left the room" : "Join this room";
}

/** `text` says more than the state where there is more to say. */
export function showStatus(state, text = STATUS_TEXT[state]) {
  const status = $("status");
  status.dataset.state = state;
  if (status.textContent !== text) status.textContent = text;
  $("retry-now").hidden = state !== "reconnecting" && state !== "error";
}

export function showMedia(state) {
  document.documentElement.dataset.media = state;
}

/** The microphone's buttons; `state` is one of none, on, muted, held. */
export function showMicrophone(state) {
  $("mute").hidden = state === "none";
  $("enable-mic").hidden = state !== "none";
  $("mute").setAttribute("aria-pressed", String(state === "muted" || state === "held"));
  $("mute").disabled = state === "held";
  $("mic-note").textContent = {
    none: "You are reading along.",
    on: "Your microphone is on.",
    muted: "Your microphone is off.",
    held: "The room’s owner has muted you.",
  }[state];
}

/** The people in the room; knows who they are, so that a part of a person can be updated. */
export class Roster {
  #people = new Map();
  #self = "";
  #hueOf;
  #owner;

  /** `owner.fill` has a row, the person in it, and whether that is oneself. */
  constructor(hueOf, owner) {
    this.#hueOf = hueOf;
    this.#owner = owner;
  }

  reset(participants, self) {
    this.#people.clear();
    this.#self = self.participant;
    // Oneself comes first, also where the server lists only the others.
    for (const person of [self, ...participants]) this.#merge(person);
    this.#draw();
  }

  /** Takes a joined, left or updated message. */
  receive({ type, ...person }) {
    if (type === "left") this.#people.delete(person.participant);
    else this.#merge(person);
    this.#draw();
  }

  nameOf(participant) {
    return this.#people.get(participant)?.name;
  }

  #merge(person) {
    const known = this.#people.get(person.participant) ?? { muted: false, speaking: false };
    // left out of a message where it is not so
    this.#people.set(person.participant, { ...known, muted_by_owner: false, ...person });
  }

  #draw() {
    const list = $("roster");
    for (const row of [...list.children]) {
      if (!this.#people.has(row.dataset.participant)) row.remove();
    }
    const rows = new Map([...list.children].map((row) => [row.dataset.participant, row]));
    for (const person of this.#people.values()) {
      const row = rows.get(person.participant) ?? rosterRow(person.participant, this.#hueOf(person.participant));
      fillRosterRow(row, person, person.participant === this.#self);
      this.#owner.fill(row, person, person.participant === this.#self);
      // Only a new row moves; appending those in place would restart their animations.
      if (!row.isConnected) list.append(row);
    }
    // On a phone the list is one strip; a keyboard scrolls it only when it can be focused.
    list.toggleAttribute("tabindex", list.scrollWidth > list.clientWidth);
    if (list.hasAttribute("tabindex")) list.tabIndex = 0;
    $("people-count").textContent = this.#people.size > 1 ? String(this.#people.size) : "";
  }
}

function rosterRow(participant, hue) {
  const row = document.createElement("li");
  row.dataset.participant = participant;
  row.dataset.hue = hue;
  row.innerHTML = `<span class="mark" aria-hidden="true"></span><span class="person"></span>
    <span class="state"></span><svg class="icon" aria-hidden="true"><use href="#icon-mic-off"/></svg>`;
  return row;
}

function fillRosterRow(row, { name = "Someone", muted, speaking }, isSelf) {
  const isSpeaking = Boolean(speaking) && !muted;
  row.dataset.speaking = String(isSpeaking);
  row.dataset.muted = String(Boolean(muted));
  row.dataset.self = String(isSelf);
  const [mark, person, state] = row.children;
  mark.textContent = [...name][0]?.toUpperCase() ?? "";
  person.textContent = isSelf ? `${name} (you)` : name;
  person.title = name;
  state.textContent = muted ? "muted" : isSpeaking ? "speaking" : "";
}

/** `engine` is the welcome's engine, with later engine messages merged in. */
export function showEngine({ name, state, model, note, progress, message }) {
  $("engine").dataset.state = state ?? "unknown";
  $("engine-name").textContent = name ?? "Not known yet";
  $("engine-state").textContent = state ?? "";
  $("engine-state").hidden = !state;
  $("engine-model").textContent = model ? `Model: ${model}` : "";
  $("engine-model").hidden = !model || model === name;
  $("engine-note").textContent = note ?? "";
  $("engine-progress").hidden = !ENGINE_PREPARES.includes(state);
  // Without a value the bar shows that something goes on, not how far.
  if (Number.isFinite(progress)) $("engine-progress").value = progress;
  else $("engine-progress").removeAttribute("value");
  const alert = ENGINE_ALERT[state] ?? "";
  $("engine-alert").textContent = alert && message ? `${alert} (${message})` : alert;
  $("engine-alert").hidden = alert === "";
}

/** The languages on offer, as codes or as {code, name}; one alone is no choice. */
export function showLanguages(languages, chosen) {
  const select = $("language");
  const options = languages.map((entry) => {
    const code = typeof entry === "string" ? entry : entry.code;
    return new Option(entry.name ?? languageName(code), code, false, code === chosen);
  });
  if (!chosen) options.unshift(new Option("Engine’s choice", "", true, true));
  select.replaceChildren(...options);
  $("language-field").hidden = languages.length < 2;
}

function languageName(code) {
  if (code === DETECT) return "Detect it";
  try {
    return new Intl.DisplayNames(undefined, { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}

export function showLoad({ state, lag_s: lagS }) {
  const load = $("load");
  load.dataset.state = state;
  const lag = Number.isFinite(lagS) && lagS >= 0.1 ? ` ${lagS.toFixed(1)} s behind` : "";
  load.textContent = state === "catching_up" ? `Catching up…${lag}` : "";
  load.hidden = state !== "catching_up";
}

/** A notice stays until dismissed or cleared; one of the same code takes its place. */
export function showNotice(code, text) {
  clearNotice(code);
  const notice = document.createElement("div");
  notice.className = "notice";
  notice.dataset.code = code;
  const words = document.createElement("p");
  words.textContent = text;
  const dismiss = document.createElement("button");
  dismiss.type = "button";
  dismiss.className = "quiet small";
  dismiss.textContent = "Dismiss";
  dismiss.addEventListener("click", () => notice.remove());
  notice.append(words, dismiss);
  $("notices").append(notice);
}

export function clearNotice(code) {
  for (const notice of $("notices").children) {
    if (notice.dataset.code === code) notice.remove();
  }
}

/** Where the transcript is, in each of its shapes. */
export function showDownloads(api, room) {
  for (const extension of EXTENSIONS) {
    $(`download-${extension}`).href = `${api}/transcript.${extension}`;
    $(`download-${extension}`).download = `${room}.${extension}`;
  }
}

/** Where a link alone gets nothing: `fetchFile(address)` brings what is saved. */
export function saveDownloadsBy(fetchFile) {
  for (const extension of EXTENSIONS) {
    const link = $(`download-${extension}`);
    link.addEventListener("click", async (event) => {
      if (link.href.startsWith("blob:")) return;
      event.preventDefault();
      const address = link.href;
      try {
        link.href = URL.createObjectURL(await fetchFile(address));
        link.click();
        setTimeout((made) => URL.revokeObjectURL(made), 60_000, link.href);
      } catch {
        showNotice("download", "The transcript could not be fetched. Try again in a moment.");
      } finally {
        link.href = address;
      }
    });
  }
}

/** A server's reason for its bye, as a person would say it. */
export function explainBye(reason) {
  switch (reason) {
    case "resumed":
    case "replaced":
      return "This visit goes on in another tab or window.";
    case "shutdown":
      return "The server is stopping or restarting.";
    case "removed":
      return "The room’s owner has removed you.";
    case "ended":
      return "The room’s owner has ended the meeting.";
    case "idle":
      return "Nobody has spoken here for long, so the room was closed.";
    case "slow_reader":
      return "This page could not keep up with the captions, so the server let it go.";
    default:
      return `The server ended the visit: ${reason}.`;
  }
}

/** A server's message, which begins small and ends bare, as a sentence. */
export function sentence(text) {
  const trimmed = (text ?? "").trim();
  if (trimmed === "") return "Something went wrong.";
  const begun = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** What is wrong with the name or the microphone, beside it; "" clears. */
export function showFault(field, fault) {
  $(`${field}-fault`).textContent = fault;
  $(`${field}-fault`).hidden = fault === "";
  if ($(field)) $(field).setAttribute("aria-invalid", String(fault !== ""));
}
