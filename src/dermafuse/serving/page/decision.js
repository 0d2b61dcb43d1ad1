// From a probability to a decision: an operating point, what it means, and what is true of it where you work.

import { make, tell } from "./dom.js";
import { texts } from "./language.js";

// One choice for all of the page: images side by side are judged alike. The prevalence is that of a target.
const chosen = { point: 0, prevalence: {} };

/** The thresholds that were chosen on some images and judged on others, as far as there were enough of them. */
export function pointsOf(model) {
  return (model.operating_points ?? []).filter((point) => [point.threshold, point.sensitivity, point.specificity].every(Number.isFinite));
}

/** The share of flagged lesions that are truly positive, and of unflagged ones that are so all the same (Bayes' rule). */
export function atPrevalence({ sensitivity, specificity }, prevalence) {
  const [caught, alarms] = [sensitivity * prevalence, (1 - specificity) * (1 - prevalence)];
  const [missed, cleared] = [(1 - sensitivity) * prevalence, specificity * (1 - prevalence)];
  return { right: caught / (caught + alarms), missed: missed / (missed + cleared) };
}

const targetName = (target, labels, otherwise = texts.malignantNoun) => labels.find((label) => label.code === target)?.name ?? otherwise;
const inHundred = (share) => (share > 0 && share < 0.01 ? texts.belowOne : String(Math.round(100 * share)));

/** Show the part of the panel that decides (not where the image is in doubt); `changed`: another point or prevalence. */
export function showDecision(part, model, answer, inDoubt, changed) {
  const points = pointsOf(model);
  part("decision").hidden = answer.malignant_probability === null && points.length === 0;
  part("no-points").hidden = points.length > 0;
  part("points").hidden = points.length === 0;
  if (!points.length) return;
  const point = points[chosen.point] ?? points[0];
  const target = targetName(point.target, model.labels);
  const score = answer.probabilities[point.target] ?? answer.malignant_probability;
  const options = points.map((each, number) => {
    const words = [texts.rules[each.rule] ?? each.rule, texts.percent(each.level), texts.percent(each.threshold)];
    const option = make("option", "", texts.pointName(targetName(each.target, model.labels), ...words));
    option.value = number;
    return option;
  });
  part("point").replaceChildren(...options);
  part("point").value = points.indexOf(point);
  const flagged = score >= point.threshold;
  const verdict = (flagged ? texts.flagged : texts.unflagged)(texts.percent(score), target, texts.percent(point.threshold));
  tell(part("verdict"), inDoubt ? texts.noDecision : verdict);
  part("verdict").classList.toggle("flagged", flagged || inDoubt);
  const measured = (name) => texts.interval(texts.percent(point[name]), point.ci95?.[name]?.map(texts.percent));
  part("meaning").replaceChildren(
    make("li", "", texts.sensitivity(target, measured("sensitivity"), inHundred(point.sensitivity))),
    make("li", "", texts.specificity(target, measured("specificity"), inHundred(1 - point.specificity))),
  );
  tell(part("judged"), texts.judgedOn(point.n, point.positives));
  const word = targetName(point.target, model.labels, texts.malignantWord);
  tell(part("prevalence-name"), texts.prevalence(word));
  const prevalence = chosen.prevalence[point.target] ?? Number((point.positives / point.n).toFixed(3));
  if (document.activeElement !== part("prevalence")) part("prevalence").value = Number((100 * prevalence).toFixed(2));
  showTruth(part, point, word, prevalence);
  part("point").onchange = () => {
    chosen.point = Number(part("point").value);
    changed();
  };
  part("prevalence").oninput = () => {
    const given = part("prevalence").valueAsNumber / 100;
    chosen.prevalence[point.target] = given > 0 && given < 1 ? given : NaN;
    changed();
  };
}

function showTruth(part, point, word, prevalence) {
  if (!(prevalence > 0 && prevalence < 1)) {
    tell(part("truly"), texts.noPrevalence);
    return;
  }
  const { right, missed } = atPrevalence(point, prevalence);
  tell(part("truly"), texts.truly(texts.percent(prevalence), word, inHundred(right), inHundred(missed)));
}
