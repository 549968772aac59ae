// The page that receives. It only asks about the file, until the person presses the button.

import { Arrival } from "./arrival.js";
import { keepAwake } from "./awake.js";
import { copy } from "./copy.js";
import { element } from "./elements.js";
import { addressOf, look } from "./relay.js";
import { TAR_TYPE } from "./tar.js";
import { size, text } from "./texts.js";

/** Seconds that one question waits for the sender: gateways end longer silences. */
const WAIT = 25;
/** Seconds between two questions while the sender is there, and after the download has begun. */
const [ASK_EVERY, ASK_OFTEN] = [3, 1];
/** So many answers in a row have to say that nobody receives it: a connection that is made again takes a moment. */
const IDLE = 3;
/** Maximum bytes of a text that is shown. */
const TEXT_MOST = 1_000_000;

/** @typedef {import("./relay.js").Reply} Reply */
/** @typedef {keyof typeof import("./texts.js").TEXTS} Key */
/** @typedef {"checking"|"gone"|"absent"|"ready"|"started"|"receiving"|"paused"|"stopped"|"taken"|"whole"|"over"|"text"} State */
/** What the fragment says. @typedef {{link: string, name: string, isText: boolean}} Given */

const download = element("download");
const show = element("show");
const copyButton = /** @type {HTMLButtonElement} */ (element("copy"));

/** Return what the fragment says, or null. @returns {Given | null} */
function parse() {
  const found = /^#([A-Za-z0-9]{8}[rs][0-9a-f]{32})\/([^/&]+)(&text)?$/.exec(location.hash);
  if (!found) return null;
  try {
    return { link: found[1], name: decodeURIComponent(found[2]), isText: Boolean(found[3]) };
  } catch {
    return null;
  }
}

/** One link that this page was opened with, until another one takes its place or there is nothing more to say. */
class Visit {
  /** @type {State} */
  state = "checking";
  isOver = false;
  /** Whether the person has started the download here, and whether anybody was seen to receive the file. */
  #started = false;
  #begun = false;
  #idle = 0;
  /** The upload that is meant: another one of the same name has another ETag. */
  #etag = "";
  #arrival = new Arrival();
  /** Ends the pause between two questions. */
  #wake = () => {};

  /** @param {Given} given */
  constructor(given) {
    this.given = given;
  }

  async run() {
    download.onclick = () => this.#start();
    show.onclick = () => void this.#read();
    show.textContent = text("showText");
    this.#say("checking", "checking");
    for (let wait = 0; !this.isOver; ) {
      const reply = await look(this.given.link, this.given.name, wait, this.#etag);
      if (this.isOver) return;
      const seconds = this.#hear(reply);
      wait = this.state === "absent" ? WAIT : 0;
      if (seconds && !this.isOver) await this.#pause(seconds);
    }
  }

  /** @param {number} seconds @returns {Promise<void>} */
  #pause(seconds) {
    return new Promise((done) => {
      this.#wake = done;
      setTimeout(done, seconds * 1000);
    });
  }

