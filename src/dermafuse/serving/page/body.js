// The body as a clickable outline, front and back, for a field whose words are body sites.

import { draw, make, tell } from "./dom.js";
import { texts, worded } from "./language.js";

const TORSO = ["trunk", "torso"];
const HEAD = ["head/neck", "head", "head/neck/face"];
const ARM = ["arm", "upper extremity", "upper limb", "upper extremities"];
const LEG = ["leg", "lower extremity", "lower limb", "lower extremities"];
const FRONT = ["anterior torso", ...TORSO];
const BEHIND = ["posterior torso", ...TORSO];

// Each place: the words that a model may have for it, the most exact first; the first that it has is the place's.
// Drawn about x = 0; `both` is drawn on the right and mirrored.
const PLACES = [
  { view: "front", words: ["scalp", ...HEAD, "face"], path: "M-13.5 15C-13.5-2 13.5-2 13.5 15C6 11-6 11-13.5 15Z" },
  { view: "front", words: ["face", ...HEAD], path: "M-13.5 16C-6 12 6 12 13.5 16C14 28 9 38 0 38C-9 38-14 28-13.5 16Z" },
  { view: "front", words: ["nose", "face", ...HEAD], path: "M0 19L3 27H-3Z" },
  { view: "front", words: ["lip", "mouth", "oral", "face", ...HEAD], path: "M-4 31Q0 29 4 31Q0 34.500-4 31Z" },
  { view: "front", words: ["neck", ...HEAD], path: "M-7 36Q0 41 7 36L8 44Q0 48-8 44Z" },
  { view: "front", words: ["chest", "breast", ...FRONT], path: "M-8 45Q0 49 8 45C17 47 25 48 29 53L25 72L24 86H-24L-25 72L-29 53C-25 48-17 47-8 45Z" },
  { view: "front", words: ["abdomen", "belly", "stomach", ...FRONT], path: "M-15.500 87H15.500V119L8.500 123Q0 118-8.500 123L-15.500 119Z" },
  { view: "front", words: ["genital", "genitals", "genitalia", "genital area", "anogenital", "oral/genital", "groin"], path: "M-8 124Q0 119 8 124L2.500 138H-2.500Z" },
  { view: "front", both: true, words: ["ear", ...HEAD, "face"], path: "M14.500 16C20 14 20 27 14 28Z" },
  { view: "front", both: true, words: ["flank", "lateral torso", "abdomen", ...FRONT], path: "M16.500 87H24C22 98 22.500 107 25.500 117L16.500 120Z" },
  { view: "front", both: true, words: ["shoulder", "upper arm", ...ARM], path: "M30 53C35 55 37 60 38.500 68L41 80L33 83L26.500 70Z" },
  { view: "front", both: true, words: ["upper arm", ...ARM], path: "M33.200 84L41.200 81L44 97L36 99Z" },
  { view: "front", both: true, words: ["forearm", "lower arm", ...ARM], path: "M36.200 100L44.200 98L50 128L43.500 130Z" },
  { view: "front", both: true, words: ["palm", "hand", "palms/soles", "acral", ...ARM], path: "M43.700 131L50.200 129C54 136 55.500 146 53 150C50 154 46 151 44.500 145Z" },
  { view: "front", both: true, words: ["thigh", "upper leg", ...LEG], path: "M25.700 118.500C28.500 138 24 158 21 176H5L3 139L8.800 125Z" },
  { view: "front", both: true, words: ["knee", ...LEG], path: "M5 177H21L20.500 189H5Z" },
  { view: "front", both: true, words: ["lower leg", "shin", ...LEG], path: "M5 190H20.500C21.500 204 18 218 15.500 230H7C6.500 217 4 204 5 190Z" },
  { view: "front", both: true, words: ["foot", "feet", ...LEG], path: "M7 231H15.500L21 244C20 249 8 249 6 245Z" },
  { view: "back", words: ["scalp", ...HEAD, "face"], path: "M-13.500 24C-15-5 15-5 13.500 24C12 33 7 37 0 37C-7 37-12 33-13.500 24Z" },
  { view: "back", words: ["neck", ...HEAD], path: "M-7 36.500Q0 39 7 36.500L8 44Q0 47-8 44Z" },
  { view: "back", words: ["upper back", "back", ...BEHIND], path: "M-8 45Q0 48 8 45C17 47 25 48 29 53L25 72L24 86H-24L-25 72L-29 53C-25 48-17 47-8 45Z" },
  { view: "back", words: ["lower back", "back", ...BEHIND], path: "M-15.500 87H15.500V112Q0 108-15.500 112Z" },
  { view: "back", both: true, words: ["ear", ...HEAD, "face"], path: "M14.500 16C20 14 20 27 14 28Z" },
  { view: "back", both: true, words: ["flank", "lateral torso", "back", ...BEHIND], path: "M16.500 87H24C22 96 22 104 24 113L16.500 112Z" },
  { view: "back", both: true, words: ["buttock", "buttocks", "gluteal", "gluteal region"], path: "M.5 110.500Q9 110.500 24.300 114.500C27 128 24 138 14 139C7 140 2 138 .5 134Z" },
  { view: "back", both: true, words: ["shoulder", "upper arm", ...ARM], path: "M30 53C35 55 37 60 38.500 68L41 80L33 83L26.500 70Z" },
  { view: "back", both: true, words: ["upper arm", ...ARM], path: "M33.200 84L41.200 81L44 97L36 99Z" },
  { view: "back", both: true, words: ["forearm", "lower arm", ...ARM], path: "M36.200 100L44.200 98L50 128L43.500 130Z" },
  { view: "back", both: true, words: ["hand", "finger", "acral", ...ARM], path: "M43.700 131L50.200 129C54 136 55.500 146 53 150C50 154 46 151 44.500 145Z" },
  { view: "back", both: true, words: ["thigh", "upper leg", ...LEG], path: "M26 128C27 145 24 160 21 176H5L3 140C14 142 23 140 26 128Z" },
  { view: "back", both: true, words: ["calf", "lower leg", ...LEG], path: "M5 177H21C23 198 18 216 15.500 230H7C6.500 215 2 198 5 177Z" },
  { view: "back", both: true, words: ["sole", "foot", "feet", "palms/soles", ...LEG], path: "M7 231H15.500L18 246C15 250 9 250 6.500 246Z" },
];
const MIDDLE = { front: 60, back: 180 };

