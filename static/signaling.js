// The page's line to its room: one WebSocket after another, and what is said on them.
//
// Owns the socket, the hello, the resume token and the timers of reconnect.js. It refuses to
// know captions, media or the DOM: every message but ping goes to `onMessage` as parsed JSON.
// A message sent while no socket is open is dropped; `onWelcome` is the place to say things again.

import { Backoff, Liveness, judgeEnd } from "./reconnect.js";

/** A full server is asked at a slower pace than a lost one. */
const FULL_PAUSE_MS = 3000;
/** The server asked to leave for these reasons; coming back would undo its decision. */
const FINAL_BYES = new Set(["bye", "left", "kicked", "removed", "replaced", "resumed", "ended", "idle", "flooded"]);

export class Signaling {
  #address;
  #name;
  #joinToken;
  #lastSeq;
  #on;
  #socket = null;
  #backoff = new Backoff();
  #liveness = new Liveness();
  #retryTimer = 0;
  #watchTimer = 0;
  #error = null;
  #errorAt = 0;
  #welcomed = false;
  #stopped = true;
  #suspect = () => this.suspect();
  #online = () => (this.#welcomed ? this.suspect() : this.retryNow());

  /** The token and id under which the server knows us; null before the first welcome. */
  token = null;

  /**
   * `joinToken` lets one in, where that is needed; `token` is the seat that one comes back to.
   * `lastSeq()` says what was seen, for the replay. `on` has
   * `state(state, detail)` with state connecting | connected | reconnecting | closed | error,
   * `welcome(message, isResumed)` and `message(message)`.
   */
  constructor({ address, name, joinToken, token, lastSeq, on }) {
    this.#address = address;
    this.#name = name;
    this.#joinToken = joinToken;
    this.#lastSeq = lastSeq;
    this.#on = on;
    this.token = token;
  }

  start() {
    this.#stopped = false;
    addEventListener("offline", this.#suspect);
    addEventListener("online", this.#online);
    this.#on.state("connecting", {});
    this.#connect();
  }

  /** Says goodbye and ends: the token is void from here on. */
  leave() {
    this.send({ type: "bye" });
    this.token = null;
    this.#stop("closed", {});
  }

  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Something hints at a lost network: give the socket only a moment more to prove it lives. */
  suspect() {
    this.#liveness.suspect(performance.now());
    this.#watch();
  }

  /** Drops a socket that works, to start over as the same participant (a peer that failed). */
  renew() {
    if (this.#socket && this.#welcomed) this.#lose();
  }

  /** Tries at once instead of waiting out the pause, or an attempt that has met no answer yet. */
  retryNow() {
    if (this.#stopped || this.#welcomed) return;
    clearTimeout(this.#retryTimer);
    this.#release();
    this.#backoff.reset();
    this.#connect();
  }

  #connect() {
    this.#error = null;
    this.#welcomed = false;
    const socket = new WebSocket(this.#address);
    this.#socket = socket;
    this.#liveness.opened(performance.now());
    this.#watch();
    // A socket that was given up may still speak; only the present one is listened to.
    const ifCurrent = (act) => (event) => socket === this.#socket && act(event);
    socket.onopen = ifCurrent(() => this.#sayHello());
    socket.onmessage = ifCurrent((event) => this.#receive(event.data));
    socket.onclose = ifCurrent((event) => this.#lose(event.reason));
  }

  #sayHello() {
    const hello = { type: "hello", version: 1, name: this.#name };
    if (this.#joinToken) hello.token = this.#joinToken;
    if (this.token) hello.resume = this.token.resume;
    const lastSeq = this.#lastSeq();
    if (this.token && lastSeq > 0) hello.last_seq = lastSeq;
    this.send(hello);
  }

  #receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // not ours to repair: the server speaks JSON or the socket is not its own
    }
    this.#liveness.heard(message.type === "ping", performance.now());
    this.#watch();
    if (message.type === "welcome") this.#welcome(message);
    else if (message.type === "error") this.#remember(message);
    else if (message.type === "bye") this.#receiveBye(message);
    else if (message.type !== "ping") this.#on.message(message);
  }

  #welcome(message) {
    // The id alone does not tell: a server that restarted counts its participants anew.
    const isKnown = this.token?.participant === message.participant && this.token.resume === message.resume;
    const isResumed = message.resumed ?? isKnown;
    this.token = { resume: message.resume, participant: message.participant, name: this.#name };
    this.#welcomed = true;
    this.#backoff.opened(performance.now());
    this.#on.state("connected", {});
    this.#on.welcome(message, isResumed);
  }

  #remember(error) {
    this.#error = error;
    this.#errorAt = performance.now();
    if (this.#welcomed) this.#on.message(error);
    else if (error.retryable === false) this.#stop("error", { error });
  }

  #receiveBye({ reason }) {
    if (FINAL_BYES.has(reason)) {
      this.token = null;
      this.#stop("closed", { reason });
      return;
    }
    this.#on.message({ type: "bye", reason });
  }

  #lose(reason = "") {
    const now = performance.now();
    const error = this.#error;
    const end = judgeEnd({ error, errorAgeMs: now - this.#errorAt, wasWelcomed: this.#welcomed });
    this.#release();
    if (end === "stop") {
      this.#stop("error", { error });
      return;
    }
    const waitMs = this.#backoff.nextDelayMs(now, error?.code === "full" ? FULL_PAUSE_MS : 0);
    this.#on.state("reconnecting", { error, reason, waitMs });
    this.#retryTimer = setTimeout(() => this.#connect(), waitMs);
  }

  /** Lets go of the socket at once: its closing handshake would wait for a network that is gone. */
  #release() {
    const socket = this.#socket;
    this.#socket = null;
    this.#welcomed = false;
    this.#liveness.closed();
    clearTimeout(this.#watchTimer);
    socket?.close();
  }

  #stop(state, detail) {
    this.#stopped = true;
    clearTimeout(this.#retryTimer);
    removeEventListener("offline", this.#suspect);
    removeEventListener("online", this.#online);
    this.#release();
    this.#on.state(state, detail);
  }

  /** Looks again at the deadline. Timers sleep with the machine, so the clock decides, not the timer. */
  #watch() {
    clearTimeout(this.#watchTimer);
    const waitMs = this.#liveness.deadline() - performance.now();
    if (waitMs === Infinity) return;
    this.#watchTimer = setTimeout(() => {
      if (this.#liveness.isDead(performance.now())) this.#lose("silence");
      else this.#watch();
    }, Math.max(0, waitMs));
  }
}
