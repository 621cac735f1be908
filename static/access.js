// What lets this browser in: a join token, as a link carries it in its fragment.
//
// A fragment is never sent and stands in no log. Here it leaves the address bar, too, which is what
// people share, and is kept for this tab. It refuses to judge a token: the server does; what is
// read of one here is for showing.

import { recall, retain } from "./names.js";

const KEY = "roomscribe.token.";
const LINK = /^#token=([\w.-]+)$/;
const EVERY_ROOM = "*";

// Where the browser keeps nothing, the token stays in the address and here.
let held = null;

/** Another link opened in this tab: the address changes, and the page does not load by itself. */
export function followLinks() {
  addEventListener("hashchange", () => takeToken() && location.reload());
}

/** Takes the token out of the page's address; true when there was one. */
export function takeToken() {
  const [, token] = location.hash.match(LINK) ?? [];
  if (token === undefined) return false;
  held = token;
  if (retain(() => sessionStorage, KEY + (claimsOf(token).room ?? EVERY_ROOM), token)) {
    history.replaceState(null, "", location.pathname + location.search);
  }
  return true;
}

/** The token for a room, or null. */
export function tokenFor(room) {
  return recall(() => sessionStorage, KEY + room) ?? recall(() => sessionStorage, KEY + EVERY_ROOM) ?? held;
}

/** What a token says of itself: {} where it cannot be read. */
export function claimsOf(token) {
  try {
    const [, payload] = token.split(".");
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

/** Whether its bearer may speak; a token that says nothing lets one, and none leaves it open. */
export function maySpeak(token) {
  const { may = ["publish"] } = token ? claimsOf(token) : {};
  return ["publish", "admin"].some((right) => String(may).includes(right));
}

/** Asks the server for something of a room, as whoever has the token. */
export function request(room, path, options = {}) {
  const token = tokenFor(room);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  return fetch(path, { signal: AbortSignal.timeout(10_000), ...options, headers });
}
