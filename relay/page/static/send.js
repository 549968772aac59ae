// The page that sends: what a person does with it, and a row for each file.

import { copy } from "./copy.js";
import { Meter } from "./meter.js";
import { quoted } from "./names.js";
import { Queue } from "./queue.js";
import { addressOf } from "./relay.js";
import { duration, percent, size, text } from "./texts.js";

/** @typedef {import("./upload.js").Upload} Upload */

/** Maximum bytes of a text that the receiver's page shows. */
const TEXT_MOST = 1_000_000;
/** @template {HTMLElement} T @param {string} id @returns {T} */
const element = (id) => /** @type {T} */ (document.getElementById(id));

const problem = element("problem");
const announced = element("announced");
const queue = new Queue(askSecret);
/** @type {Map<Upload, Row>} */
const rows = new Map();

/** Ask for the relay's secret. @param {boolean} wasWrong @returns {Promise<string>} */
function askSecret(wasWrong) {
  const form = /** @type {HTMLFormElement} */ (element("secret-form"));
  const field = /** @type {HTMLInputElement} */ (element("secret"));
  element("secret-wrong").textContent = wasWrong ? text("secretWrong") : "";
  form.hidden = false;
  field.value = "";
  field.focus();
  return new Promise((done) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      done(field.value);
    };
  });
}

/** The row of one file. */
class Row {
  #meter = new Meter();
  #shown = "";

  /** @param {Upload} upload */
  constructor(upload) {
    this.upload = upload;
    const template = /** @type {HTMLTemplateElement} */ (element("row"));
    this.root = /** @type {HTMLElement} */ (
      /** @type {Element} */ (template.content.firstElementChild).cloneNode(true)
    );
    const name = upload.isText ? text("text") : upload.name;
    this.root.setAttribute("aria-label", text("rowLabel", { name, size: size(upload.blob.size) }));
    this.#part("name").textContent = name;
    this.#part("size").textContent = size(upload.blob.size);
    this.#part("link").setAttribute("aria-label", text("linkLabel", { name }));
    this.#bar.setAttribute("aria-label", text("barLabel", { name }));
    this.#button("copy", text("copyOf", { name }), () => copy(this.link, this.#part("copy")));
    this.#button("copy-command", "", () => copy(this.command, this.#part("copy-command")));
    this.#button("native", "", () => navigator.share({ url: this.link }).catch(() => {}));
    this.#button("cancel", text("cancelOf", { name }), () => upload.cancel());
    this.#button("again", text("againOf", { name }), () => queue.again(upload));
    this.#button("remove", text("removeOf", { name }), () => this.#remove());
    this.name = name;
    upload.addEventListener("change", () => this.show());
    this.show();
  }

  get link() {
    const { link, name, isText } = this.upload;
    return new URL(`receive#${addressOf(link, name)}${isText ? "&text" : ""}`, location.href).href;
  }

  get command() {
    const { link, name } = this.upload;
    const address = new URL(`${addressOf(link, name)}?wait=300`, location.href).href;
    return `curl -f -o ${quoted(name.startsWith("-") ? `./${name}` : name)} ${quoted(address)}`;
  }

