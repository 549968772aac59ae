"use strict";
const stale = document.getElementById("stale");
async function refresh() {
  if (document.hidden || !getSelection().isCollapsed) return;
  try {
    const answer = await fetch(location.href, {headers: {accept: "text/html"}, signal: AbortSignal.timeout(5000)});
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    stale.hidden = true;
  } catch {
    stale.hidden = false;
  }
}
(async () => { for (;;) { await new Promise((done) => setTimeout(done, 2000)); await refresh(); } })();
