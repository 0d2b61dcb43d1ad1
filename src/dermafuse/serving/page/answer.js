// One image and what the model says of it, as a panel. Several can stand side by side.

import { showDecision } from "./decision.js";
import { at, bar, make, tell } from "./dom.js";
import { called, texts, worded } from "./language.js";
import { drawHeat } from "./picture.js";
import { whatIfBlocks } from "./whatif.js";

const percent = texts.percent;
// Of the spread over flips and turns, diagnoses that never reach this are left out.
const WORTH_SHOWING = 0.02;

/** Make an empty panel: { element, part(name) }. */
export function makePanel() {
  const element = at("answer").content.firstElementChild.cloneNode(true);
  const parts = new Map([...element.querySelectorAll("[data-part]")].map((place) => [place.dataset.part, place]));
  for (const place of element.querySelectorAll("[data-text]")) place.textContent = texts[place.dataset.text];
  const part = (name) => parts.get(name);
  part("opacity").addEventListener("input", () => (part("heat").style.opacity = part("opacity").value / 100));
  return { element, part };
}

/** Show an image that has its answer; `changed` is called when another operating point is chosen. */
export function showAnswer({ element, part }, seen, model, changed) {
  const { answer, given } = seen;
  const names = Object.fromEntries(model.labels.map((label) => [label.code, label.name]));
  element.setAttribute("aria-label", `${texts.resultTitle}: ${texts.caseTitle(seen.number)}`);
  tell(part("title"), `${texts.resultTitle}: ${texts.caseTitle(seen.number)}`);
  const inDoubt = showDoubts(element, part, answer);
  tell(part("headline"), texts.headline(answer.name, percent(answer.probabilities[answer.label])));
  tell(part("set"), setInWords(answer, names));
  tell(part("coverage"), model.coverage && answer.prediction_set ? texts.coverage(percent(model.coverage)) : "");
  const malignant = answer.malignant_probability;
  tell(part("malignant"), malignant === null ? "" : texts.malignant(percent(malignant)));
  const pairs = Object.entries(given).map(([name, value]) => [called(name), worded(value)]);
  tell(part("given"), pairs.length ? texts.given(pairs) : model.fields.length ? texts.nothingGiven : "");
  showNotes(part, answer, names);
  showPicture(part, seen, names);
  showBars(part, seen, model);
  showDecision(part, model, answer, inDoubt, changed);
  showShares(part, answer, names);
  showWhatIf(part, answer, model);
  showStability(part, seen.stability, answer, names);
  showSimilar(part, seen.similar);
  tell(part("printed"), `${texts.printed(texts.time(seen.asked), model.name, model.digest.slice(0, 12))} ${texts.research}`);
}

function showDoubts(element, part, answer) {
  const flaws = (answer.quality?.flags ?? []).map((name) => texts.flaws[name] ?? name);
  const strange = answer.out_of_distribution === true;
  tell(part("strange"), strange ? texts.strange : "");
  tell(part("poor"), flaws.length ? texts.poor(flaws) : "");
  const inDoubt = strange || flaws.length > 0;
  tell(part("doubtful"), inDoubt ? texts.doubtful : "");
  element.classList.toggle("in-doubt", inDoubt);
  return inDoubt;
}

function setInWords(answer, names) {
  if (!answer.prediction_set) return "";
  const others = answer.prediction_set.filter((code) => code !== answer.label).map((code) => names[code]);
  if (others.length) return texts.cannotExclude(others);
  return answer.prediction_set.length ? texts.onlyOne(answer.name) : texts.noneFits;
}

function showNotes(part, answer, names) {
  const notes = [...new Set([...(answer.notes ?? []), ...(answer.explanation.notes ?? [])])];
  const [largest] = Object.entries(answer.probabilities).sort(([, a], [, b]) => b - a)[0];
  if (largest !== answer.label) notes.unshift(texts.notLargest(answer.name, names[largest]));
  if (answer.missing.length) notes.push(texts.missing(answer.missing.map(called).join(", ")));
  part("notes").replaceChildren(...notes.map((text) => make("li", "", text)));
}

