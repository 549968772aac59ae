// Every text that the scripts show, so that another language is another file like this one. `{braces}` are filled in.

export const TEXTS = {
  title: "relay: send a file",
  titleSending: "{percent} sent – relay",
  titleWaiting: "Waiting – relay",
  titleDelivered: "Delivered – relay",

  preparing: "Making the link …",
  queued: "In line: it starts when one of the others has arrived.",
  waiting: "Waiting for the receiver. Keep this page open.",
  sending: "Sending: {delivered} of {size}",
  speed: "{rate}/s, {left} left",
  paused: "The receiver’s connection broke after {delivered}. It goes on as soon as the receiver is back.",
  reconnecting: "Reconnecting … The receiver has {delivered} so far.",
  offline: "You are offline. It goes on by itself when you are back.",
  delivered: "Delivered: the receiver has all of it.",
  cancelled: "Cancelled.",
  failed: "Not delivered. {reason}",

  expired: "The link has expired. Send the file again to get a new one.",
  lost: "The relay does not know this transfer any more.",
  receiverGone: "The receiver left and did not come back.",
  stalled: "Nothing moved for too long.",
  cancelledElsewhere: "It was cancelled.",
  tooLarge: "The file is larger than this relay, or a gateway before it, accepts.",
  unreadable: "“{name}” cannot be read any more: it was changed, moved or deleted.",
  refused: "The relay refused it: {line}",
  secretWrong: "This secret is not accepted. Try again.",
  reading: "Reading the folder “{name}” …",
  folderUnreadable: "The folder “{name}” is not sent, because “{path}” cannot be read.",
  folderEmpty: "There is no file in this folder. To send an empty folder, drop it here.",
  folderSize: "{size}, {count} files",
  folderSizeOfOne: "{size}, {count} file",

  rowLabel: "{name}, {size}",
  linkLabel: "Link for the receiver of {name}",
  barLabel: "What the receiver has of {name}",
  copyOf: "Copy link to {name}",
  shareOf: "Share the link to {name}",
  qrLabel: "QR code of the link to {name}",
  noQr: "There is no QR code. {line}",
  cancelOf: "Cancel sending {name}",
  removeOf: "Remove {name} from the list",
  againOf: "Try again to send {name}",
  copied: "Copied",
  notCopied: "Not copied: select it and copy it yourself",
  text: "Text",
  announced: "{name}: {state}",

  receiveTitle: "{name} – relay",
  aFile: "A file",
  checking: "Looking for the file …",
  sizeUnknown: "size unknown",
  badLink: "This is not a complete link.",
  badLinkHint: "Copy all of the link that you were given, up to its last letter.",
  goneLink: "This link does not work.",
  goneLinkHint: "It has expired, or it is not the whole link. Ask the sender for a new one.",
  sendLink: "This link is for sending.",
  sendLinkHint: "Somebody wants to get a file from you with it. It cannot receive one.",
  absent: "The sender is not there yet.",
  absentHint: "The sender’s page must be open. Keep this page open too: it shows the file as soon as it is there.",
  taken: "Somebody is receiving it.",
  takenHint: "If that is you, your browser shows it. If not, ask the sender to send it again when this is over.",
  takenAway: "It has been received.",
  takenAwayHint: "If it was not by you, ask the sender to send it again: only one receiver can take it.",
  used: "The sender is not there any more.",
  usedHint: "The file was taken, or the sender has left. If you still need it, ask the sender to send it again.",
  ready: "The sender is there.",
  readyHint: "Only one receiver can take it, and only once.",
  folderHint: "It is a folder, packed as one .tar file. Only one receiver can take it, and only once.",
  receiving: "Your browser is receiving it.",
  arrived: "{delivered} so far",
  arrivedOf: "{delivered} of {size}",
  rate: "{rate}/s",
  titleReceiving: "{percent} received – relay",
  titleReceived: "Received: {name} – relay",
  senderAway: "Interrupted: waiting for the sender.",
  senderAwayHint: "The sender’s connection broke. The download goes on by itself when it is back, so keep it running.",
  stopped: "Your browser’s download has stopped.",
  stoppedHint: "Resume it in your browser’s list of downloads, or start it again here.",
  whole: "Delivered: all of it has arrived.",
  wholeHint: "Your browser has saved it in its folder for downloads.",
  notWhole: "It did not arrive whole.",
  notWholeCancelled: "It did not arrive whole: it was cancelled.",
  notWholeHint: "Delete what your browser has saved of it. If the sender sends it again, this page shows it.",
  started: "The download has begun.",
  startedHint: "It is saved in your browser’s folder for downloads. You may close this page.",
  over: "The transfer is over.",
  overHint: "Your browser’s list of downloads shows whether the file is whole.",
  sure: "Cancel the transfer of {name}?",
  sureHint: "It ends for its uploader and its downloader, who are told that it was cancelled.",
  cancelIt: "Cancel the transfer",
  keepIt: "Keep it",
  ended: "This transfer has ended already.",

  noAnswer: "The relay does not answer.",
  noAnswerHint: "This page tries again by itself.",
  tooMany: "There were too many wrong links from your network.",
  tooManyHint: "This page tries again in a minute.",
  download: "Download",
  downloadAgain: "Start the download again",
  showText: "Show the text",
  textHere: "Here is the text.",
  textHereHint: "It is not stored anywhere: copy what you need before you close this page.",
  textFailed: "The text did not arrive.",
  textFailedHint: "Ask the sender to send it again.",
};

/**
 * Return a text with its `{braces}` filled in.
 * @param {keyof typeof TEXTS} key
 * @param {Record<string, string>} [values]
 */
export function text(key, values = {}) {
  return TEXTS[key].replace(/\{(\w+)\}/g, (braces, name) => values[name] ?? braces);
}

const LANGUAGE = document.documentElement.lang;

/** Return a number of bytes in words, such as “3.4 MB”. @param {number} bytes */
export function size(bytes) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];
  let step = 0;
  while (bytes >= 999.5 && step < units.length - 1) {
    bytes /= 1000;
    step += 1;
  }
  const digits = step === 0 || bytes >= 99.5 ? 0 : 1;
  const options = { style: "unit", unit: units[step], unitDisplay: step ? "short" : "long" };
  return new Intl.NumberFormat(LANGUAGE, {
    .../** @type {Intl.NumberFormatOptions} */ (options),
    maximumFractionDigits: digits,
  }).format(bytes);
}

/** Return a share from 0 to 1 as whole percent, rounded down: 100 % is only what has arrived. @param {number} share */
export function percent(share) {
  return new Intl.NumberFormat(LANGUAGE, { style: "percent" }).format(Math.floor(share * 100) / 100);
}

/** Return a time in words, such as “2 min”. @param {number} seconds */
export function duration(seconds) {
  const [value, unit] =
    seconds < 60 ? [seconds, "second"] : seconds < 5400 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  return new Intl.NumberFormat(LANGUAGE, {
    style: "unit",
    unit,
    unitDisplay: "short",
    maximumFractionDigits: 0,
  }).format(Math.max(1, value));
}
