// The form: what it asks for is what the model knows of a patient.

import { bodyMap, isSite } from "./body.js";
import { make } from "./dom.js";
import { called, texts, worded } from "./language.js";

let inputs = [];

/** Make the form of a model's fields; `changed` is called after every change. */
export function makeForm(place, fields, changed) {
  inputs = [];
  const site = fields.find(isSite);
  place.replaceChildren(...fields.map((field) => (field.kind === "choice" ? choiceOf(field, field === site) : numberOf(field))));
  place.oninput = changed;
}

function choiceOf(field, drawn) {
  const select = make("select");
  select.name = field.name;
  const open = make("option", "", texts.notKnown);
  open.value = "";
  const options = field.choices.map((word) => {
    const option = make("option", "", worded(word));
    option.value = word;
    return option;
  });
  select.append(open, ...options);
  const input = { name: field.name, element: select, follow: () => {} };
  inputs.push(input);
  const label = make("label", "", make("span", "", called(field.name)), select);
  if (!drawn) return label;
  const map = bodyMap(field, called(field.name), select);
  input.follow = map.follow;
  return make("div", "field", label, map.place);
}

function numberOf(field) {
  const unit = field.unit ? ` (${texts[field.unit] ?? field.unit})` : "";
  const input = make("input");
  Object.assign(input, { type: "number", name: field.name, step: "any", placeholder: texts.notKnown });
  const label = make("label", "", make("span", "", called(field.name) + unit), input);
  const known = { name: field.name, element: input, follow: () => {} };
  inputs.push(known);
  if (!("least" in field)) return label;
  Object.assign(input, { min: field.least, max: field.most });
  const slider = make("input");
  Object.assign(slider, { type: "range", min: field.least, max: field.most, step: 1 });
  slider.setAttribute("aria-label", texts.slider(called(field.name)));
  known.follow = () => {
    slider.value = input.value === "" ? field.mean : input.value;
    slider.classList.toggle("open", input.value === "");
    slider.setAttribute("aria-valuetext", input.value === "" ? texts.notKnown : input.value);
  };
  slider.addEventListener("input", () => {
    input.value = slider.value;
    known.follow();
  });
  input.addEventListener("input", known.follow);
  known.follow();
  return make("div", "field", label, slider);
}

/** What is given: { values: {name: text} }, or { wrong: a sentence } where a value cannot be one. */
export function readForm() {
  const values = {};
  for (const { name, element } of inputs) {
    if (!element.checkValidity()) return { wrong: texts.wrongField(called(name), element.validationMessage) };
    if (element.value !== "") values[name] = element.value;
  }
  return { values };
}

/** Put the values of another image into the form. */
export function fillForm(values) {
  for (const { name, element, follow } of inputs) {
    element.value = values[name] ?? "";
    follow();
  }
}
