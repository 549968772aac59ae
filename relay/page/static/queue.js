// All uploads of the page: the token that they share, which of them run, and what the relay says of them.

import { freeName } from "./names.js";
import { listToken, makeToken } from "./relay.js";
import { Upload } from "./upload.js";

/**
 * Maximum uploads that run at a time. Browsers open six connections to a server with HTTP/1.1, and each upload that waits
 * holds one. The others are for questions, and for a page that receives.
 */
const AT_A_TIME = 3;
/** Seconds between two questions to the relay. */
const ASK_EVERY = 1;
/** After so many questions without an answer, the connections that carry bytes are doubted too. */
const SILENCES = 3;
const SECRET = "relay-secret";

/** Dispatches `change` whenever an upload has changed. */
export class Queue extends EventTarget {
  /** @type {Upload[]} */
  uploads = [];
  /** @type {Promise<string> | undefined} */
  #token;
  #names = new Set();
  #isAsking = false;

  /** @param {(wasWrong: boolean) => Promise<string>} askSecret asks the person for the relay's secret */
  constructor(askSecret) {
    super();
    this.askSecret = askSecret;
  }

  /** Whether a file is on its way, or may still be taken. */
  get isBusy() {
    return this.uploads.some((upload) => !upload.isOver);
  }

  /**
   * Add a file, and send it as soon as it is its turn.
   * @param {string} given its name @param {Blob} blob @param {ConstructorParameters<typeof Upload>[2]} [kind]
   */
  add(given, blob, kind) {
    const name = freeName(given, this.#names);
    this.#names.add(name);
    const upload = new Upload(name, blob, kind);
    upload.addEventListener("change", () => this.dispatchEvent(new Event("change")));
    this.uploads.push(upload);
    this.#next();
    return upload;
  }

  /** @param {Upload} upload */
  again(upload) {
    upload.state = "queued";
    this.#next();
  }

  /** @param {Upload} upload */
  remove(upload) {
    this.uploads = this.uploads.filter((other) => other !== upload);
    this.#names.delete(upload.name);
  }

  /** Start what may run. */
  #next() {
    const running = this.uploads.filter((upload) => !upload.isOver && upload.state !== "queued").length;
    const queued = this.uploads.filter((upload) => upload.state === "queued");
    for (const upload of queued.slice(0, Math.max(0, AT_A_TIME - running))) void this.#run(upload);
    this.dispatchEvent(new Event("change"));
    if (!this.#isAsking) void this.#askForEver();
  }

  /** @param {Upload} upload */
  async #run(upload) {
    upload.state = "preparing";
    const token = await this.#getToken();
    // The person may have cancelled it while the relay asked for its secret.
    if (!upload.isOver) await upload.run(token);
    this.#next();
  }

  /** Return the token of all uploads: a new one if it has expired, as it does while nothing is sent for long. */
  async #getToken() {
    const known = this.#token;
    const isGone = known && (await listToken(await known)).status === 401;
    // Another upload may have got a new one meanwhile.
    if (isGone && this.#token === known) this.#token = undefined;
    return (this.#token ??= this.#newToken());
  }

  async #newToken() {
    let secret = sessionStorage.getItem(SECRET) ?? undefined;
    for (let asked = false; ; ) {
      const reply = await makeToken(secret);
      if (reply.status === 200) {
        if (secret) sessionStorage.setItem(SECRET, secret);
        return reply.body.token;
      }
      if (reply.status === 401) {
        sessionStorage.removeItem(SECRET);
        secret = await this.askSecret(asked);
        asked = true;
      } else {
        const seconds = Number(reply.headers.get("retry-after") ?? 2);
        await new Promise((done) => setTimeout(done, seconds * 1000));
      }
    }
  }

  /** Tell each upload what the relay says of it, while there are any. */
  async #askForEver() {
    this.#isAsking = true;
    for (let silences = 0; this.isBusy; ) {
      await new Promise((done) => setTimeout(done, ASK_EVERY * 1000));
      if (!this.#token) continue;
      const reply = await listToken(await this.#token);
      silences = reply.status ? 0 : silences + 1;
      if (silences >= SILENCES) for (const upload of this.uploads) upload.doubt();
      for (const said of reply.body.transfers ?? []) {
        const name = decodeURIComponent(said.name);
        this.uploads.find((upload) => upload.name === name)?.hear(said);
      }
    }
    this.#isAsking = false;
  }
}
