// Shows how far a file is that the browser receives, as the relay sees it: browsers do not tell pages of their downloads.

import { element } from "./elements.js";
import { Meter } from "./meter.js";
import { duration, percent, size, text } from "./texts.js";

export class Arrival {
  #meter = new Meter();
  #bar = /** @type {HTMLProgressElement} */ (element("bar"));

  /**
   * @param {number} delivered bytes that have arrived
   * @param {number | null} length bytes of the file, null if they are not known
   * @param {boolean} moves whether they arrive just now
   */
  show(delivered, length, moves) {
    const share = length ? delivered / length : 0;
    const rate = this.#meter.read(delivered, performance.now() / 1000);
    this.#bar.hidden = length === null;
    this.#bar.value = share;
    this.#bar.textContent = percent(share);
    const values = { delivered: size(delivered), size: size(length ?? 0), rate: size(rate) };
    const left = length !== null && rate > 0 ? duration((length - delivered) / rate) : "";
    element("far").textContent = text(length === null ? "arrived" : "arrivedOf", values);
    element("speed").textContent = !moves || !rate ? "" : text(left ? "speed" : "rate", { ...values, left });
    if (length) document.title = text("titleReceiving", { percent: percent(share) });
  }

  hide() {
    this.#bar.hidden = true;
    for (const id of ["far", "speed"]) element(id).textContent = "";
  }
}
