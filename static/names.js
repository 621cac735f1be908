// What a room and a person may be called, and what this browser remembers.
//
// The rules mirror the server's, so that a person reads a plain sentence before anything is
// sent; the server still decides. Storage may be refused (private windows, policies): then
// nothing is remembered and nothing breaks.

const ROOM = /^[A-Za-z0-9_-]{1,64}$/;
const CONTROL = /\p{Cc}/u;
const NAME_KEY = "roomscribe.name";
const LANGUAGE_KEY = "roomscribe.language";

const MOODS = [
  "amber", "autumn", "bright", "calm", "clear", "early", "gentle", "golden", "green", "kind",
  "lively", "lucid", "mellow", "north", "open", "quiet", "silver", "spring", "steady", "sunny",
];
const PLACES = [
  "atrium", "bay", "brook", "cedar", "cove", "field", "garden", "grove", "harbor", "hill",
  "island", "lantern", "library", "meadow", "orchard", "pine", "river", "summit", "terrace", "valley",
];

/** Why this cannot name a room, or "" when it can. */
export function roomFault(room) {
  if (room === "") return "Give the room a name.";
  if (ROOM.test(room)) return "";
  if (room.length > 64) return `Room names have at most 64 characters; this one has ${room.length}.`;
  const alternative = room.normalize("NFKD").replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "");
  const hint = alternative === "" ? "" : ` Try “${alternative}”.`;
  return `Room names use letters A–Z, digits, - and _ only.${hint}`;
}

/** Why this cannot be a display name, or "" when it can. Pass it trimmed. */
export function nameFault(name) {
  if (name === "") return "Enter your name, so that others know who is speaking.";
  // Code points, as the server counts them: an emoji is one character, not two.
  const length = [...name].length;
  if (length > 64) return `Names have at most 64 characters; this one has ${length}.`;
  if (CONTROL.test(name)) return "Names cannot contain control characters such as tabs.";
  return "";
}

/** A room name nobody is likely to be using: 36,000 combinations, easy to say aloud. */
export function suggestRoom() {
  const [mood, place, number] = crypto.getRandomValues(new Uint32Array(3));
  return `${MOODS[mood % MOODS.length]}-${PLACES[place % PLACES.length]}-${10 + (number % 90)}`;
}

/** The room of a call in Nextcloud Talk: its speakers are there, here one reads. */
export const isOfCall = (room) => room.startsWith("talk-");

/** The room named by a page's path, /r/{room}; "" when the path names none. */
export function roomOfPath(pathname) {
  const [, encoded = ""] = pathname.match(/^\/r\/([^/]*)\/?$/) ?? [];
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded; // a broken %-escape: shown as it is, and refused by roomFault
  }
}

/** The address to share: it carries no name, so that nobody joins as somebody else. */
export function roomAddress(room) {
  return `${location.origin}/r/${room}`;
}

/** The name to offer: the address's, then this tab's, then this browser's. */
export function rememberedName() {
  const given = new URLSearchParams(location.search).get("name");
  return (given ?? recall(() => sessionStorage, NAME_KEY) ?? recall(() => localStorage, NAME_KEY) ?? "").trim();
}

/** Keeps the name for this tab (two tabs may be two people) and as the browser's default. */
export function rememberName(name) {
  retain(() => sessionStorage, NAME_KEY, name);
  return retain(() => localStorage, NAME_KEY, name);
}

export const rememberedLanguage = () => recall(() => localStorage, LANGUAGE_KEY) ?? "";
export const rememberLanguage = (code) => retain(() => localStorage, LANGUAGE_KEY, code);

/** What a tab needs to come back as the same participant after a reload. */
export const session = {
  /** Takes the token out: a duplicated tab copies the storage, and must not copy the person. */
  take(room) {
    const kept = recall(() => sessionStorage, `roomscribe.resume.${room}`);
    this.drop(room);
    try {
      return JSON.parse(kept ?? "null");
    } catch {
      return null;
    }
  },
  keep(room, token) {
    retain(() => sessionStorage, `roomscribe.resume.${room}`, JSON.stringify(token));
  },
  drop(room) {
    try {
      sessionStorage.removeItem(`roomscribe.resume.${room}`);
    } catch {
      // no storage, nothing kept
    }
  },
};

/** Copies text; false when the browser allows neither way (then show it to be copied by hand). */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// The clipboard API exists only on HTTPS and localhost; a server in one's own network is neither.
function copyBySelection(text) {
  const before = document.activeElement;
  const box = document.createElement("textarea");
  box.value = text;
  box.className = "visually-hidden";
  document.body.append(box);
  box.select();
  const copied = document.execCommand("copy");
  box.remove();
  before?.focus?.();
  return copied;
}

/** What this browser keeps under a key; null where it keeps nothing. */
export function recall(storage, key) {
  try {
    return storage().getItem(key);
  } catch {
    return null;
  }
}

/** Keeps it; false where the browser does not. */
export function retain(storage, key, value) {
  try {
    storage().setItem(key, value);
    return true;
  } catch {
    return false;
  }
}
