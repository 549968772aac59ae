// The requests that the page makes. Their addresses are relative to the page, so that a path prefix makes no difference.

/** Seconds after which a request that should be answered at once counts as lost. */
const PATIENCE = 10;

/**
 * What came of a request. `status` is 0 if nothing came. `fromRelay` tells an answer of the relay from one of a gateway
 * before it, which does not know how things stand.
 * @typedef {{status: number, fromRelay: boolean, code: string, line: string, headers: Headers, body: any}} Reply
 */

/**
 * Make a request, and never throw.
 * @param {string} address
 * @param {RequestInit & {seconds?: number}} options `seconds` of patience; 0: as long as it takes
 * @returns {Promise<Reply>}
 */
export async function ask(address, { seconds = PATIENCE, signal, ...options } = {}) {
  const given = signal ? [signal] : [];
  const signals = seconds ? [...given, AbortSignal.timeout(seconds * 1000)] : given;
  try {
    const response = await fetch(address, {
      ...options,
      headers: { accept: "application/json", ...options.headers },
      cache: "no-store",
      signal: AbortSignal.any(signals),
    });
    const words = await response.text();
    // The answer to a HEAD has the type of JSON, but no words.
    const isJson = words !== "" && (response.headers.get("content-type") ?? "").includes("json");
    const body = isJson ? JSON.parse(words) : {};
    return {
      status: response.status,
      fromRelay: response.headers.has("relay-node"),
      code: body.code ?? "",
      line: body.detail ?? words.trim(),
      headers: response.headers,
      body,
    };
  } catch {
    return { status: 0, fromRelay: false, code: "", line: "", headers: new Headers(), body: {} };
  }
}

/** Return the address of a name. @param {string} access a token or a link @param {string} name */
export const addressOf = (access, name) => `${access}/${encodeURIComponent(name)}`;

/** @param {string | undefined} secret */
export const makeToken = (secret) =>
  ask("token", { method: "POST", headers: secret ? { authorization: `Bearer ${secret}` } : {} });

/** @param {string} token */
export const listToken = (token) => ask(token, { seconds: 5 });

/**
 * Make a link to a name, which can only receive it. It is the same each time.
 * @param {string} token @param {string} name
 * @param {string} [qr] the text of a QR code of it, with `{link}` for the link
 */
export const makeLink = (token, name, qr) =>
  ask(`${addressOf(token, name)}/link${qr ? `?qr=${encodeURIComponent(qr)}` : ""}`, { method: "POST" });

/**
 * Create an upload that has no bytes yet: its address is then known before anything can break.
 * @param {string} token @param {string} name @param {Blob} blob
 */
export const createUpload = (token, name, blob) =>
  ask(addressOf(token, name), {
    method: "PUT",
    headers: {
      "content-type": blob.type || "application/octet-stream",
      "upload-complete": "?0",
      "upload-length": String(blob.size),
    },
  });

/**
 * Bring a part of an upload. This waits for the receiver, so it takes as long as it takes.
 * @param {string} address @param {Blob} part @param {number} offset @param {boolean} isLast @param {AbortSignal} signal
 */
export const sendPart = (address, part, offset, isLast, signal) =>
  ask(address, {
    method: "PATCH",
    body: part,
    headers: {
      "content-type": "application/partial-upload",
      "upload-offset": String(offset),
      "upload-complete": isLast ? "?1" : "?0",
    },
    seconds: 0,
    signal,
  });

/** Ask how far an upload is. @param {string} address @param {AbortSignal} [signal] */
export const askOffset = (address, signal) => ask(address, { method: "HEAD", signal });

/** @param {string} address */
export const cancelUpload = (address) => ask(address, { method: "DELETE" });

/**
 * Ask whether somebody sends a name, what, and how far it is. This takes nothing.
 * @param {string} link @param {string} name @param {number} wait seconds
 * @param {string} [etag] that of the one upload that is meant; if it is over, the answer may say how it ended
 */
export const look = (link, name, wait, etag) =>
  ask(`${addressOf(link, name)}?wait=${wait}`, {
    method: "HEAD",
    headers: etag ? { "if-match": etag } : {},
    seconds: wait + PATIENCE,
  });
