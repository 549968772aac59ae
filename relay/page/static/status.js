// Replaces the tables every two seconds. They come from the relay's own template, which escapes every name.

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
    shown.replaceWith(tables);
    if (location.pathname.endsWith("/status")) document.title = page.title;
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
}

for (;;) {
  await new Promise((done) => setTimeout(done, 2000));
  await refresh();
}
