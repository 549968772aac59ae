// The row of one file that is sent: its link, how far it is, and what a person can do with it.

import { copy } from "./copy.js";
import { element } from "./elements.js";
import { Meter } from "./meter.js";
import { quoted } from "./names.js";
import { drawn } from "./qr.js";
import { addressOf } from "./relay.js";
import { duration, percent, size, text } from "./texts.js";

/** @typedef {import("./upload.js").Upload} Upload */
/** What the buttons of a row do. @typedef {{again: () => void, remove: () => void}} Actions */

export class Row {
  #meter = new Meter();
  #shown = "";
  #drawnFor = "";

  /** @param {Upload} upload @param {Actions} actions */
  constructor(upload, actions) {
    this.upload = upload;
    const template = /** @type {HTMLTemplateElement} */ (element("row"));
    this.root = /** @type {HTMLElement} */ (
      /** @type {Element} */ (template.content.firstElementChild).cloneNode(true)
    );
    const name = upload.isText ? text("text") : upload.name;
    this.name = name;
    const extent = extentOf(upload);
    this.root.setAttribute("aria-label", text("rowLabel", { name, size: extent }));
    this.#part("name").textContent = name;
    this.#part("size").textContent = extent;
    this.#part("link").setAttribute("aria-label", text("linkLabel", { name }));
    this.#bar.setAttribute("aria-label", text("barLabel", { name }));
    this.#button("copy", text("copyOf", { name }), () => copy(this.link, this.#part("copy")));
    this.#button("copy-command", "", () => copy(this.command, this.#part("copy-command")));
    this.#button("native", text("shareOf", { name }), () => navigator.share({ url: this.link }).catch(() => {}));
    this.#button("cancel", text("cancelOf", { name }), () => upload.cancel());
    this.#button("again", text("againOf", { name }), actions.again);
    this.#button("remove", text("removeOf", { name }), actions.remove);
    this.#part("qr").addEventListener("toggle", () => void this.#drawCode());
    upload.addEventListener("change", () => this.show());
    this.show();
  }

  get link() {
    return this.#linkOf(this.upload.link);
  }

  get command() {
    const { link, name } = this.upload;
    const address = new URL(`${addressOf(link, name)}?wait=300`, location.href).href;
    return `curl -f -o ${quoted(name.startsWith("-") ? `./${name}` : name)} ${quoted(address)}`;
  }

  /** @param {string} link */
  #linkOf(link) {
    const { name, isText } = this.upload;
    return new URL(`receive#${addressOf(link, name)}${isText ? "&text" : ""}`, location.href).href;
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

  /** Show the QR code of the link, once a person has asked for it. */
  async #drawCode() {
    const { link } = this.upload;
    if (!this.#part("qr").open || this.#drawnFor === link) return;
    const code = this.#part("code");
    try {
      const rows = await this.upload.qr(this.#linkOf("{link}"));
      code.replaceChildren(drawn(rows, text("qrLabel", { name: this.name })));
      this.#drawnFor = link;
    } catch (error) {
      code.replaceChildren(text("noQr", { line: error instanceof Error ? error.message : "" }));
    }
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
    this.#bar.textContent = percent(this.#bar.value);
    const rate = this.#meter.read(delivered, performance.now() / 1000);
    const isShown = state === "sending" && rate > 0;
    const left = isShown ? duration((blob.size - delivered) / rate) : "";
    this.#part("speed").textContent = isShown ? text("speed", { rate: size(rate), left }) : "";
    this.#showLink();
    this.#part("cancel").hidden = upload.isOver;
    this.#part("again").hidden = state !== "failed" && state !== "cancelled";
    this.#part("remove").hidden = !upload.isOver;
    if (key !== this.#shown && state !== "preparing") {
      this.#shown = key;
      element("announced").textContent = text("announced", { name: this.name, state: this.#part("words").textContent });
    }
  }

  #showLink() {
    const { link, isOver } = this.upload;
    this.#part("share").hidden = !link || isOver;
    this.#part("native").hidden = !("share" in navigator);
    if (!link) return;
    this.#part("link").value = this.link;
    this.#part("command").textContent = this.command;
    void this.#drawCode();
  }
}

/** Return how large a file is, and how many files a folder has. @param {Upload} upload */
function extentOf({ blob, files }) {
  if (!files) return size(blob.size);
  return text(files.length === 1 ? "folderSizeOfOne" : "folderSize", {
    size: size(blob.size),
    count: String(files.length),
  });
}
