// Making elements. What is shown goes in as text, never as markup.

export const at = (id) => document.getElementById(id);

export function make(tag, className, ...inside) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...inside.filter((each) => each !== "" && each !== null && each !== undefined));
  return made;
}

export function draw(tag, attributes, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

/** A paragraph (or other place) that is there only where it says something. */
export function tell(place, text) {
  place.textContent = text ?? "";
  place.hidden = !text;
}

/** One bar of a list: name, track with a fill from `left`, `width` wide (both 0..1), figure. */
export function bar({ name, figure, left = 0, width, className = "", mark = "" }) {
  const fill = make("span", "fill");
  fill.style.left = `${100 * left}%`;
  fill.style.width = `${100 * width}%`;
  const words = make("span", "", name);
  if (mark) words.append(" ", make("span", "mark", mark));
  return make("li", className, words, make("span", "track", fill), make("span", "number", figure));
}
