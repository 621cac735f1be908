// What the room's owner may do: mute and remove people, lock the room, end it.
//
// Shown once the welcome says that one is the owner; the server decides each time. It refuses to
// know the roster: it is given a row and the person in it.

import { request } from "./access.js";
import { sentence, showNotice } from "./room-view.js";

/** How long “really?” waits for its answer. */
const SURE_MS = 5000;

const $ = (id) => document.getElementById(id);

export class Owner {
  #room;
  #api;
  #isOwner = false;
  #unsure = 0;

  constructor(room, api) {
    this.#room = room;
    this.#api = api;
    $("lock-room").addEventListener("click", () => this.#lock($("lock-room").getAttribute("aria-pressed") !== "true"));
    $("end-room").addEventListener("click", () => this.#end());
  }

  /** After a welcome. */
  async settle(isOwner) {
    this.#isOwner = isOwner;
    $("owner").hidden = !isOwner;
    if (!isOwner) return;
    const answer = await this.#ask("GET", "").catch(() => null);
    if (answer) this.#showLock(Boolean(answer.locked));
  }

  /** Puts the owner's buttons into a row of the roster, or takes them out. */
  fill(row, { participant, name = "Someone", muted_by_owner: isHeld }, isSelf) {
    const wanted = this.#isOwner && !isSelf;
    let acts = row.querySelector(".acts");
    if (!wanted) {
      acts?.remove();
      return;
    }
    if (!acts) {
      acts = document.createElement("span");
      acts.className = "acts";
      const mute = button(() => this.#act("POST", participant, "/mute", { muted: mute.dataset.held !== "true" }));
      const remove = button(() => this.#act("DELETE", participant, ""));
      acts.append(mute, remove);
      row.append(acts);
    }
    const [mute, remove] = acts.children;
    mute.dataset.held = String(Boolean(isHeld));
    label(mute, isHeld ? "Let speak" : "Mute", name);
    label(remove, "Remove", name);
  }

  #act(method, participant, what, body) {
    return this.#try(() => this.#ask(method, `/participants/${participant}${what}`, body));
  }

  #lock(isLocked) {
    return this.#try(async () => {
      const { locked } = await this.#ask("POST", "/lock", { locked: isLocked });
      this.#showLock(locked);
    });
  }

  /** Once more for sure: everyone is sent away. */
  #end() {
    clearTimeout(this.#unsure);
    if ($("end-room").dataset.unsure === undefined) {
      $("end-room").dataset.unsure = "";
      $("end-room").textContent = "Really end?";
      this.#unsure = setTimeout(() => this.#calm(), SURE_MS);
      return undefined;
    }
    this.#calm();
    return this.#try(() => this.#ask("DELETE", ""));
  }

  #calm() {
    delete $("end-room").dataset.unsure;
    $("end-room").textContent = "End for everyone";
  }

  #showLock(isLocked) {
    $("lock-room").setAttribute("aria-pressed", String(isLocked));
    $("lock-room").textContent = isLocked ? "Unlock room" : "Lock room";
  }

  async #try(act) {
    try {
      await act();
    } catch (error) {
      showNotice("owner", sentence(error.message));
    }
  }

  async #ask(method, path, body) {
    const options = { method };
    if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
    const answer = await request(this.#room, this.#api + path, options);
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error?.message ?? `the server answered ${answer.status}`);
    return told;
  }
}

function button(act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "quiet small";
  made.addEventListener("click", act);
  return made;
}

function label(made, act, name) {
  made.textContent = act;
  made.setAttribute("aria-label", `${act}: ${name}`);
}
