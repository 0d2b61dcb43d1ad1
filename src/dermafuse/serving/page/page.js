// The page: images, what is given about them, and the panels that show the answers.

import { makePanel, showAnswer } from "./answer.js";
import { cardSections } from "./card.js";
import * as client from "./client.js";
import { at, make, tell } from "./dom.js";
import { fillForm, makeForm, readForm } from "./form.js";
import { texts } from "./language.js";

for (const place of document.querySelectorAll("[data-text]")) place.textContent = texts[place.dataset.text];

// An image that was looked at: { number, file, address, given, answer, stability, similar, asked, order }.
const state = { model: null, seen: [], first: null, second: null, count: 0, stability: true };
const panels = { first: makePanel(), second: makePanel() };

const trouble = (text) => tell(at("trouble"), text);
const status = (text) => (at("status").textContent = text);

// ---- the server goes and comes back

let timer = 0;

function failed(error, again) {
  status("");
  if (error instanceof client.Refused) {
    if (error.status === 401) at("key-form").hidden = false;
    trouble(error.message);
    return;
  }
  if (!(error instanceof TypeError)) throw error; // not the network: a fault of the page
  trouble(texts.gone);
  clearTimeout(timer);
  timer = setTimeout(() => whenBack(again), 2000);
}

async function whenBack(again) {
  if (!(await client.isReady())) {
    timer = setTimeout(() => whenBack(again), 2000);
    return;
  }
  trouble("");
  status(texts.back);
  again();
}

// ---- the model

async function start() {
  try {
    state.model = await client.readModel();
    trouble("");
    showModel(state.model);
    await showSamples();
  } catch (error) {
    failed(error, start);
  }
}

function showModel(model) {
  at("key-form").hidden = true;
  tell(at("model-line"), texts.modelLine(model.name, model.digest.slice(0, 12), model.released));
  tell(at("knows"), texts.knows(model.labels.map((label) => label.name)));
  const { images, lesions } = model.trained_on?.roles?.train ?? {};
  tell(at("learned"), images ? texts.learned(images, lesions) : "");
  const figures = Object.entries(texts.figures).filter(([key]) => Number.isFinite(model.metrics?.[key]));
  const measured = figures.map(([key, name]) => {
    const between = model.metrics.ci95?.[key]?.map(texts.percent);
    return texts.figure(name, texts.interval(texts.percent(model.metrics[key]), between));
  });
  tell(at("judged"), measured.length ? texts.judged(model.metrics.n, measured) : "");
  at("announcements").replaceChildren(...model.announcements.map((text) => make("li", "", text)));
  const sections = cardSections(model.card);
  at("card").replaceChildren(...(sections.length ? sections : [make("p", "", texts.noCard)]));
  at("fields").hidden = model.fields.length === 0;
  makeForm(at("inputs"), model.fields, () => {
    clearTimeout(pause);
    pause = setTimeout(predict, 60);
  });
}

async function showSamples() {
  const samples = await client.readSamples();
  const buttons = samples.map(async (sample) => {
    const content = await client.readSample(sample.number);
    const image = make("img");
    image.alt = sample.name;
    image.src = URL.createObjectURL(content);
    const button = make("button", "", image);
    button.type = "button";
    button.addEventListener("click", () => take([content]));
    return button;
  });
  at("samples").replaceChildren(...(await Promise.all(buttons)));
}

// ---- asking: one question at a time, and the newest next

let pause = 0;
let running = null;
let open = false;

function predict() {
  open = true;
  running ??= (async () => {
    while (open) {
      open = false;
      await askOnce();
    }
    running = null;
  })();
  return running;
}

async function askOnce() {
  const seen = state.first;
  if (!seen || !state.model) return;
  trouble("");
  const { values, wrong } = readForm();
  const most = state.model.limits.upload_bytes;
  const refused = seen.file.size > most - 4096 ? texts.tooLarge(texts.bytes(most)) : wrong;
  if (refused) {
    hide(seen, refused);
    return;
  }
  status(texts.asking);
  try {
    const answer = await client.explain(seen.file, values);
    Object.assign(seen, { answer, given: values, asked: new Date(), stability: null });
    status(texts.answered(answer.name, texts.percent(answer.probabilities[answer.label])));
    if (!state.seen.includes(seen)) state.seen.push(seen);
    showAll();
    clearTimeout(later);
    later = setTimeout(() => askMore(seen), 400);
  } catch (error) {
    if (error instanceof client.Refused) hide(seen, error.message);
    else failed(error, predict);
  }
}

