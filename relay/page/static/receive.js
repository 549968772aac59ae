// The page that receives. It only asks about the file, until the person presses the button.

import { copy } from "./copy.js";
import { addressOf, look } from "./relay.js";
import { size, text } from "./texts.js";

/** Seconds that one question waits for the sender: gateways end longer silences. */
const WAIT = 25;
/** Seconds between two questions while the sender is there, and after the download has begun. */
const ASK_EVERY = 3;
/** Maximum bytes of a text that is shown. */
const TEXT_MOST = 1_000_000;

/** @template {HTMLElement} T @param {string} id @returns {T} */
const element = (id) => /** @type {T} */ (document.getElementById(id));
/** @param {number} seconds */
const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

const download = element("download");
const show = element("show");
const copyButton = /** @type {HTMLButtonElement} */ (element("copy"));
/** Counts the links that this page was opened with, so that a former one is left alone. */
let visit = 0;

/** @typedef {"checking"|"gone"|"absent"|"ready"|"started"|"over"|"text"} State */

/**
 * @param {State} state
 * @param {keyof typeof import("./texts.js").TEXTS} words
 * @param {keyof typeof import("./texts.js").TEXTS} [hint]
 */
function say(state, words, hint) {
  element("file").dataset.state = state;
  for (const [id, key] of /** @type {const} */ ([
    ["state", words],
    ["hint", hint],
  ])) {
    const said = key ? text(key) : "";
    if (element(id).textContent !== said) element(id).textContent = said;
  }
}

/** Return what the fragment says, or null. */
function parse() {
  const found = /^#([A-Za-z0-9]{8}[rs][0-9a-f]{32})\/([^/&]+)(&text)?$/.exec(location.hash);
  if (!found) return null;
  const [, link = "", name = "", mark] = found;
  try {
    return { link, name: decodeURIComponent(name), isText: Boolean(mark) };
  } catch {
    return null;
  }
}

/** @param {Headers} headers @param {boolean} isText */
function describe(headers, isText) {
  const length = headers.get("content-length");
  element("size").textContent = length === null ? text("sizeUnknown") : size(Number(length));
  return isText && length !== null && Number(length) <= TEXT_MOST;
}

/** Say how things stand, until there is nothing more to say. */
async function watch() {
  visit += 1;
  const mine = visit;
  const file = parse();
  for (const id of ["show", "download", "received"]) element(id).hidden = true;
  element("size").textContent = "";
  element("name").textContent = file ? (file.isText ? text("text") : file.name) : text("aFile");
  if (!file) return say("gone", "badLink", "badLinkHint");
  const { link, name, isText } = file;
  document.title = text("receiveTitle", { name });
  say("checking", "checking");
  let state = /** @type {State} */ ("checking");
  const isLeft = () => mine !== visit || state === "text";

  const start = () => {
    const anchor = document.createElement("a");
    anchor.href = `${addressOf(link, name)}?wait=30`;
    anchor.download = "";
    anchor.click();
    state = "started";
    download.textContent = text("downloadAgain");
    download.classList.remove("primary");
    show.hidden = true;
    say(state, "started", "startedHint");
  };
  const read = async () => {
    state = "text";
    show.hidden = download.hidden = true;
    say(state, "checking");
    try {
      const answer = await fetch(`${addressOf(link, name)}?wait=30`);
      if (!answer.ok) throw new Error(answer.statusText);
      element("text").textContent = await answer.text();
      element("received").hidden = false;
      say(state, "textHere", "textHereHint");
      copyButton.focus();
    } catch {
      say("gone", "textFailed", "textFailedHint");
    }
  };
  download.textContent = text("download");
  download.classList.add("primary");
  download.onclick = start;
  show.textContent = text("showText");
  show.onclick = read;

  for (let wait = 0, wasThere = false; ; ) {
    const reply = await look(link, name, wait);
    if (isLeft()) return;
    wait = 0;
    if (reply.status === 200) {
      wasThere = true;
      const isShown = describe(reply.headers, isText) && state !== "started";
      if (state !== "started") {
        state = "ready";
        say(state, "ready", "readyHint");
      }
      show.hidden = !isShown;
      download.hidden = false;
      download.classList.toggle("primary", !isShown && state !== "started");
      await pause(ASK_EVERY);
    } else if (reply.status === 404 && state === "started") {
      download.hidden = true;
      return say("over", "over", "overHint");
    } else if (reply.status === 404) {
      state = "absent";
      show.hidden = download.hidden = true;
      if (wasThere) say(state, "used", "usedHint");
      else say(state, "absent", "absentHint");
      wait = WAIT;
    } else if (reply.status === 401 || reply.status === 403 || reply.status === 400) {
      show.hidden = download.hidden = true;
      if (state === "started") return say("over", "over", "overHint");
      const isSend = reply.status === 403;
      return say("gone", isSend ? "sendLink" : "goneLink", isSend ? "sendLinkHint" : "goneLinkHint");
    } else {
      if (state !== "started") {
        const isLimit = reply.status === 429;
        show.hidden = download.hidden = true;
        say("checking", isLimit ? "tooMany" : "noAnswer", isLimit ? "tooManyHint" : "noAnswerHint");
      }
      await pause(reply.status === 429 ? 60 : ASK_EVERY);
    }
    if (isLeft()) return;
  }
}

copyButton.addEventListener("click", () => copy(element("text").textContent ?? "", copyButton));
addEventListener("hashchange", () => void watch());
void watch();
