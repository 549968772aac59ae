// A folder as one tar, which is laid out before it is sent and stored nowhere: a Blob of headers and of the files
// themselves. Browsers read such a Blob only when they send it, from any byte on, so it takes no memory for the files.
//
// The form is POSIX.1-2001 (pax): ustar headers, and before one whose name or size does not fit a pax header with it.

/** The type by which `relay receive` and the receiving page know a folder. */
export const TAR_TYPE = "application/x-tar; relay=tree";
export const TAR_ENDING = ".tar";

const BLOCK = 512;
/** Bytes of a name in an ustar header, and the largest number in its eleven octal digits. */
const [NAME_BYTES, MOST] = [100, 8 ** 11 - 1];
const ZEROS = new Uint8Array(2 * BLOCK);

/** A file at a path without a leading slash, or a folder if `file` is null. @typedef {{path: string, file: File | null}} Entry */

/** Return the bytes of a text in UTF-8. @param {string} text */
const encoded = (text) => new TextEncoder().encode(text);

/** @param {number} size bytes */
const paddingOf = (size) => ZEROS.subarray(0, -size & (BLOCK - 1));

/** Return a whole tar of the entries, each folder before what is in it. @param {Entry[]} entries */
export function tarOf(entries) {
  const files = entries.flatMap(({ file }) => file ?? []);
  const newest = files.reduce((most, file) => Math.max(most, file.lastModified), 0);
  /** @type {BlobPart[]} */
  const parts = [];
  for (const { path, file } of entries) {
    const seconds = Math.min(MOST, Math.max(0, Math.floor((file?.lastModified ?? newest) / 1000)));
    if (file) parts.push(...headersOf(path, "0", file.size, seconds), file, paddingOf(file.size));
    else parts.push(...headersOf(`${path}/`, "5", 0, seconds));
  }
  return new Blob([...parts, ZEROS], { type: TAR_TYPE });
}

/**
 * Return what stands before an entry's bytes: its header, after a pax header if that is needed.
 * @param {string} path
 * @param {"0" | "5"} type a file or a folder
 * @param {number} size bytes
 * @param {number} seconds since 1970, when it was changed
 */
export function headersOf(path, type, size, seconds) {
  const name = encoded(path);
  const isPlain = /^[\x20-\x7e]*$/.test(path) && name.length <= NAME_BYTES;
  const records = [...(isPlain ? [] : [record("path", path)]), ...(size <= MOST ? [] : [record("size", String(size))])];
  const pax = encoded(records.join(""));
  const own = header(
    isPlain ? name : encoded(path.replace(/[^\x20-\x7e]/g, "_")),
    type,
    size <= MOST ? size : 0,
    seconds,
  );
  if (!pax.length) return [own];
  return [header(encoded("././@PaxHeader"), "x", pax.length, 0), pax, paddingOf(pax.length), own];
}

/** Return a record of a pax header: it begins with its own length. @param {string} key @param {string} value */
function record(key, value) {
  const rest = ` ${key}=${value}\n`;
  const length = encoded(rest).length;
  // The digits of the length count, too, and may be one more because of that.
  const total = length + String(length + String(length).length).length;
  return total + rest;
}

/** @param {Uint8Array} name @param {string} type @param {number} size @param {number} seconds */
function header(name, type, size, seconds) {
  const block = new Uint8Array(BLOCK);
  /** @param {number} at @param {number} digits @param {number} value */
  const octal = (at, digits, value) => block.set(encoded(value.toString(8).padStart(digits, "0")), at);
  block.set(name.subarray(0, NAME_BYTES));
  octal(100, 7, type === "5" ? 0o755 : 0o644);
  octal(108, 7, 0);
  octal(116, 7, 0);
  octal(124, 11, size);
  octal(136, 11, seconds);
  block.set(encoded(`        ${type}`), 148);
  block.set(encoded("ustar\u000000"), 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.set(encoded(`${sum.toString(8).padStart(6, "0")}\u0000 `), 148);
  return block;
}
