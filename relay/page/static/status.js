// Replaces the tables every two seconds. They come from the relay's own template, which escapes every name. What a person
// has opened or focused stays so. Copies tokens, and asks before an operator's button cancels a transfer.

import { copy } from "./copy.js";
import { text } from "./texts.js";

/** @typedef {{createHTML: (html: string) => unknown}} Policy not among TypeScript's types of the DOM yet */
/** @type {{createPolicy: (name: string, rules: Policy) => Policy} | undefined} */
const trustedTypes = /** @type {any} */ (globalThis).trustedTypes;
const policy = trustedTypes?.createPolicy("relay-status", { createHTML: (html) => html });
/** @param {string} html */
const trusted = (html) => /** @type {string} */ (policy?.createHTML(html) ?? html);

async function refresh() {
  const shown = document.getElementById("status");
  const stale = document.getElementById("stale");
  if (!shown || !stale || document.hidden || !getSelection()?.isCollapsed) return;
  try {
    const headers = { accept: "text/html" };
    const answer = await fetch(`status${location.search}`, { headers, signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(trusted(await answer.text()), "text/html");
    const tables = page.getElementById("status");
    if (!tables) throw new Error("no tables");
    replace(shown, tables);
    if (location.pathname.endsWith("/status")) document.title = page.title;
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
}

/** @param {HTMLElement} shown @param {HTMLElement} tables */
function replace(shown, tables) {
  for (const box of /** @type {NodeListOf<HTMLInputElement>} */ (shown.querySelectorAll("input.more:checked"))) {
    const same = /** @type {HTMLInputElement | null} */ (tables.querySelector(`#${CSS.escape(box.id)}`));
    if (same) same.checked = true;
  }
  const focused = shown.contains(document.activeElement) ? document.activeElement?.id : "";
  shown.replaceWith(tables);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/** @param {Event} event */
function clicked(event) {
  const button = event.target instanceof Element ? event.target.closest("button") : null;
  if (!button?.closest("#status")) return;
  if (button.dataset.copy) copy(button.dataset.copy, button);
  if (button.name !== "which") return;
  event.preventDefault(); // without this script, the form asks on a page of its own
  ask(button);
}

/** @param {HTMLButtonElement} button */
function ask(button) {
  const dialog = document.createElement("dialog");
  const title = document.createElement("h2");
  dialog.className = "sure";
  title.id = "sure";
  title.textContent = text("sure", { name: button.dataset.name ?? "" });
  dialog.setAttribute("aria-labelledby", title.id);
  const hint = document.createElement("p");
  hint.textContent = text("sureHint");
  const yes = document.createElement("button");
  yes.className = "small cancel-it";
  yes.textContent = text("cancelIt");
  const no = document.createElement("button");
  no.className = "small";
  no.textContent = text("keepIt");
  no.autofocus = true;
  dialog.append(title, hint, yes, no);
  no.addEventListener("click", () => dialog.close());
  yes.addEventListener("click", () => cancel(button.value, dialog, hint, yes));
  dialog.addEventListener("close", () => {
    dialog.remove();
    document.getElementById(button.id)?.focus({ preventScroll: true });
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** @param {string} which @param {HTMLDialogElement} dialog @param {HTMLElement} hint @param {HTMLButtonElement} yes */
async function cancel(which, dialog, hint, yes) {
  yes.disabled = true;
  hint.setAttribute("role", "status");
  try {
    const answer = await fetch("status/cancel", {
      method: "POST",
      headers: { accept: "text/plain" },
      body: new URLSearchParams({ which, sure: "yes" }),
      signal: AbortSignal.timeout(15_000),
    });
    const line = (await answer.text()).trim();
    if (answer.ok) {
      dialog.close();
      await refresh();
      return;
    }
    hint.textContent = answer.status === 404 ? text("ended") : line;
  } catch {
    hint.textContent = text("noAnswer");
  }
  yes.remove(); // the tables say what there is to cancel now
}

document.documentElement.classList.add("scripted"); // the buttons that need this script are shown
document.addEventListener("click", clicked);
for (;;) {
  await new Promise((done) => setTimeout(done, 2000));
  await refresh();
}
