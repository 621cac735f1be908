// The start page: a name, a room, a link to share, and the rooms that are open now.
//
// It refuses to know media or signaling: it only leads to /r/{room}, where one joins.

import { followLinks, request, takeToken } from "./access.js";
import { copyText, nameFault, rememberName, rememberedName, roomAddress, roomFault, suggestRoom } from "./names.js";

const REFRESH_MS = 10_000;

const $ = (id) => document.getElementById(id);
const nameOf = () => $("name").value.trim();
const roomOf = () => $("room").value.trim();

/** Shows what is wrong with a field beside it, or clears it; true when all is well. */
function showFault(field, fault) {
  $(`${field}-fault`).textContent = fault;
  $(`${field}-fault`).hidden = fault === "";
  $(field).setAttribute("aria-invalid", String(fault !== ""));
  return fault === "";
}

function showShareLink() {
  const room = roomOf();
  const isUsable = roomFault(room) === "";
  $("share").hidden = !isUsable;
  $("share-link").textContent = isUsable ? roomAddress(room) : "";
}

function join(event) {
  event.preventDefault();
  // Both are judged, so that both faults show at once; focus goes to the first.
  const nameIsFine = showFault("name", nameFault(nameOf()));
  const roomIsFine = showFault("room", roomFault(roomOf()));
  if (!nameIsFine || !roomIsFine) {
    $(nameIsFine ? "room" : "name").focus();
    return;
  }
  const isKept = rememberName(nameOf());
  // A browser that keeps nothing takes the name along in the address.
  location.assign(`/r/${roomOf()}${isKept ? "" : `?name=${encodeURIComponent(nameOf())}`}`);
}

function suggest() {
  $("room").value = suggestRoom();
  showFault("room", "");
  showShareLink();
}

async function copyLink() {
  const isCopied = await copyText($("share-link").textContent);
  const said = isCopied ? "Link copied" : "Select the link to copy it";
  $("copied").textContent = said;
  $("copy-link").textContent = said;
  setTimeout(() => {
    $("copy-link").textContent = "Copy link";
    $("copied").textContent = "";
  }, 2500);
}

/** The open rooms; ended ones are only kept for their transcripts. */
async function fetchRooms() {
  const answer = await request("*", "/api/v1/rooms");
  if (answer.status === 401) throw new NoLink();
  if (!answer.ok) throw new Error(`rooms: ${answer.status}`);
  const { rooms = [] } = await answer.json();
  return rooms.filter((room) => !room.ended_at && roomFault(room.room) === "");
}

function describe(participants) {
  const names = participants.map(({ name }) => name);
  if (names.length === 0) return "Nobody at the moment";
  if (names.length <= 3) return names.join(", ");
  return `${names.slice(0, 2).join(", ")} and ${names.length - 2} more`;
}

function roomRow({ room, started_at: startedAt, participants = [] }) {
  const row = document.createElement("li");
  row.dataset.room = room;
  const link = document.createElement("a");
  link.href = `/r/${room}`;
  const title = document.createElement("span");
  title.className = "room-title";
  title.textContent = room;
  const people = document.createElement("span");
  people.className = "room-people";
  people.textContent = describe(participants.filter(({ left_at: leftAt }) => !leftAt));
  link.append(title, people);
  const started = new Date(startedAt);
  if (!Number.isNaN(started.getTime())) {
    const since = document.createElement("time");
    since.dateTime = started.toISOString();
    since.textContent = `since ${started.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
    link.append(since);
  }
  row.append(link);
  return row;
}

/** This server lets in who has a link. */
class NoLink extends Error {}

let shownRooms = "";

async function refreshRooms() {
  if (document.hidden) return;
  let note = "";
  try {
    const rooms = await fetchRooms();
    const present = JSON.stringify(rooms);
    // Rebuilding an unchanged list would take the keyboard's focus out of it.
    if (present !== shownRooms) showRooms(rooms);
    shownRooms = present;
    if (rooms.length === 0) note = "None at the moment. Joining by a new name opens one.";
  } catch (error) {
    note = error instanceof NoLink
      ? "This server lets in who has a link. Open the one that you were given."
      : "The list of rooms cannot be loaded right now. Joining by name may still work.";
  }
  $("rooms-note").textContent = note;
  $("rooms-note").hidden = note === "";
}

function showRooms(rooms) {
  const focused = document.activeElement?.closest("[data-room]")?.dataset.room;
  $("rooms").replaceChildren(...rooms.map(roomRow));
  if (focused) $("rooms").querySelector(`[data-room="${focused}"] a`)?.focus();
}

$("name").value = rememberedName();
$("name").addEventListener("input", () => showFault("name", ""));
// A name typed here also counts when one joins by clicking an open room.
$("name").addEventListener("change", () => nameFault(nameOf()) === "" && rememberName(nameOf()));
$("room").addEventListener("input", () => {
  // Only what can never become right is said while typing.
  showFault("room", roomOf() === "" ? "" : roomFault(roomOf()));
  showShareLink();
});
$("suggest").addEventListener("click", suggest);
$("copy-link").addEventListener("click", copyLink);
$("join-form").addEventListener("submit", join);
document.addEventListener("visibilitychange", refreshRooms);
setInterval(refreshRooms, REFRESH_MS);
takeToken();
followLinks();
showShareLink();
refreshRooms();
