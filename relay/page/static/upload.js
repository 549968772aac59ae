// One upload, which goes on through every break of a connection.
//
// It is a resumable upload (“Resumable uploads” in the HTTP API). It is created empty, so its address is known before
// anything can break. Then one request brings all of the file: on a fast line, pieces would lose time to round trips.
// After a break, the relay is asked how many bytes the receiver has, and another request brings the rest. Only if a
// gateway before the relay refuses large requests, the rest is sent in pieces.

import { addressOf, askOffset, cancelUpload, createUpload, makeLink, sendPart } from "./relay.js";
import { text } from "./texts.js";

/** @typedef {import("./relay.js").Reply} Reply */
/** @typedef {"queued"|"preparing"|"waiting"|"sending"|"paused"|"reconnecting"|"delivered"|"failed"|"cancelled"} State */

/** Bytes of a piece: gateways with limits accept at least this much, unless they are set to less. */
export const PIECE = 8 * 1024 * 1024;
/** Maximum seconds between two attempts to reconnect. */
const LONGEST_PAUSE = 15;
/** After so many requests that broke within seconds and brought nothing, a gateway probably refuses their size. */
const REFUSALS = 3;
/** Seconds that a request may go on although the relay says that the upload is interrupted. */
const DOUBT = 5;
/** Files of a folder that are tried at the same time. */
const READ_AT_ONCE = 200;

/** An end from which no further attempt leads on. */
class Failure extends Error {}

/** How a transfer that did not end well is explained, by the status of its result. @type {Record<number, string>} */
const RESULTS = {
  401: text("expired"),
  404: text("lost"),
  408: text("stalled"),
  410: text("cancelledElsewhere"),
  413: text("tooLarge"),
  424: text("receiverGone"),
  502: text("receiverGone"),
  504: text("receiverGone"),
};

/** Wait some seconds, or until the browser is online again. @param {number} seconds @param {AbortSignal} signal */
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      resolve(undefined);
    };
    const timer = setTimeout(done, seconds * 1000);
    addEventListener("online", done, { once: true, signal });
    signal.addEventListener("abort", done, { once: true });
  });
}

/** Dispatches `change` whenever something of it has changed. */
export class Upload extends EventTarget {
  /** @type {State} */
  state = "queued";
  /** Bytes that the receiver has, as the relay says. */
  delivered = 0;
  /** Why it failed. */
  reason = "";
  link = "";
  #token = "";
  #address = "";
  #inPieces = false;
  #began = 0;
  #stop = new AbortController();
  #attempt = new AbortController();

  /**
   * @param {string} name a name that the relay accepts
   * @param {Blob} blob
   * @param {{isText?: boolean, files?: File[]}} [kind] whether the receiver's page shows it as a text; and the files of
   *   a folder, of which `blob` is the tar
   */
  constructor(name, blob, { isText = false, files } = {}) {
    super();
    this.name = name;
    this.blob = blob;
    this.isText = isText;
    this.files = files;
  }

  get isOver() {
    return ["delivered", "failed", "cancelled"].includes(this.state);
  }