  /** @param {string} name @returns {any} */
  #part(name) {
    return this.root.querySelector(`.${name}`);
  }

  /** @returns {HTMLProgressElement} */
  get #bar() {
    return /** @type {HTMLProgressElement} */ (this.root.querySelector("progress"));
  }

  /** @param {string} name @param {string} label @param {() => void} action */
  #button(name, label, action) {
    const button = this.#part(name);
    if (label) button.setAttribute("aria-label", label);
    button.addEventListener("click", action);
  }

  #remove() {
    const next = this.root.nextElementSibling ?? this.root.previousElementSibling;
    queue.remove(this.upload);
    rows.delete(this.upload);
    this.root.remove();
    /** @type {HTMLElement} */ (next?.querySelector("button:not([hidden])") ?? element("choose")).focus();
  }

  show() {
    const { upload } = this;
    const { state, delivered, blob } = upload;
    const moves = ["sending", "paused", "reconnecting"].includes(state);
    this.root.dataset.state = state;
    const values = { delivered: size(delivered), size: size(blob.size), reason: upload.reason };
    const key = state === "reconnecting" && !navigator.onLine ? "offline" : state;
    this.#part("words").textContent = text(key, values);
    this.#bar.hidden = !moves && state !== "delivered";
    this.#bar.value = blob.size ? delivered / blob.size : Number(state === "delivered");
    const rate = this.#meter.read(delivered, performance.now() / 1000);
    const shown = state === "sending" && rate > 0;
    const left = shown ? duration((blob.size - delivered) / rate) : "";
    this.#part("speed").textContent = shown ? text("speed", { rate: size(rate), left }) : "";
    this.#part("share").hidden = !upload.link || upload.isOver;
    this.#part("native").hidden = !("share" in navigator);
    if (upload.link) {
      this.#part("link").value = this.link;
      this.#part("command").textContent = this.command;
    }
    this.#part("cancel").hidden = upload.isOver;
    this.#part("again").hidden = state !== "failed" && state !== "cancelled";
    this.#part("remove").hidden = !upload.isOver;
    if (key !== this.#shown && state !== "preparing") {
      this.#shown = key;
      announced.textContent = text("announced", { name: this.name, state: this.#part("words").textContent });
    }
  }
}

/** @param {string} name @param {Blob} blob @param {boolean} isText */
function add(name, blob, isText = false) {
  problem.textContent = "";
  const row = new Row(queue.add(name, blob, isText));
  rows.set(row.upload, row);
  element("rows").prepend(row.root);
}

/** Add what was dropped or pasted. @param {DataTransfer} data */
function addAll(data) {
  const folders = [...data.items].filter((item) => item.webkitGetAsEntry?.()?.isDirectory);
  const names = new Set(folders.map((item) => item.webkitGetAsEntry()?.name));
  for (const file of data.files) {
    if (names.has(file.name)) problem.textContent = text("folder", { name: file.name });
    else add(file.name, file);
  }
}

/** @param {string} [words] */
function write(words) {
  const form = element("text-form");
  const area = /** @type {HTMLTextAreaElement} */ (element("text"));
  form.hidden = words === undefined && !form.hidden;
  element("write").setAttribute("aria-expanded", String(!form.hidden));
  if (words) area.value = words;
  if (!form.hidden) area.focus();
}

const picker = /** @type {HTMLInputElement} */ (element("files"));
element("choose").addEventListener("click", () => picker.click());
picker.addEventListener("change", () => {
  for (const file of picker.files ?? []) add(file.name, file);
  picker.value = "";
});
element("write").addEventListener("click", () => write());
element("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const area = /** @type {HTMLTextAreaElement} */ (element("text"));
  const blob = new Blob([area.value], { type: "text/plain;charset=utf-8" });
  add("text.txt", blob, blob.size <= TEXT_MOST);
  area.value = "";
  write();
  element("write").focus();
});

for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  if (event.dataTransfer) addAll(event.dataTransfer);
});
addEventListener("paste", (event) => {
  const data = event.clipboardData;
  const isInField = event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement;
  if (!data || (isInField && !data.files.length)) return;
  event.preventDefault();
  if (data.files.length) addAll(data);
  else write(data.getData("text/plain"));
});

/** @type {WakeLockSentinel | undefined} */
let lock;
/** Keep the machine awake while bytes flow. The browser takes the lock back when the page is hidden. */
async function keepAwake() {
  const flows = queue.uploads.some((upload) => ["sending", "paused", "reconnecting"].includes(upload.state));
  if (!flows) await lock?.release();
  else if (!document.hidden && (!lock || lock.released)) {
    lock = await navigator.wakeLock?.request("screen").catch(() => undefined);
  }
}

function showTitle() {
  const { uploads } = queue;
  const moving = uploads.filter((upload) => ["sending", "paused", "reconnecting"].includes(upload.state));
  const total = moving.reduce((sum, upload) => sum + upload.blob.size, 0);
  const done = moving.reduce((sum, upload) => sum + upload.delivered, 0);
  if (total) document.title = text("titleSending", { percent: percent(done / total) });
  else if (queue.isBusy) document.title = text("titleWaiting");
  else document.title = text(uploads.some((upload) => upload.state === "delivered") ? "titleDelivered" : "title");
}

queue.addEventListener("change", () => {
  showTitle();
  void keepAwake();
});
document.addEventListener("visibilitychange", () => void keepAwake());
addEventListener("beforeunload", (event) => {
  if (queue.isBusy) event.preventDefault();
});
for (const event of ["online", "offline"]) {
  addEventListener(event, () => {
    for (const row of rows.values()) row.show();
  });
}
