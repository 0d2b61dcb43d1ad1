// The page: asks /v1 of the server it came from, and nobody else. What it shows goes in as text, never as markup.

import { texts } from "./texts.js";

const at = (id) => document.getElementById(id);
const state = { file: null, model: null, key: "", turn: 0, address: "", answer: null, given: {}, timer: 0 };

for (const place of document.querySelectorAll("[data-text]")) place.textContent = texts[place.dataset.text];

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const called = (name) => texts.names[name] ?? name;

// ---- the server

class Refused extends Error {}

async function ask(path, options = {}) {
  const headers = state.key ? { Authorization: `Bearer ${state.key}` } : {};
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  if (answer.status === 401) at("key-form").hidden = false;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(problem.detail ?? problem.error ?? `${answer.status}`);
}

function trouble(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = !text;
}

function failed(error, again) {
  if (error.name === "AbortError") return;
  at("status").textContent = "";
  if (error instanceof Refused) {
    trouble(error.message);
    return;
  }
  trouble(texts.gone);
  clearTimeout(state.timer);
  state.timer = setTimeout(() => whenBack(again), 2000);
}

async function whenBack(again) {
  try {
    if (!(await fetch("/v2/health/ready")).ok) throw new TypeError();
  } catch {
    state.timer = setTimeout(() => whenBack(again), 2000);
    return;
  }
  trouble("");
  at("status").textContent = texts.back;
  again();
}

// ---- the model and its form

async function start() {
  try {
    state.model = await (await ask("/v1/model")).json();
    const { samples } = await (await ask("/v1/samples")).json();
    trouble("");
    showModel(state.model);
    await showSamples(samples);
  } catch (error) {
    failed(error, start);
  }
}

function showModel(model) {
  at("key-form").hidden = true;
  at("model-line").textContent = texts.modelLine(model.name, model.digest.slice(0, 12), model.released);
  at("announcements").replaceChildren(...model.announcements.map((text) => make("li", "", text)));
  at("card").textContent = model.card;
  at("fields").hidden = model.fields.length === 0;
  at("inputs").replaceChildren(...model.fields.map(inputOf));
}

function inputOf(field) {
  const label = make("label");
  const unit = field.unit ? ` (${texts[field.unit] ?? field.unit})` : "";
  label.append(make("span", "", called(field.name) + unit));
  const input = make(field.kind === "choice" ? "select" : "input");
  input.name = field.name;
  if (field.kind === "choice") {
    const open = make("option", "", texts.notKnown);
    open.value = "";
    input.append(open, ...field.choices.map((word) => make("option", "", word)));
  } else {
    input.type = "number";
    input.step = "any";
    input.placeholder = texts.notKnown;
    if ("least" in field) Object.assign(input, { min: field.least, max: field.most });
  }
  label.append(input);
  return label;
}

async function showSamples(samples) {
  const buttons = await Promise.all(
    samples.map(async (sample) => {
      const content = await (await ask(`/v1/samples/${sample.number}`)).blob();
      const button = make("button");
      button.type = "button";
      const image = make("img");
      image.alt = sample.name;
      image.src = URL.createObjectURL(content);
      button.append(image);
      button.addEventListener("click", () => take(content));
      return button;
    }),
  );
  at("samples").replaceChildren(...buttons);
}

// ---- asking

let running = null;

function take(file) {
  state.file = file;
  URL.revokeObjectURL(state.address);
  state.address = URL.createObjectURL(file);
  at("result").hidden = true;
  predict();
}

async function predict() {
  if (!state.file || !state.model) return;
  clearTimeout(state.turn);
  running?.abort();
  running = new AbortController();
  trouble("");
  const most = state.model.limits.upload_bytes;
  if (state.file.size > most - 4096) {
    at("status").textContent = "";
    trouble(texts.tooLarge(Math.floor(most / 2 ** 20)));
    return;
  }
  at("status").textContent = texts.asking;
  const form = new FormData();
  form.append("image", state.file, "image"); // the file's own name stays here
  for (const input of at("inputs").querySelectorAll("input, select")) {
    if (!input.checkValidity()) {
      at("status").textContent = "";
      trouble(`${called(input.name)}: ${input.validationMessage}`);
      return;
    }
    if (input.value !== "") form.append(input.name, input.value);
  }
  try {
    const options = { method: "POST", body: form, signal: running.signal };
    const given = Object.fromEntries([...form].filter(([name]) => name !== "image"));
    show(await (await ask("/v1/predict?explain=true", options)).json(), given);
  } catch (error) {
    if (error instanceof Refused) at("result").hidden = true; // an old answer must not stand beside another image
    failed(error, predict);
  }
}

// ---- the answer

function show(answer, given) {
  state.answer = answer;
  state.given = given;
  const names = Object.fromEntries(state.model.labels.map((label) => [label.code, label.name]));
  at("result").hidden = false;
  at("status").textContent = texts.answered;
  at("strange").hidden = answer.out_of_distribution !== true;
  at("strange").textContent = texts.strange;
  at("headline").textContent = texts.headline(answer.name, percent(answer.probabilities[answer.label]));
  at("set").textContent = answer.prediction_set_text ?? "";
  const malignant = answer.malignant_probability;
  at("malignant").textContent = malignant === null ? "" : texts.malignant(percent(malignant));
  const notes = [...(answer.notes ?? []), ...(answer.explanation.notes ?? [])];
  if (answer.missing.length) notes.push(texts.missing(answer.missing.map(called).join(", ")));
  at("notes").replaceChildren(...notes.map((text) => make("li", "", text)));
  showPicture(answer.explanation, names);
  showBars(answer);
  showShares(answer.explanation, names);
}