// An old answer must not stand beside another image, or beside values that it does not know.
function hide(seen, why) {
  status("");
  trouble(why);
  if (!seen.answer) URL.revokeObjectURL(seen.address);
  panels.first.element.hidden = true;
}

// ---- what may take longer comes when nothing moves any more

let later = 0;

async function askMore(seen) {
  const { given, answer } = seen;
  const current = () => seen.answer === answer;
  try {
    if (state.stability) {
      const found = await client.stability(seen.file, given);
      state.stability = found !== null; // an older server does not know the word
      if (current()) seen.stability = found;
    }
    if (state.model.gallery && !seen.similar) {
      seen.similar = await client.similar(seen.file, given).catch((error) => {
        if (error instanceof client.Refused) return error.message;
        throw error;
      });
    }
  } catch (error) {
    if (!(error instanceof client.Refused || error instanceof TypeError)) throw error;
    return; // the answer stands; the next question says what is wrong with the server
  }
  if (current()) showAll();
}

// ---- the panels and the list

function showAll() {
  for (const name of ["first", "second"]) {
    const seen = state[name];
    const { element } = panels[name];
    if (seen?.answer) {
      showAnswer(panels[name], seen, state.model, showAll);
      if (!element.isConnected) at("results").append(element);
    }
    element.hidden = !seen?.answer;
  }
  at("results").classList.toggle("two", Boolean(state.second));
  at("looked-at").hidden = state.seen.length === 0;
  const buttons = () => [...at("cases").querySelectorAll("button")];
  const held = buttons().indexOf(document.activeElement); // whoever is in the list with the keyboard stays there
  at("cases").replaceChildren(...state.seen.map(entry));
  if (held >= 0) buttons()[held]?.focus();
}

function entry(seen) {
  const image = make("img");
  image.alt = "";
  image.src = seen.address;
  const words = make("span", "", make("strong", "", texts.caseTitle(seen.number)), " ", seen.answer.name, " ", texts.percent(seen.answer.probabilities[seen.answer.label]));
  const show = make("button", "show", image, words);
  const beside = make("button", "", texts.besideShort);
  beside.setAttribute("aria-label", texts.beside(seen.number));
  show.type = beside.type = "button";
  show.setAttribute("aria-current", String(seen === state.first));
  beside.disabled = seen === state.first || seen === state.second;
  show.addEventListener("click", () => {
    if (state.second === seen) state.second = null;
    state.first = seen;
    fillForm(seen.given);
    trouble("");
    showAll();
    at("cases").querySelector("[aria-current=true]").focus();
  });
  beside.addEventListener("click", () => {
    state.second = seen;
    showAll();
    panels.second.part("close").focus();
  });
  return make("li", "", show, beside);
}

function clear() {
  for (const seen of state.seen) URL.revokeObjectURL(seen.address);
  Object.assign(state, { seen: [], first: null, second: null, count: 0 });
  fillForm({});
  trouble("");
  status(texts.waiting);
  showAll();
  at("file").focus();
}

/** Take images: the last is shown, the one before it beside it. */
async function take(files) {
  let before = null;
  for (const file of files) {
    state.first = { number: ++state.count, file, address: URL.createObjectURL(file), given: {}, answer: null };
    state.second = before;
    panels.first.element.hidden = true;
    if (at("results").getBoundingClientRect().top > innerHeight * 0.7) at("results").scrollIntoView();
    const taken = state.first;
    await predict();
    before = taken.answer ? taken : null;
  }
}

function save(seen) {
  const { explanation, ...answer } = seen.answer;
  const similar = Array.isArray(seen.similar) ? seen.similar.map(({ thumbnail, ...rest }) => rest) : undefined;
  const kept = { asked: seen.asked.toISOString(), given: seen.given, ...answer, stability: seen.stability ?? undefined, similar, explanation };
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(kept, null, 2)], { type: "application/json" }));
  link.download = "dermafuse-answer.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- what a person does

for (const id of ["file", "camera"]) {
  at(id).addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // the same file can be chosen again
  });
}
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
at("fields").addEventListener("submit", (event) => event.preventDefault());
for (const [name, { part }] of Object.entries(panels)) {
  part("save").addEventListener("click", () => save(state[name]));
  part("print").addEventListener("click", () => window.print());
}
panels.second.part("close").hidden = false;
panels.second.part("close").addEventListener("click", () => {
  state.second = null;
  showAll();
  at("cases").querySelector("[aria-current=true]").focus();
});
at("clear").addEventListener("click", clear);
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  client.useKey(at("key").value.trim());
  start();
});
start();
