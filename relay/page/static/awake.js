// Keeps the machine awake while bytes flow. Browsers offer that in secure contexts only.

/** @type {WakeLockSentinel | undefined} */
let lock;
let isWanted = false;
let isAsking = false;

/** @param {boolean} flows */
export async function keepAwake(flows) {
  isWanted = flows;
  if (!flows) {
    await lock?.release();
    lock = undefined;
  } else if (!isAsking && !document.hidden && (!lock || lock.released)) {
    isAsking = true;
    lock = await navigator.wakeLock?.request("screen").catch(() => undefined);
    isAsking = false;
    if (!isWanted) await lock?.release();
  }
}

// The browser takes the lock back while the page is hidden.
document.addEventListener("visibilitychange", () => void keepAwake(isWanted));
