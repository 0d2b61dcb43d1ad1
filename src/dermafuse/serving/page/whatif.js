// What the model would say, were one thing about the patient another.

import { bar, draw, make } from "./dom.js";
import { called, texts, worded } from "./language.js";

const [WIDE, HIGH, LEFT, BOTTOM] = [320, 120, 54, 20];
const TOPS = [0.05, 0.1, 0.25, 0.5, 1];

/** One block a field: a curve for a number, bars for words. The figures are of the malignant classes, or of the target. */
export function whatIfBlocks(explanation, labels) {
  const malignant = labels.filter((label) => label.malignant).map((label) => label.code);
  const codes = malignant.length ? malignant : [explanation.target];
  const target = malignant.length ? texts.malignantNoun : labels.find((label) => label.code === explanation.target).name;
  const fields = (explanation.what_if ?? []).map(({ field, values, given, probabilities }) => ({
    field,
    values,
    given,
    shares: values.map((_, at) => codes.reduce((sum, code) => sum + probabilities[code][at], 0)),
  }));
  const highest = Math.max(0, ...fields.flatMap((field) => field.shares));
  const top = TOPS.find((each) => each >= highest) ?? 1;
  return { target, blocks: fields.map((field) => (typeof field.values[0] === "number" ? curve : words)(field, top)) };
}

function words({ field, values, given, shares }, top) {
  const bars = values.map((word, at) => {
    const same = word === given;
    const figure = texts.percent(shares[at]);
    return bar({ name: worded(word), figure, width: shares[at] / top, className: same ? "chosen" : "", mark: same ? texts.whatIfGiven : "" });
  });
  return make("div", "", make("h4", "", called(field)), make("ul", "bars small", ...bars));
}

function curve({ field, values, given, shares }, top) {
  const [low, high] = [values[0], values.at(-1)];
  const x = (value) => LEFT + ((value - low) / (high - low || 1)) * (WIDE - LEFT - 10);
  const y = (share) => HIGH - BOTTOM - (share / top) * (HIGH - BOTTOM - 12);
  const line = values.map((value, at) => `${at ? "L" : "M"}${x(value).toFixed(1)} ${y(shares[at]).toFixed(1)}`).join("");
  const words = (text, across, down, anchor) => draw("text", { x: across, y: down, "text-anchor": anchor }, text);
  const picture = draw(
    "svg",
    {
      viewBox: `0 0 ${WIDE} ${HIGH}`,
      class: "curve",
      role: "img",
      "aria-label": texts.whatIfAlt(called(field), low, texts.percent(shares[0]), high, texts.percent(shares.at(-1))),
    },
    draw("path", { class: "axis", d: `M${LEFT} ${y(top)}V${y(0)}H${WIDE - 10}` }),
    words(texts.percent(top), LEFT - 4, y(top) + 5, "end"),
    words(texts.percent(0), LEFT - 4, y(0), "end"),
    words(String(low), x(low), HIGH - 4, "start"),
    words(String(high), x(high), HIGH - 4, "end"),
    draw("path", { class: "line", d: line }),
  );
  const here = given === null ? NaN : Number(given);
  if (here >= low && here <= high) {
    const share = between(values, shares, here);
    picture.append(draw("circle", { cx: x(here), cy: y(share), r: 4 }), words(`${given}`, x(here), HIGH - 4, "middle"));
  }
  return make("div", "", make("h4", "", called(field)), picture);
}

function between(values, shares, here) {
  const after = Math.max(1, values.findIndex((value) => value >= here));
  const part = (here - values[after - 1]) / (values[after] - values[after - 1]);
  return shares[after - 1] + part * (shares[after] - shares[after - 1]);
}