  /** Take notice of what the relay says. Return the seconds after which to ask again. @param {Reply} reply */
  #hear(reply) {
    const { status, headers } = reply;
    if (status === 200) {
      this.#etag = headers.get("etag") ?? "";
      return this.#hearOf(headers);
    }
    // The upload that is meant was delivered, and there is more to tell of it.
    if (status === 204) return this.#hearEnd("complete", false);
    if (status === 404 || status === 412) return this.#hearEnd(headers.get("relay-outcome"), status === 412);
    if (status === 401 || status === 403 || status === 400) {
      this.isOver = true;
      if (this.#started) this.#end("over", "over", "overHint");
      else if (status === 403) this.#end("gone", "sendLink", "sendLinkHint");
      else this.#end("gone", "goneLink", "goneLinkHint");
      return 0;
    }
    const isLimit = status === 429;
    if (this.#started) this.#say("paused", "noAnswer", "noAnswerHint");
    else if (isLimit) this.#end("checking", "tooMany", "tooManyHint");
    else this.#end("checking", "noAnswer", "noAnswerHint");
    return isLimit ? 60 : ASK_EVERY;
  }

  /** The upload is there. @param {Headers} headers */
  #hearOf(headers) {
    const length = headers.has("content-length") ? Number(headers.get("content-length")) : null;
    const isFolder = headers.get("content-type") === TAR_TYPE;
    const state = headers.get("relay-state") ?? "";
    const delivered = Number(headers.get("relay-delivered") ?? 0);
    const moves = state === "streaming" || state === "finishing";
    element("size").textContent = length === null ? text("sizeUnknown") : size(length);
    this.#begun ||= moves;
    this.#idle = state === "waiting" ? this.#idle + 1 : 0;
    if (state === "interrupted" && (this.#started || this.#begun)) {
      this.#arrival.show(delivered, length, false);
      this.#say("paused", "senderAway", "senderAwayHint");
    } else if (this.#started && !this.#begun) {
      this.#say("started", "started", "startedHint");
    } else if (this.#begun && (moves || this.#idle < IDLE)) {
      this.#arrival.show(delivered, length, moves);
      if (this.#started) this.#say("receiving", "receiving", "startedHint");
      else this.#say("taken", "taken", "takenHint");
    } else if (this.#started) {
      this.#arrival.show(delivered, length, false);
      this.#say("stopped", "stopped", "stoppedHint");
    } else {
      this.#begun = false;
      this.#arrival.hide();
      this.#say("ready", "ready", isFolder ? "folderHint" : "readyHint");
    }
    this.#offer(this.given.isText && length !== null && length <= TEXT_MOST);
    return this.#begun || this.#started ? ASK_OFTEN : ASK_EVERY;
  }

  /** There is no upload, or another one. @param {string | null} outcome how this one ended @param {boolean} isAnother */
  #hearEnd(outcome, isAnother) {
    const wasTaken = this.#started || this.#begun;
    const was = this.#etag;
    this.#etag = "";
    // Nobody came for it in time, and the sender has started again.
    if (isAnother && (!wasTaken || outcome === null || outcome === "no_downloader")) return 0;
    this.isOver = wasTaken && (outcome === "complete" || outcome === null);
    if (wasTaken && outcome === "complete") {
      const { name } = this.given;
      if (this.#started) this.#end("whole", "whole", "wholeHint");
      else this.#end("over", "takenAway", "takenAwayHint");
      if (this.#started) document.title = text("titleReceived", { name });
    } else if (wasTaken && outcome !== null) {
      this.#started = this.#begun = false;
      this.#end("absent", outcome === "cancelled" ? "notWholeCancelled" : "notWhole", "notWholeHint");
    } else if (wasTaken) {
      this.#end("over", "over", "overHint");
    } else if (was) {
      this.#end("absent", "used", "usedHint");
    } else if (this.state === "checking") {
      this.#end("absent", "absent", "absentHint");
    }
    return 0;
  }

  /** Show the buttons that fit. @param {boolean} isText */
  #offer(isText) {
    const mayShow = isText && this.state === "ready";
    show.hidden = !mayShow;
    download.hidden = !["ready", "started", "stopped"].includes(this.state);
    download.textContent = text(this.#started ? "downloadAgain" : "download");
    download.classList.toggle("primary", !mayShow && this.state !== "started");
  }

  /** @param {State} state @param {Key} words @param {Key} [hint] */
  #say(state, words, hint) {
    this.state = state;
    element("file").dataset.state = state;
    for (const [id, key] of /** @type {const} */ ([
      ["state", words],
      ["hint", hint],
    ])) {
      const said = key ? text(key) : "";
      // A screen reader says all that changes.
      if (element(id).textContent !== said) element(id).textContent = said;
    }
    void keepAwake(state === "receiving" || state === "paused");
  }

  /** Say something while there is nothing to press. @param {State} state @param {Key} words @param {Key} [hint] */
  #end(state, words, hint) {
    this.#arrival.hide();
    document.title = text("receiveTitle", { name: this.given.name });
    show.hidden = download.hidden = true;
    this.#say(state, words, hint);
  }

  #start() {
    const anchor = document.createElement("a");
    anchor.href = `${addressOf(this.given.link, this.given.name)}?wait=30`;
    anchor.download = "";
    anchor.click();
    this.#started = true;
    this.#begun = false;
    this.#say("started", "started", "startedHint");
    this.#offer(false);
    this.#wake();
  }

  async #read() {
    this.isOver = true;
    this.#end("text", "checking");
    try {
      const answer = await fetch(`${addressOf(this.given.link, this.given.name)}?wait=30`);
      if (!answer.ok) throw new Error(answer.statusText);
      element("text").textContent = await answer.text();
      element("received").hidden = false;
      this.#say("text", "textHere", "textHereHint");
      copyButton.focus();
    } catch {
      this.#say("gone", "textFailed", "textFailedHint");
    }
  }
}

/** @type {Visit | undefined} */
let visit;

/** Begin with the link that is in the address now. */
function begin() {
  if (visit) visit.isOver = true;
  const given = parse();
  for (const id of ["show", "download", "received", "bar"]) element(id).hidden = true;
  for (const id of ["size", "far", "speed"]) element(id).textContent = "";
  element("name").textContent = given ? (given.isText ? text("text") : given.name) : text("aFile");
  if (given) {
    document.title = text("receiveTitle", { name: given.name });
    visit = new Visit(given);
    void visit.run();
  } else {
    element("file").dataset.state = "gone";
    element("state").textContent = text("badLink");
    element("hint").textContent = text("badLinkHint");
  }
}

element("insecure").hidden = isSecureContext;
copyButton.addEventListener("click", () => copy(element("text").textContent ?? "", copyButton));
addEventListener("hashchange", begin);
begin();
