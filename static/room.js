// The room page: joins the pieces, and decides what follows from what.
//
// A visit lasts from join to leave and has one Signaling; the ledger of captions and the voice
// live as long as the page, so that what was read stays after leaving.

import { claimsOf, followLinks, maySpeak, request, takeToken, tokenFor } from "./access.js";
import { CaptionLedger } from "./captions.js";
import { CaptionsView } from "./captions-view.js";
import {
  copyText, isOfCall, nameFault, rememberLanguage, rememberName, rememberedLanguage, rememberedName,
  roomAddress, roomFault, roomOfPath, session,
} from "./names.js";
import { Owner } from "./owner.js";
import { MicrophoneRefused } from "./peer.js";
import {
  DETECT, Roster, clearNotice, explainBye, saveDownloadsBy, sentence, showDownloads, showEngine, showFault, showLanguages,
  showLoad, showNotice, showStage, showStatus,
} from "./room-view.js";
import { Signaling } from "./signaling.js";
import { Voice } from "./voice.js";

/** Of a long transcript only what the list can show is taken. */
const HISTORY = 500;

const $ = (id) => document.getElementById(id);
const room = roomOfPath(location.pathname);
const api = `/api/v1/rooms/${encodeURIComponent(room)}`;
takeToken();
const joinToken = tokenFor(room);
const isReadOnly = isOfCall(room) || !maySpeak(joinToken);

const ledger = new CaptionLedger();
const captions = new CaptionsView(ledger);
const owner = new Owner(room, api);
const roster = new Roster((participant) => captions.hueOf(participant), owner);
const voice = new Voice({
  send: (message) => signaling?.send(message),
  suspect: () => signaling?.suspect(),
  renew: () => signaling?.renew(),
}, receiveCaption);

let signaling = null;
let engine = {};
let wasIn = false;
let hasHistory = false;
let seat = session.take(room);

// ---- joining and leaving

async function joinWithMicrophone(event) {
  event.preventDefault();
  if (isReadOnly) return joinToListen();
  if (!acceptName()) return;
  showFault("mic", "");
  setAsking(true);
  try {
    await voice.takeMicrophone();
  } catch (error) {
    setAsking(false);
    if (!(error instanceof MicrophoneRefused)) throw error;
    showFault("mic", error.message);
    $("join-listen").focus();
    return;
  }
  setAsking(false);
  join();
  $("mute").focus();
}

function joinToListen() {
  if (!acceptName()) return;
  showFault("mic", "");
  join();
  $("captions-region").focus();
}

function acceptName() {
  const name = $("name").value.trim();
  const fault = nameFault(name);
  showFault("name", fault);
  if (fault !== "") {
    $("name").focus();
    return false;
  }
  rememberName(name);
  return true;
}

/** While the browser asks for the microphone, a second join must not begin. */
function setAsking(isAsking) {
  $("join-mic").disabled = isAsking;
  $("join-listen").disabled = isAsking;
}

function join() {
  const name = $("name").value.trim();
  clearNotice("ended");
  showStage("in");
  voice.begin();
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  signaling = new Signaling({
    address: `${scheme}//${location.host}${api}/ws`,
    name,
    joinToken,
    // Someone else's name is someone else's seat.
    token: seat?.name === name ? seat : null,
    lastSeq: () => ledger.lastSeq,
    on: { state: followConnection, welcome: receiveWelcome, message: receiveMessage },
  });
  signaling.start();
}

/** The visit is over, by our wish or the server's; what was read stays on the page. */
function endVisit() {
  voice.end();
  seat = null;
  session.drop(room);
  showLoad({ state: "ok" });
  // Refused before the first welcome: the name is asked for again, and nothing was left.
  showStage(wasIn ? "left" : "join");
  delete document.documentElement.dataset.participant;
  $("join-title").focus();
}

// ---- signaling

