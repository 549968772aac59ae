// Draws a QR code. The relay makes it: it is a list of rows, each a text of 1 (dark) and 0 (light).

const SVG = "http://www.w3.org/2000/svg";
/** Light modules around a code, by ISO/IEC 18004. */
const QUIET = 4;

/** @param {string[]} rows @param {string} label what a screen reader says */
export function drawn(rows, label) {
  const side = rows.length + 2 * QUIET;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${side} ${side}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const path = document.createElementNS(SVG, "path");
  const runs = rows.flatMap((row, y) =>
    [...row.matchAll(/1+/g)].map((run) => `M${run.index + QUIET} ${y + QUIET}h${run[0].length}v1h-${run[0].length}z`),
  );
  path.setAttribute("d", runs.join(""));
  svg.append(path);
  return svg;
}