/** Of a field's words, those that are places of the body, each with what is drawn for it. */
export function placesOf(words) {
  const known = new Set(words);
  const found = new Map();
  for (const place of PLACES) {
    const word = place.words.find((each) => known.has(each));
    if (word) found.set(word, [...(found.get(word) ?? []), place]);
  }
  return found;
}

/** Whether a field is one of body sites: most of its words can be shown on a body. */
export const isSite = (field) => field.kind === "choice" && placesOf(field.choices).size >= Math.max(2, field.choices.length / 2);

function shapes(place) {
  const side = (transform) => draw("path", { d: place.path, transform });
  const middle = MIDDLE[place.view];
  return [side(`translate(${middle} 2)`), ...(place.both ? [side(`translate(${middle} 2) scale(-1 1)`)] : [])];
}

/**
 * An outline that chooses a word of a select, and follows it.
 * It is a group of radio buttons: arrow keys move, blank and Enter choose, Delete takes back.
 */
export function bodyMap(field, name, select) {
  const places = placesOf(field.choices);
  const rest = PLACES.filter((place) => !place.words.some((word) => places.has(word))).flatMap(shapes);
  const buttons = [...places].map(([word, drawn]) => {
    const button = draw("g", { role: "radio", "aria-label": worded(word), "data-word": word }, ...drawn.flatMap(shapes));
    button.append(draw("title", {}, worded(word)));
    return button;
  });
  const map = draw("svg", { viewBox: "0 0 240 268", role: "radiogroup", "aria-label": texts.siteMap(name), class: "body" });
  const captions = [["front", texts.front], ["back", texts.behind]].map(([view, text]) =>
    draw("text", { x: MIDDLE[view], y: 264, "text-anchor": "middle", "aria-hidden": "true" }, text),
  );
  map.append(draw("g", { class: "rest", "aria-hidden": "true" }, ...rest), ...buttons, ...captions);
  const said = make("p", "said soft");

  function follow() {
    const chosen = buttons.find((button) => button.dataset.word === select.value);
    for (const button of buttons) {
      button.setAttribute("aria-checked", String(button === chosen));
      button.setAttribute("tabindex", button === (chosen ?? buttons[0]) ? "0" : "-1");
    }
    said.textContent = select.value ? worded(select.value) : texts.siteHint;
  }

  function choose(word) {
    select.value = word;
    select.dispatchEvent(new Event("input", { bubbles: true }));
    follow();
  }

  const of = (event) => event.target.closest("[role=radio]");
  map.addEventListener("click", (event) => {
    const button = of(event);
    if (button) choose(button.dataset.word === select.value ? "" : button.dataset.word);
  });
  map.addEventListener("pointerover", (event) => (said.textContent = of(event) ? worded(of(event).dataset.word) : said.textContent));
  map.addEventListener("pointerleave", follow);
  map.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const here = buttons.indexOf(of(event));
    if (step) {
      const next = buttons[(here + step + buttons.length) % buttons.length];
      choose(next.dataset.word);
      next.focus();
    } else if (event.key === " " || event.key === "Enter") choose(buttons[here].dataset.word);
    else if (event.key === "Delete" || event.key === "Backspace") choose("");
    else return;
    event.preventDefault();
  });
  select.addEventListener("input", follow);
  follow();
  const undrawn = field.choices.filter((word) => !places.has(word)).map(worded);
  const more = make("p", "soft");
  tell(more, undrawn.length ? texts.siteRest(undrawn.join(", ")) : "");
  return { place: make("div", "site", map, said, more), follow };
}