function followConnection(state, { error, reason, waitMs = 0 }) {
  if (state === "connected") {
    clearNotice("connection");
    showStatus("connected");
  } else if (state === "reconnecting") {
    // Whether captions lag is said anew after the next welcome.
    showLoad({ state: "ok" });
    showStatus("reconnecting", navigator.onLine ? "Reconnecting…" : "Offline — reconnecting…");
    if (error) showNotice("connection", `${sentence(error.message)} Trying again in ${Math.ceil(waitMs / 1000)} s.`);
  } else if (state === "error") {
    showStatus("error");
    endVisit();
    showNotice("ended", sentence(error.message ?? error.code));
  } else if (state === "closed") {
    showStatus("closed", "Left");
    endVisit();
    if (reason) showNotice("ended", explainBye(reason));
  } else showStatus(state);
}

function receiveWelcome(welcome, isResumed) {
  const { participant, participants = [] } = welcome;
  document.documentElement.dataset.participant = participant;
  wasIn = true;
  const self = participants.find((person) => person.participant === participant)
    ?? { participant, name: signaling.token.name, muted: voice.isMuted };
  for (const person of participants) ledger.learnName(person.participant, person.name);
  owner.settle((welcome.rights ?? []).includes("admin"));
  roster.reset(participants, self);
  engine = welcome.engine ?? {};
  showEngine(engine);
  offerLanguages();
  voice.hold(Boolean(self.muted_by_owner));
  if (Boolean(self.muted) !== voice.isMuted) signaling.send({ type: "mute", muted: voice.isMuted });
  if (hasHistory && !isResumed) {
    ledger.startRun();
    captions.refresh();
  }
  if (!hasHistory || !isResumed) loadHistory();
  voice.settle(welcome.ice_servers ?? [], isResumed);
}

function receiveMessage(message) {
  switch (message.type) {
    case "caption":
    case "gap":
      receiveCaption(message);
      break;
    case "answer":
      voice.acceptAnswer(message.sdp);
      break;
    case "joined":
    case "updated":
    case "left":
      if (message.name) ledger.learnName(message.participant, message.name);
      roster.receive(message);
      if (message.type === "updated" && message.participant === signaling?.token?.participant) {
        voice.hold(Boolean(message.muted_by_owner));
      }
      break;
    case "engine": {
      // Progress and message belong to one state; they must not outlive it.
      const { type, ...news } = message;
      const before = String(engine.languages);
      engine = { ...engine, progress: undefined, message: undefined, ...news };
      showEngine(engine);
      // It may turn out to be another than was expected.
      if (String(engine.languages) !== before) offerLanguages();
      break;
    }
    case "load":
      showLoad(message);
      break;
    case "error":
      showNotice(message.code, sentence(message.message ?? message.code));
      break;
    case "bye":
      showNotice("connection", explainBye(message.reason));
      break;
    default: // a newer server may say more than this page knows
  }
}

function receiveCaption(event) {
  if (ledger.receive(event, Date.now())) captions.refresh();
}

async function loadHistory() {
  try {
    const answer = await request(room, `${api}/transcript.json`);
    if (answer.ok) {
      const said = await answer.json();
      // Not an earlier meeting's of this room: its segments are named as ours will be.
      if (said.ended_at === null) ledger.receiveHistory(said, HISTORY);
    // A room in which nobody has spoken may have no transcript yet.
    } else if (answer.status !== 404) throw new Error(`transcript: ${answer.status}`);
    hasHistory = true;
    clearNotice("history");
  } catch {
    showNotice("history", "What was said earlier could not be loaded. It can still be downloaded under “Transcript”.");
  }
  captions.refresh();
}

function offerLanguages() {
  const languages = [...(engine.detects ? [DETECT] : []), ...(engine.languages ?? [])];
  const wanted = rememberedLanguage();
  const isOffered = languages.some((entry) => (entry.code ?? entry) === wanted);
  showLanguages(languages, isOffered ? wanted : engine.language);
  if (isOffered && wanted !== engine.language) signaling.send({ type: "language", language: wanted });
}

// ---- the page

async function enableMicrophone() {
  $("enable-mic").disabled = true;
  try {
    await voice.enable();
    $("mute").focus();
  } catch (error) {
    if (!(error instanceof MicrophoneRefused)) throw error;
    showNotice("media", error.message);
  } finally {
    $("enable-mic").disabled = false;
  }
}

