// The page that sends: what a person does with it.

import { keepAwake } from "./awake.js";
import { element } from "./elements.js";
import { chosen, dropped, Unreadable } from "./folders.js";
import { Queue } from "./queue.js";
import { Row } from "./row.js";
import { TAR_ENDING, tarOf } from "./tar.js";
import { percent, text } from "./texts.js";

/** @typedef {import("./upload.js").Upload} Upload */
/** @typedef {import("./tar.js").Entry} Entry */

/** Maximum bytes of a text that the receiver's page shows. */
const TEXT_MOST = 1_000_000;
/** States in which bytes flow, or are about to flow again. */
const MOVING = ["sending", "paused", "reconnecting"];

const problem = element("problem");
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

/** @param {string} name @param {Blob} blob @param {{isText?: boolean, files?: File[]}} [kind] */
function add(name, blob, kind) {
  problem.textContent = "";
  const upload = queue.add(name, blob, kind);
  const row = new Row(upload, {
    again: () => queue.again(upload),
    remove: () => remove(row),
  });
  rows.set(upload, row);
  element("rows").prepend(row.root);
}

/** @param {Row} row */
function remove(row) {
  const next = row.root.nextElementSibling ?? row.root.previousElementSibling;
  queue.remove(row.upload);
  rows.delete(row.upload);
  row.root.remove();
  /** @type {HTMLElement} */ (next?.querySelector("button:not([hidden])") ?? element("choose")).focus();
}

/** Send a folder as one tar, as soon as all of it is found. @param {string} name @param {Promise<Entry[]>} finding */
async function addFolder(name, finding) {
  const reading = element("reading");
  reading.textContent = text("reading", { name });
  try {
    const entries = await finding;
    add(entries[0].path + TAR_ENDING, tarOf(entries), { files: entries.flatMap(({ file }) => file ?? []) });
  } catch (error) {
    if (!(error instanceof Unreadable)) console.error(error);
    problem.textContent = text("folderUnreadable", { name, path: error instanceof Unreadable ? error.message : name });
  } finally {
    reading.textContent = "";
  }
}

/** Add what was dropped or pasted. @param {DataTransfer} data */
function addAll(data) {
  // All items are gone as soon as this function waits for something.
  for (const item of data.items) {
    if (item.kind !== "file") continue;
    const entry = item.webkitGetAsEntry?.();
    const file = item.getAsFile();
    if (entry?.isDirectory) {
      void addFolder(entry.name, dropped(/** @type {FileSystemDirectoryEntry} */ (entry)));
    } else if (file) {
      add(file.name, file);
    }
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

/** Let a button open a file chooser, and take what is chosen. @param {string} button @param {string} input @param {(files: File[]) => void} take */
function letChoose(button, input, take) {
  const field = /** @type {HTMLInputElement} */ (element(input));
  element(button).addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    const files = [...(field.files ?? [])];
    field.value = "";
    take(files);
  });
}

letChoose("choose", "files", (files) => {
  for (const file of files) add(file.name, file);
});
letChoose("choose-folder", "folder", (files) => {
  // Browsers tell neither the name of an empty folder nor that there is one.
  if (files.length) void addFolder(files[0].webkitRelativePath.split("/")[0], Promise.resolve(chosen(files)));
  else problem.textContent = text("folderEmpty");
});
element("choose-folder").hidden = !("webkitdirectory" in HTMLInputElement.prototype);
element("insecure").hidden = isSecureContext;

element("write").addEventListener("click", () => write());
element("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const area = /** @type {HTMLTextAreaElement} */ (element("text"));
  const blob = new Blob([area.value], { type: "text/plain;charset=utf-8" });
  add("text.txt", blob, { isText: blob.size <= TEXT_MOST });
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

function showTitle() {
  const { uploads } = queue;
  const moving = uploads.filter((upload) => MOVING.includes(upload.state));
  const total = moving.reduce((sum, upload) => sum + upload.blob.size, 0);
  const done = moving.reduce((sum, upload) => sum + upload.delivered, 0);
  if (total) document.title = text("titleSending", { percent: percent(done / total) });
  else if (queue.isBusy) document.title = text("titleWaiting");
  else document.title = text(uploads.some((upload) => upload.state === "delivered") ? "titleDelivered" : "title");
}

queue.addEventListener("change", () => {
  showTitle();
  void keepAwake(queue.uploads.some((upload) => MOVING.includes(upload.state)));
});
addEventListener("beforeunload", (event) => {
  if (queue.isBusy) event.preventDefault();
});
for (const event of ["online", "offline"]) {
  addEventListener(event, () => {
    for (const row of rows.values()) row.show();
  });
}