function showPicture(explanation, names) {
  const image = at("shown");
  image.alt = texts.shownAlt;
  image.onerror = () => (image.alt = texts.noPreview);
  if (image.src !== state.address) image.src = state.address;
  const rows = explanation.heatmap;
  const empty = rows.every((row) => row.every((value) => value === 0));
  at("heat-text").textContent = (empty ? texts.noHeat : texts.heat)(names[explanation.target]);
  const canvas = at("heat");
  // Drawn large and smooth: stretched by hand, as browsers differ in how they enlarge a canvas of 7x7.
  canvas.width = canvas.height = 224;
  const pen = canvas.getContext("2d");
  const picture = pen.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const heat = between(rows, (y + 0.5) / canvas.height, (x + 0.5) / canvas.width);
      picture.data.set([...inferno(heat), Math.round(255 * heat)], 4 * (y * canvas.width + x));
    }
  }
  pen.putImageData(picture, 0, 0);
  canvas.style.opacity = at("opacity").value / 100;
}

// The heatmap at a place 0..1, 0..1, bilinear, pixel centres half-way.
function between(rows, down, across) {
  const [y, x] = [down * rows.length - 0.5, across * rows[0].length - 0.5];
  const clamp = (value, length) => Math.min(Math.max(value, 0), length - 1);
  const [top, left] = [Math.floor(y), Math.floor(x)];
  let total = 0;
  for (const [row, weight] of [[top, 1 - (y - top)], [top + 1, y - top]]) {
    for (const [column, share] of [[left, 1 - (x - left)], [left + 1, x - left]]) {
      total += weight * share * rows[clamp(row, rows.length)][clamp(column, rows[0].length)];
    }
  }
  return total;
}

// Anchors of the "inferno" colour scale (van der Walt & Smith, CC0), as in the picture that `explain` writes.
const ANCHORS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

function inferno(value) {
  const place = Math.min(Math.max(value, 0), 1) * (ANCHORS.length - 1);
  const low = Math.min(Math.floor(place), ANCHORS.length - 2);
  return ANCHORS[low].map((start, channel) => start + (place - low) * (ANCHORS[low + 1][channel] - start));
}

function row(name, number, left, width, className, mark) {
  const item = make("li", className);
  const words = make("span", "", name);
  if (mark) words.append(" ", make("span", "mark", mark));
  const track = make("span", "track");
  const fill = make("span", "fill");
  fill.style.left = `${100 * left}%`;
  fill.style.width = `${100 * width}%`;
  track.append(fill);
  item.append(words, track, make("span", "number", number));
  return item;
}

function showBars(answer) {
  const ranked = [...state.model.labels].sort((a, b) => answer.probabilities[b.code] - answer.probabilities[a.code]);
  at("bars").replaceChildren(
    ...ranked.map(({ code, name, malignant }) => {
      const share = answer.probabilities[code];
      return row(name, percent(share), 0, share, code === answer.label ? "chosen" : "", malignant ? texts.malignantMark : "");
    }),
  );
}

function showShares(explanation, names) {
  const shares = Object.entries(explanation.attributions[explanation.target] ?? {});
  at("why").hidden = shares.length === 0;
  if (!shares.length) return;
  const [base, share] = [explanation.baseline, explanation.prediction.probabilities].map((all) => all[explanation.target]);
  at("why-title").textContent = texts.whyTitle(names[explanation.target]);
  // Explanations are computed in full precision, predictions in that of the processor.
  const rounded = Math.abs(share - state.answer.probabilities[explanation.target]) >= 0.0005;
  at("why-text").textContent = texts.whyText(percent(base), percent(share)) + (rounded ? ` ${texts.precision}` : "");
  const widest = Math.max(...shares.map(([, value]) => Math.abs(value))) || 1;
  at("shares").replaceChildren(
    ...shares.map(([player, value]) => {
      const width = (0.5 * Math.abs(value)) / widest;
      const signed = `${value < 0 ? "−" : "+"}${(100 * Math.abs(value)).toFixed(1)}`;
      const name = player === "image" ? texts.image : called(player);
      return row(name, texts.points(signed), value < 0 ? 0.5 - width : 0.5, width, value < 0 ? "against" : "for");
    }),
  );
}

// ---- what a person does

for (const id of ["file", "camera"]) {
  at(id).addEventListener("change", (event) => {
    if (event.target.files[0]) take(event.target.files[0]);
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
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) take(file);
});
at("fields").addEventListener("submit", (event) => event.preventDefault());
at("fields").addEventListener("input", () => {
  clearTimeout(state.turn);
  state.turn = setTimeout(predict, 150);
});
at("opacity").addEventListener("input", () => (at("heat").style.opacity = at("opacity").value / 100));
at("save").addEventListener("click", () => {
  const { explanation, ...answer } = state.answer;
  const kept = { asked: new Date().toISOString(), given: state.given, ...answer, explanation };
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(kept, null, 2)], { type: "application/json" }));
  link.download = "dermafuse-answer.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
at("print").addEventListener("click", () => window.print());
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = at("key").value.trim();
  start();
});
start();