function showPicture(part, seen, names) {
  const image = part("shown");
  image.alt = texts.shownAlt;
  image.onerror = () => (image.alt = texts.noPreview);
  if (image.src !== seen.address) image.src = seen.address;
  const { heatmap, target } = seen.answer.explanation;
  const empty = heatmap.every((row) => row.every((value) => value === 0));
  tell(part("heat-text"), (empty ? texts.noHeat : texts.heat)(names[target]));
  drawHeat(part("heat"), heatmap);
  part("heat").style.opacity = part("opacity").value / 100;
}

function showBars(part, seen, model) {
  const { probabilities, label: decided } = seen.answer;
  // In the order of the first answer: bars that change their places cannot be followed while a slider moves.
  seen.order ??= model.labels.map((label) => label.code).sort((a, b) => probabilities[b] - probabilities[a]);
  const labels = Object.fromEntries(model.labels.map((label) => [label.code, label]));
  const bars = seen.order.map((code) => {
    const [share, { name, malignant }] = [probabilities[code], labels[code]];
    const [className, mark] = [code === decided ? "chosen" : "", malignant ? texts.malignantMark : ""];
    return bar({ name, figure: percent(share), width: share, className, mark });
  });
  part("bars").replaceChildren(...bars);
}

function showShares(part, { explanation, probabilities }, names) {
  const { target, baseline, prediction } = explanation;
  const shares = Object.entries(explanation.attributions[target] ?? {});
  part("why").hidden = shares.length === 0;
  if (!shares.length) return;
  const share = prediction.probabilities[target];
  tell(part("why-title"), texts.whyTitle(names[target]));
  // Explanations are computed in full precision, predictions in that of the processor.
  const rounded = Math.abs(share - probabilities[target]) >= 0.0005;
  tell(part("why-text"), texts.whyText(percent(baseline[target]), percent(share)) + (rounded ? ` ${texts.precision}` : ""));
  const widest = Math.max(...shares.map(([, value]) => Math.abs(value))) || 1;
  const bars = shares.map(([player, value]) => {
    const width = (0.5 * Math.abs(value)) / widest;
    const size = (100 * Math.abs(value)).toFixed(1);
    const figure = texts.points(`${Number(size) === 0 ? "" : value < 0 ? "−" : "+"}${size}`);
    const name = player === "image" ? texts.image : called(player);
    return bar({ name, figure, left: value < 0 ? 0.5 - width : 0.5, width, className: value < 0 ? "against" : "for" });
  });
  part("shares").replaceChildren(...bars);
}

function showWhatIf(part, { explanation }, model) {
  const { target, blocks } = whatIfBlocks(explanation, model.labels);
  part("what-if").hidden = blocks.length === 0;
  tell(part("what-if-text"), texts.whatIfText(target));
  part("what-ifs").replaceChildren(...blocks);
}

function showStability(part, stability, { name }, names) {
  part("stability").hidden = !stability;
  if (!stability) return;
  const { views, same_label: same, probabilities, malignant_probability: malignant } = stability;
  tell(part("stable"), texts.stable(same, views, name));
  tell(part("unstable"), same < views ? texts.unstable : "");
  const range = (name, [least, most], className = "") =>
    bar({ name, figure: texts.range(percent(least), percent(most)), left: least, width: Math.max(0.005, most - least), className });
  const worth = Object.entries(probabilities).filter(([, [, most]]) => most >= WORTH_SHOWING).sort(([, [, a]], [, [, b]]) => b - a);
  const bars = worth.map(([code, spread]) => range(names[code], spread));
  if (malignant) bars.push(range(texts.malignantNoun, malignant, "sum"));
  part("spreads").replaceChildren(...bars);
}

function showSimilar(part, similar) {
  part("similar").hidden = !similar;
  if (!similar) return;
  const failed = typeof similar === "string";
  tell(part("similar-text"), failed ? texts.noSimilar(similar) : texts.similarText);
  const found = failed ? [] : similar;
  part("neighbours").replaceChildren(
    ...found.map(({ label, name, distance, thumbnail }) => {
      const image = make(thumbnail ? "img" : "span", "thumbnail");
      if (thumbnail) Object.assign(image, { alt: texts.similarAlt(name ?? label), src: thumbnail });
      return make("li", "", image, make("strong", "", name ?? label), make("span", "soft", texts.distance(distance.toFixed(3))));
    }),
  );
}