  /** Bring the file to its receiver. Return when it is over. @param {string} token */
  async run(token) {
    this.#stop = new AbortController();
    // A link belongs to its token.
    if (token !== this.#token) this.link = "";
    this.#token = token;
    this.delivered = 0;
    this.#become("preparing");
    try {
      // The relay ends an upload whose receiver does not come within minutes. The link goes on, and so does this.
      do await this.#create();
      while (!(await this.#bring()));
      this.delivered = this.blob.size;
      this.#become("delivered");
    } catch (error) {
      if (this.#stop.signal.aborted) return this.#become("cancelled");
      if (!(error instanceof Failure)) console.error(error);
      this.reason = error instanceof Failure ? error.message : String(error);
      this.#become("failed");
    }
  }

  /**
   * Return the QR code of its link, which the relay makes. Throw an Error with a line that says why there is none.
   * @param {string} page what the code says, with `{link}` for the link
   * @returns {Promise<string[]>} rows of 1 and 0
   */
  async qr(page) {
    const reply = await makeLink(this.#token, this.name, page);
    if (reply.status !== 200) throw new Error(reply.line || text("noAnswer"));
    return reply.body.qr;
  }

  /** End it for both sides. */
  async cancel() {
    this.#stop.abort();
    this.#attempt.abort();
    this.#become("cancelled");
    if (this.#address) await cancelUpload(this.#address);
  }

  /** Take notice of what the relay says of it. @param {{state: string, delivered: number}} said */
  hear({ state, delivered }) {
    if (this.isOver || this.state === "preparing") return;
    this.delivered = Math.max(this.delivered, delivered);
    if (state === "interrupted") {
      // After a sleep, or behind some gateways, the browser does not notice that its connection is dead.
      if (performance.now() - this.#began > DOUBT * 1000) this.doubt();
    } else if (this.state !== "reconnecting") {
      this.#become(state !== "waiting" ? "sending" : this.delivered ? "paused" : "waiting");
    }
    this.#change();
  }

  /** Give up the request that brings bytes, and ask the relay how things stand. */
  doubt() {
    this.#attempt.abort();
  }

  /** @param {State} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.#change();
  }

  #change() {
    this.dispatchEvent(new Event("change"));
  }

  async #create() {
    for (let tries = 0; ; tries += 1) {
      this.#stop.signal.throwIfAborted();
      const reply = await createUpload(this.#token, this.name, this.blob);
      if (reply.status === 201) {
        // Behind a path prefix, the path before the last segment is another one for the browser.
        const id = (reply.headers.get("location") ?? "").split("/").at(-1);
        this.#address = `${addressOf(this.#token, this.name)}/${id}`;
        break;
      }
      // A request whose reply was lost may have created it: then nobody knows the address, and it ends by itself.
      const isTaken = reply.status === 409 && tries > 0;
      if (reply.fromRelay && reply.status < 500 && !isTaken) this.#refuse(reply);
      if (tries > 0 || reply.status === 0) this.#become("reconnecting");
      await pause(Math.min(2 ** tries, LONGEST_PAUSE), this.#stop.signal);
    }
    while (!this.link) {
      const reply = await makeLink(this.#token, this.name);
      if (reply.status === 200) this.link = reply.body.link;
      else if (reply.fromRelay && reply.status < 500) this.#refuse(reply);
      else await pause(1, this.#stop.signal);
      this.#stop.signal.throwIfAborted();
    }
    this.#become("waiting");
  }

  /** Bring all bytes. Return false if nobody came for them, so that it has to be created again. */
  async #bring() {
    let offset = 0;
    let broken = 0;
    for (;;) {
      const part = this.#inPieces ? this.blob.slice(offset, offset + PIECE) : this.blob.slice(offset);
      const isLast = offset + part.size === this.blob.size;
      const before = this.delivered;
      this.#attempt = new AbortController();
      this.#began = performance.now();
      const reply = await sendPart(this.#address, part, offset, isLast, this.#attempt.signal);
      this.#stop.signal.throwIfAborted();
      if (reply.status === 200) return true;
      if (reply.status === 204) {
        offset += part.size;
        broken = 0;
        continue;
      }
      if (reply.code === "no_downloader") {
        if (this.delivered === 0) return false;
        throw new Failure(text("receiverGone"));
      }
      if (reply.status === 413 && !reply.fromRelay && !this.#inPieces) {
        this.#inPieces = true;
        continue;
      }
      const expected = reply.headers.get("upload-offset");
      const isOver = reply.status >= 400 && reply.status !== 409 && reply.status !== 408 && reply.status !== 424;
      if (isOver && reply.fromRelay && reply.status < 500) this.#refuse(reply);
      if (isOver && reply.status === 413) throw new Failure(text("tooLarge"));

      const wasQuick = performance.now() - this.#began < 10_000;
      broken = this.delivered > before ? 0 : broken + 1;
      if (broken >= REFUSALS && wasQuick && reply.status === 0 && navigator.onLine) this.#inPieces = true;
      if (reply.status === 409 && expected !== null && broken < REFUSALS) {
        offset = Number(expected);
        continue;
      }
      this.#become("reconnecting");
      // This takes a second for a thousand files, so not after every break.
      if (broken) await this.#checkReadable();
      const found = await this.#reconnect(broken);
      if (found === "complete") return true;
      if (found === "again") return false;
      offset = found;
      this.delivered = offset;
      this.#become(offset ? "sending" : "waiting");
    }
  }

  /**
   * Ask until the relay answers.
   * @param {number} broken how many requests in a row broke and brought nothing
   * @returns {Promise<number | "complete" | "again">} the byte to go on from
   */
  async #reconnect(broken) {
    for (let tries = broken - 1; ; tries += 1) {
      if (tries > 0) await pause(Math.min(2 ** (tries - 1), LONGEST_PAUSE), this.#stop.signal);
      this.#stop.signal.throwIfAborted();
      const reply = await askOffset(this.#address, this.#stop.signal);
      if (reply.status === 204) {
        const isComplete = reply.headers.get("upload-complete") === "?1";
        return isComplete ? "complete" : Number(reply.headers.get("upload-offset"));
      }
      if (!reply.fromRelay || reply.status === 503 || reply.status === 500 || reply.status === 409) continue;
      // HEAD has no words. If the receiver has nothing yet, waiting once more is right whatever the reason was.
      const isWaiting = this.delivered === 0 && [404, 408, 424, 502, 504].includes(reply.status);
      if (isWaiting) return "again";
      throw new Failure(RESULTS[reply.status] ?? text("refused", { line: String(reply.status) }));
    }
  }

  /** A file that was changed or deleted breaks every request, which looks like a network that does. */
  async #checkReadable() {
    const files = this.files ?? [this.blob];
    for (let at = 0; at < files.length; at += READ_AT_ONCE) {
      try {
        await Promise.all(files.slice(at, at + READ_AT_ONCE).map((file) => this.#checkOne(file)));
      } catch (error) {
        await cancelUpload(this.#address);
        throw error;
      }
    }
  }

  /** Raise Failure if a file cannot be read. @param {File | Blob} file */
  async #checkOne(file) {
    try {
      await file.slice(0, 1).arrayBuffer();
    } catch {
      throw new Failure(text("unreadable", { name: "name" in file ? file.name : this.name }));
    }
  }

  /** @param {Reply} reply @returns {never} */
  #refuse(reply) {
    throw new Failure(RESULTS[reply.status] ?? text("refused", { line: reply.line }));
  }
}
