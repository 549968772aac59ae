// Folders that a person drops or chooses: what is in them, under names that are safe to unpack everywhere.

import { freeName } from "./names.js";

/** @typedef {import("./tar.js").Entry} Entry */
/** What was found: the names from the folder's own on, and the file, null for a folder. @typedef {[string[], File | null]} Found */

/** A folder that cannot be read as a whole. The message is the path of what cannot be read. */
export class Unreadable extends Error {}

/** Return all that is in a folder that was dropped. Raise Unreadable. @param {FileSystemDirectoryEntry} folder */
export async function dropped(folder) {
  /** @type {Found[]} */
  const found = [];
  /** @type {[FileSystemDirectoryEntry, string[]][]} */
  const pending = [[folder, [folder.name]]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [entry, path] = next;
    found.push([path, null]);
    const inside = await readable(children(entry), path);
    const files = inside
      .filter((each) => each.isFile)
      .map(async (each) => {
        const own = [...path, each.name];
        return /** @type {Found} */ ([own, await readable(fileOf(/** @type {FileSystemFileEntry} */ (each)), own)]);
      });
    found.push(...(await Promise.all(files)));
    for (const each of inside) {
      if (each.isDirectory) pending.push([/** @type {FileSystemDirectoryEntry} */ (each), [...path, each.name]]);
    }
  }
  return laidOut(found);
}

/** Return what is read at a path. Raise Unreadable. @template T @param {Promise<T>} reading @param {string[]} path */
async function readable(reading, path) {
  try {
    return await reading;
  } catch {
    throw new Unreadable(path.join("/"));
  }
}

/** Return all that is in a folder that was chosen. Browsers tell nothing of empty folders. @param {File[]} files */
export function chosen(files) {
  return laidOut(files.map((file) => [file.webkitRelativePath.split("/"), file]));
}

/** @param {FileSystemDirectoryEntry} folder @returns {Promise<FileSystemEntry[]>} */
async function children(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    /** Browsers return some at a time, and none at the end. @type {FileSystemEntry[]} */
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return all;
    all.push(...some);
  }
}

/** @param {FileSystemFileEntry} entry @returns {Promise<File>} */
const fileOf = (entry) => new Promise((done, failed) => entry.file(done, failed));

/**
 * Return the entries in order, each folder before what is in it. Every name in a path becomes one that the relay would
 * accept, so nothing leads out of the folder, and two names that become the same are told apart.
 * @param {Found[]} found
 * @returns {Entry[]}
 */
export function laidOut(found) {
  const sorted = found.map(([path, file]) => ({ path, file, key: path.join("/") }));
  sorted.sort((one, other) => (one.key < other.key ? -1 : 1));
  /** @type {Entry[]} */
  const entries = [];
  /** The safe path of each folder, by its own path. @type {Map<string, string>} */
  const folders = new Map();
  /** The names in each folder, by its safe path. @type {Map<string, Set<string>>} */
  const names = new Map([["", new Set()]]);
  /** @param {string} folder its safe path @param {string} name */
  const place = (folder, name) => {
    const used = /** @type {Set<string>} */ (names.get(folder));
    const free = freeName(name, used);
    used.add(free);
    return folder ? `${folder}/${free}` : free;
  };
  /** @param {string[]} path @returns {string} the safe path of the folder, which is there from now on */
  const enter = (path) => {
    if (!path.length) return "";
    const key = path.join("/");
    const known = folders.get(key);
    if (known !== undefined) return known;
    const safe = place(enter(path.slice(0, -1)), path[path.length - 1]);
    folders.set(key, safe);
    names.set(safe, new Set());
    entries.push({ path: safe, file: null });
    return safe;
  };
  for (const { path, file } of sorted) {
    if (file) entries.push({ path: place(enter(path.slice(0, -1)), path[path.length - 1]), file });
    else enter(path);
  }
  return entries;
}
