import { element } from "./elements.js";
import { text } from "./texts.js";

/** Seconds for which a button says what came of it. */
const SHOWN = 2;

/**
 * Copy words, and say so on the button for a moment. Without a secure context, browsers have only the old way.
 * @param {string} words
 * @param {HTMLButtonElement} button
 */
export async function copy(words, button) {
  const said = text((await write(words)) || writeTheOldWay(words, button) ? "copied" : "notCopied");
  const label = (button.dataset.label ??= button.textContent ?? "");
  button.textContent = said;
  element("announced").textContent = said;
  setTimeout(() => (button.textContent = label), SHOWN * 1000);
}

/** @param {string} words */
async function write(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return false;
  }
}

/** @param {string} words @param {HTMLButtonElement} button */
function writeTheOldWay(words, button) {
  const area = document.createElement("textarea");
  area.value = words;
  area.className = "hidden-text";
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  button.focus();
  return isCopied;
}
