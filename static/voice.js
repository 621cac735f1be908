// The visitor's voice: the microphone, whether it is muted, and the peer that carries it.
//
// Lives as long as the page, over many visits. It decides when a peer is made, kept or given up,
// and refuses to know how signaling works: it gets a line with `send`, `suspect` and `renew`.

import { Peer, openMicrophone } from "./peer.js";
import { clearNotice, showMedia, showMicrophone, showNotice } from "./room-view.js";

/** Failures in a row after which the page settles for reading along. */
const ATTEMPTS = 3;

export class Voice {
  #line;
  #receiveCaption;
  #track = null;
  #peer = null;
  #iceServers = [];
  #failures = 0;
  #wasOffered = false;
  #isVisiting = false;

  isMuted = false;
  #isHeld = false;

  /** `line` has send(message), suspect() and renew(); captions of the data channel go to `receiveCaption`. */
  constructor(line, receiveCaption) {
    this.#line = line;
    this.#receiveCaption = receiveCaption;
  }

  /** Takes the microphone, ahead of a visit. Raises MicrophoneRefused. */
  async takeMicrophone() {
    const track = await openMicrophone();
    this.#track = track;
    // It can be unplugged, or taken back in the browser's own settings.
    track.addEventListener("ended", () => {
      if (this.#track !== track) return;
      this.#drop();
      showNotice("media", "The microphone has stopped. You can go on reading along, or use another one.");
    });
  }

  /** A visit begins, with the microphone when it was taken. */
  begin() {
    this.#isVisiting = true;
    this.isMuted = false;
    this.#isHeld = false;
    this.#failures = 0;
    this.#wasOffered = false;
    showMedia(this.#track ? "connecting" : "none");
    this.#show();
  }

  /** After a welcome: keeps a healthy peer of ours, makes one where there is none. */
  settle(iceServers, isResumed) {
    this.#iceServers = iceServers;
    if (!this.#track || this.#failures >= ATTEMPTS) return;
    const verdict = this.#peer && isResumed ? this.#peer.judge() : "replace";
    // "wait" needs nothing here: the peer heals, or its own grace timer fails it.
    if (verdict === "replace") this.#startPeer();
  }

  acceptAnswer(sdp) {
    this.#peer?.acceptAnswer(sdp);
  }

  /** The owner mutes us, or lets us unmute again. */
  hold(isHeld) {
    const wasHeld = this.#isHeld;
    this.#isHeld = isHeld;
    if (isHeld && !this.isMuted) this.mute(true);
    else if (isHeld !== wasHeld) this.#show();
  }

  mute(isMuted) {
    // Whom the owner has muted stays so, also with a microphone that is new.
    this.isMuted = isMuted || this.#isHeld;
    isMuted = this.isMuted;
    if (this.#track) this.#track.enabled = !isMuted;
    this.#line.send({ type: "mute", muted: isMuted });
    this.#show();
  }

  /** Adds the microphone to a visit that goes on. Raises MicrophoneRefused. */
  async enable() {
    await this.takeMicrophone();
    // The browser may ask for long; a visit that ended meanwhile wants no microphone.
    if (!this.#isVisiting) {
      this.end();
      return;
    }
    clearNotice("media");
    this.#failures = 0;
    this.mute(false);
    if (this.#peer) await this.#peer.replaceTrack(this.#track);
    else if (this.#wasOffered) this.#line.renew();
    else this.#startPeer();
  }

  /** The visit is over: the microphone goes off. */
  end() {
    this.#isVisiting = false;
    this.#closePeer();
    this.#track?.stop();
    this.#track = null;
    showMedia("none");
  }

  #startPeer() {
    this.#closePeer();
    const peer = new Peer({
      track: this.#track,
      iceServers: this.#iceServers,
      send: (message) => this.#line.send(message),
      on: {
        caption: this.#receiveCaption,
        shaky: () => this.#line.suspect(),
        state: (state) => peer === this.#peer && this.#follow(state),
      },
    });
    this.#peer = peer;
    this.#wasOffered = true;
    peer.offer();
  }

  #follow(state) {
    showMedia(state);
    if (state === "open") {
      this.#failures = 0;
      clearNotice("media");
    }
    if (state !== "failed") return;
    this.#peer = null;
    this.#failures += 1;
    if (this.#failures < ATTEMPTS) {
      // What broke the peer may have broken the socket: a fresh hello proves it, and a fresh
      // socket takes a fresh offer. Without a socket the next welcome starts the next peer.
      this.#line.renew();
      return;
    }
    // A microphone that nobody hears must not stay on.
    this.#drop();
    showNotice("media", "Your voice does not reach the server: the network may block it. You can go on reading along, or try the microphone again.");
  }

  #drop() {
    this.#track?.stop();
    this.#track = null;
    this.mute(true);
  }

  #closePeer() {
    this.#peer?.close();
    this.#peer = null;
  }

  #show() {
    const state = this.#isHeld ? "held" : this.isMuted ? "muted" : "on";
    showMicrophone(this.#track === null ? "none" : state);
  }
}
