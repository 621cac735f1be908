// When to try again, when a silent socket counts as dead, and whether a peer is worth keeping.
//
// Pure: no timers, sockets or clocks. Time comes in as `now` in milliseconds on any steady
// clock, chance as a function. signaling.js and peer.js own the timers that ask these rules.

/** How long to wait before the next attempt: doubling, with jitter, forgiven after a steady spell. */
export class Backoff {
  #baseMs;
  #ceilingMs;
  #steadyMs;
  #random;
  #failures = 0;
  #openedAt = null;

  /**
   * The ceiling of 8 s leaves about six attempts inside the 30 s in which a server still
   * knows its lost participant. A connection counts as a success only once it has lasted:
   * a server that welcomes and then closes must not be called in a tight loop.
   */
  constructor({ baseMs = 500, ceilingMs = 8000, steadyMs = 5000, random = Math.random } = {}) {
    this.#baseMs = baseMs;
    this.#ceilingMs = ceilingMs;
    this.#steadyMs = steadyMs;
    this.#random = random;
  }

  /** The server welcomed us. */
  opened(now) {
    this.#openedAt = now;
  }

  /** Forget the failures: a person or the network's return asks for a fresh start. */
  reset() {
    this.#failures = 0;
  }

  /** The wait before the next attempt; each call counts one failure. */
  nextDelayMs(now, atLeastMs = 0) {
    if (this.#openedAt !== null && now - this.#openedAt >= this.#steadyMs) this.#failures = 0;
    this.#openedAt = null;
    const whole = Math.min(this.#ceilingMs, this.#baseMs * 2 ** this.#failures);
    this.#failures += 1;
    // Half fixed, half chance: a room full of pages must not return in the same instant.
    return Math.max(atLeastMs, whole / 2 + (whole / 2) * this.#random());
  }
}

/**
 * Decides whether a socket is dead, from what it was heard to say.
 *
 * The server says something at least every 5 s. A browser reports a lost network on a socket
 * only after minutes, so silence is the sign: 12 s of it, or 7 s once something else (the
 * browser's offline event, a disconnected peer) has raised a suspicion. Suspicion alone never
 * kills: a server on the same machine goes on working while the browser is "offline".
 */
export class Liveness {
  #welcomeMs;
  #silenceMs;
  #suspectMs;
  #openedAt = null;
  #heardAt = null;
  #suspectedAt = null;
  #serverPings = false;

  constructor({ welcomeMs = 10_000, silenceMs = 12_000, suspectMs = 7_000 } = {}) {
    this.#welcomeMs = welcomeMs;
    this.#silenceMs = silenceMs;
    this.#suspectMs = suspectMs;
  }

  /** A new socket was asked for. That a server pings is remembered from one socket to the next. */
  opened(now) {
    this.#openedAt = now;
    this.#heardAt = null;
    this.#suspectedAt = null;
  }

  /** A message came: the way is open, whatever was suspected. */
  heard(isPing, now) {
    this.#heardAt = now;
    this.#suspectedAt = null;
    if (isPing) this.#serverPings = true;
  }

  /** Something hints that the network is gone. */
  suspect(now) {
    this.#suspectedAt ??= now;
  }

  closed() {
    this.#openedAt = null;
  }

  /** The moment at which the socket counts as dead unless something is heard; Infinity for never. */
  deadline() {
    if (this.#openedAt === null) return Infinity;
    if (this.#heardAt === null) return this.#openedAt + this.#welcomeMs;
    // A server that never pinged may be silent for as long as nobody speaks.
    if (!this.#serverPings) return Infinity;
    if (this.#suspectedAt === null) return this.#heardAt + this.#silenceMs;
    // At least 1.5 s after the suspicion: the ping due now may be a little late.
    return Math.max(this.#heardAt + this.#suspectMs, this.#suspectedAt + 1500);
  }

  isDead(now) {
    return now >= this.deadline();
  }
}

/** ICE often heals a "disconnected" within seconds; beyond this a fresh peer is quicker. */
export const PEER_GRACE_MS = 5000;

/**
 * What to do with a peer once signaling is back: "keep", "wait" (ask again after the grace),
 * or "replace".
 */
export function judgePeer({ connectionState, signalingState, disconnectedMs }) {
  if (connectionState === "failed" || connectionState === "closed") return "replace";
  // The answer was lost with the old socket: this peer will never connect.
  if (signalingState !== "stable") return "replace";
  if (connectionState !== "disconnected") return "keep";
  return disconnectedMs >= PEER_GRACE_MS ? "replace" : "wait";
}

/**
 * What an ended socket means: "retry", or "stop" when trying again could not help.
 * `error` is the last error message of the server on that socket, if any.
 */
export function judgeEnd({ error, errorAgeMs, wasWelcomed }) {
  if (!error || error.retryable !== false) return "retry";
  // After the welcome an error may be about one message only; it explains the end when it
  // came just before it.
  return !wasWelcomed || errorAgeMs < 2000 ? "stop" : "retry";
}
