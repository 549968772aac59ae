import { text } from "./texts.js";

/**
 * Copy words, and say so on the button for a moment. Without a secure context, browsers have only the old way.
 * @param {string} words
 * @param {HTMLButtonElement} button
 */
export async function copy(words, button) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(words);
  } else {
    const area = document.createElement("textarea");
    area.value = words;
    area.className = "hidden-text";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = (button.dataset.label ??= button.textContent ?? "");
  button.textContent = text("copied");
  setTimeout(() => (button.textContent = label), 2000);
}