async function copyLink() {
  const address = roomAddress(room);
  if (!await copyText(address)) {
    showNotice("link", `The link to this room: ${address}`);
    return;
  }
  $("copy-label").textContent = "Copied";
  $("copy-link").dataset.copied = "";
  setTimeout(() => {
    $("copy-label").textContent = "Copy link";
    delete $("copy-link").dataset.copied;
  }, 2500);
}

function toggleDetails() {
  const isOpen = $("toggle-details").getAttribute("aria-expanded") !== "true";
  $("toggle-details").setAttribute("aria-expanded", String(isOpen));
  document.documentElement.dataset.details = isOpen ? "open" : "closed";
}

function chooseLanguage() {
  const language = $("language").value;
  if (language === "") return;
  rememberLanguage(language);
  signaling?.send({ type: "language", language });
}

async function fetchFile(address) {
  const answer = await request(room, address);
  if (!answer.ok) throw new Error(`download: ${answer.status}`);
  return answer.blob();
}

/** Who is here already, for somebody about to join. Not worth an error when it is unknown. */
async function showWho() {
  try {
    const answer = await request(room, "/api/v1/rooms");
    if (answer.status === 401 || answer.status === 403) {
      const { error } = await answer.json();
      $("who").textContent = `${sentence(error.message)} Ask whoever invited you for a link to this room.`;
      return;
    }
    const { rooms = [] } = await answer.json();
    const open = rooms.find((other) => other.room === room && !other.ended_at);
    const names = (open?.participants ?? []).filter(({ left_at: leftAt }) => !leftAt).map(({ name }) => name);
    $("who").textContent = names.length === 0
      ? "Nobody is here yet."
      : `In the room: ${new Intl.ListFormat("en").format(names)}.`;
  } catch {
    $("who").textContent = "";
  }
}

/** The seat is kept for a reload, and only then: see session.take. */
function keepSeat() {
  const held = signaling?.token ?? seat;
  if (held) session.keep(room, held);
}

/** Fills in the name; true when there is one to join with. */
function offerName() {
  const { name } = claimsOf(joinToken ?? "");
  const given = typeof name === "string" ? name : rememberedName();
  $("name").value = given;
  $("name").readOnly = typeof name === "string";
  if (new URLSearchParams(location.search).has("name")) {
    if (nameFault(given) === "") rememberName(given);
    // The address bar is what people share: it must not carry one's name.
    history.replaceState(null, "", location.pathname);
  }
  return given !== "";
}

function openPage() {
  document.title = `${room} · roomscribe`;
  $("room-name").textContent = room;
  showDownloads(api, room);
  if (joinToken) saveDownloadsBy(fetchFile);
  const hasName = offerName();
  showStage("join");
  showStatus("closed");
  const fault = roomFault(room);
  if (fault !== "") {
    showStatus("error");
    showNotice("bad_room", `${fault} Go back to the start page and choose another name.`);
    $("join-panel").hidden = true;
    return;
  }
  showWho();
  document.documentElement.toggleAttribute("data-read-only", isReadOnly);
  const first = isReadOnly ? "join-listen" : "join-mic";
  $(hasName ? first : "name").focus();
}

$("join-form").addEventListener("submit", joinWithMicrophone);
$("join-listen").addEventListener("click", joinToListen);
$("name").addEventListener("input", () => showFault("name", ""));
$("mute").addEventListener("click", () => voice.mute(!voice.isMuted));
$("enable-mic").addEventListener("click", enableMicrophone);
$("leave").addEventListener("click", () => signaling.leave());
$("copy-link").addEventListener("click", copyLink);
$("retry-now").addEventListener("click", () => signaling?.retryNow());
$("toggle-details").addEventListener("click", toggleDetails);
$("language").addEventListener("change", chooseLanguage);
addEventListener("pagehide", keepSeat);
followLinks();
document.addEventListener("visibilitychange", () => {
  // A phone may end a hidden page without a word.
  if (document.hidden) keepSeat();
  else session.drop(room);
});
openPage();
