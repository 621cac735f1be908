// The microphone, and one peer connection that carries it out and brings the captions in.
//
// A Peer is made for one offer and thrown away when it fails: voice.js decides when to make the
// next. It sends through the function it is given and refuses to know the WebSocket.

import { PEER_GRACE_MS, judgePeer } from "./reconnect.js";

/** ICE gives up by itself within half a minute; captions need not wait for that. */
const OPEN_WITHIN_MS = 20_000;

/** The microphone was not given; `message` says to a person why, and what to do. */
export class MicrophoneRefused extends Error {}

/** Asks for the microphone. Raises MicrophoneRefused. */
export async function openMicrophone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new MicrophoneRefused(
      "Browsers give the microphone only to pages served over HTTPS or from this same computer. You can read along without it.",
    );
  }
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    return stream.getAudioTracks()[0];
  } catch (error) {
    throw new MicrophoneRefused(explainRefusal(error));
  }
}

function explainRefusal(error) {
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return "The microphone is blocked for this page. Allow it beside the browser’s address bar and try again, or read along without it.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No microphone was found. Plug one in and try again, or read along without it.";
    case "NotReadableError":
    case "AbortError":
      return "The microphone is in use by another program or did not start. Free it and try again, or read along without it.";
    default:
      return "The microphone could not be opened. Try again, or read along without it.";
  }
}

export class Peer {
  #connection;
  #channel;
  #sender;
  #send;
  #on;
  #pendingCandidates = [];
  #offered = false;
  #closed = false;
  #disconnectedAt = null;
  #openTimer = 0;
  #graceTimer = 0;

  /**
   * `send` takes signaling messages; `on` has `state(state)` with connecting | open | failed,
   * `caption(event)` and `shaky()` for a connection that may be about to fail.
   */
  constructor({ track, iceServers, send, on }) {
    this.#send = send;
    this.#on = on;
    this.#connection = new RTCPeerConnection({ iceServers });
    this.#connection.onicecandidate = ({ candidate }) => this.#offerCandidate(candidate);
    this.#connection.onconnectionstatechange = () => this.#followConnection();
    this.#sender = this.#connection.addTrack(track, new MediaStream([track]));
    this.#channel = this.#connection.createDataChannel("captions", { ordered: true });
    this.#channel.onopen = () => this.#opened();
    this.#channel.onclose = () => this.#fail();
    this.#channel.onmessage = ({ data }) => this.#receive(data);
  }

  /** Makes and sends the offer. */
  async offer() {
    this.#on.state("connecting");
    this.#openTimer = setTimeout(() => this.#fail(), OPEN_WITHIN_MS);
    try {
      await this.#connection.setLocalDescription();
      if (this.#closed) return;
      this.#send({ type: "offer", sdp: this.#connection.localDescription.sdp });
      this.#offered = true;
      for (const candidate of this.#pendingCandidates.splice(0)) this.#offerCandidate(candidate);
    } catch {
      this.#fail();
    }
  }

  async acceptAnswer(sdp) {
    try {
      await this.#connection.setRemoteDescription({ type: "answer", sdp });
    } catch {
      this.#fail();
    }
  }

  /** Goes on with another microphone, without a new offer. */
  async replaceTrack(track) {
    await this.#sender.replaceTrack(track);
  }

  /** "keep", "wait" or "replace": what to do with this peer now that signaling is back. */
  judge() {
    const { connectionState, signalingState } = this.#connection;
    const disconnectedMs = this.#disconnectedAt === null ? 0 : performance.now() - this.#disconnectedAt;
    return judgePeer({ connectionState, signalingState, disconnectedMs });
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#openTimer);
    clearTimeout(this.#graceTimer);
    this.#connection.close();
  }

  #offerCandidate(candidate) {
    // The null and the empty candidate end the list; the server needs neither.
    if (!candidate?.candidate || this.#closed) return;
    // The server refuses a candidate that comes before its offer.
    if (!this.#offered) this.#pendingCandidates.push(candidate);
    else this.#send({ type: "candidate", candidate: candidate.candidate, sdpMid: candidate.sdpMid });
  }

  #opened() {
    clearTimeout(this.#openTimer);
    this.#on.state("open");
  }

  #receive(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    this.#on.caption(event);
  }

  #followConnection() {
    const state = this.#connection.connectionState;
    clearTimeout(this.#graceTimer);
    if (state === "failed") this.#fail();
    if (state !== "disconnected") {
      this.#disconnectedAt = null;
      return;
    }
    this.#disconnectedAt = performance.now();
    this.#on.shaky();
    this.#graceTimer = setTimeout(() => this.#fail(), PEER_GRACE_MS);
  }

  /** Says it once; the owner closes. */
  #fail() {
    if (this.#closed) return;
    this.close();
    this.#on.state("failed");
  }
}
