// What a file may be called at the relay: the rules are those of “Names and tokens” in the HTTP API.

const MOST_BYTES = 255;

/** Return the bytes of a text in UTF-8. @param {string} text */
const bytesOf = (text) => new TextEncoder().encode(text).length;

/**
 * Return the nearest name that the relay accepts: slashes, control characters and controls of text direction become
 * `_`, and a long name is cut before its ending.
 * @param {string} given
 */
export function safeName(given) {
  // A lone surrogate has no UTF-8.
  let name = given.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "_");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for
  name = name.normalize("NFC").replace(/[/\\\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "_");
  if (name === "" || name === "." || name === "..") name = "_";
  const dot = name.lastIndexOf(".");
  const ending = dot > 0 && name.length - dot <= 20 ? name.slice(dot) : "";
  const stem = [...name.slice(0, name.length - ending.length)];
  while (bytesOf(stem.join("") + ending) > MOST_BYTES) stem.pop();
  return stem.join("") + ending;
}

/**
 * Return a name that is not among those in use: “a (2).txt” after “a.txt”.
 * @param {string} given
 * @param {Set<string>} used
 */
export function freeName(given, used) {
  const name = safeName(given);
  const dot = name.lastIndexOf(".") > 0 ? name.lastIndexOf(".") : name.length;
  let free = name;
  for (let count = 2; used.has(free); count += 1) {
    free = safeName(`${[...name.slice(0, dot)].slice(0, 200).join("")} (${count})${name.slice(dot)}`);
  }
  return free;
}

/** Return a word as a shell takes it. @param {string} word */
export function quoted(word) {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
