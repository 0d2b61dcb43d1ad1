// The model card: Markdown as dermafuse writes it (headings, lists, tables, bold, code), made into elements.

import { make } from "./dom.js";

// What everybody should see without a click; titles as the card has them.
const OPEN = new Set(["Intended use", "Data", "Limitations"]);

function inline(text) {
  return text.split(/(\*\*[^*]+\*\*|`[^`]+`)/).map((piece) => {
    if (piece.startsWith("**")) return make("strong", "", ...inline(piece.slice(2, -2)));
    return piece.startsWith("`") ? make("code", "", piece.slice(1, -1)) : piece;
  });
}

const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

function table(lines) {
  const row = (tag) => (line) => make("tr", "", ...cells(line).map((cell) => make(tag, "", ...inline(cell))));
  const body = lines.slice(2).map(row("td"));
  const scrolled = make("div", "scrolled", make("table", "", make("thead", "", row("th")(lines[0])), make("tbody", "", ...body)));
  scrolled.tabIndex = 0; // it may be wider than a phone
  scrolled.setAttribute("role", "group");
  scrolled.setAttribute("aria-label", cells(lines[0]).join(", "));
  return scrolled;
}

function block(lines) {
  if (lines[0].startsWith("### ")) return [make("h4", "", lines[0].slice(4)), ...(lines.length > 1 ? block(lines.slice(1)) : [])];
  if (lines[0].startsWith("|")) return [table(lines)];
  if (lines[0].startsWith("- ")) return [make("ul", "", ...lines.map((line) => make("li", "", ...inline(line.replace(/^- /, "")))))];
  return [make("p", "", ...inline(lines.join(" ")))];
}

const blocks = (text) => text.split(/\n\s*\n/).map((each) => each.trim()).filter(Boolean).flatMap((each) => block(each.split("\n")));

/** Return the sections of a card: what it is for, its data and limits open, the rest to be opened. */
export function cardSections(card) {
  const [, ...sections] = `\n${card}`.split(/\n## /);
  const made = sections.map((section) => {
    const [title, ...rest] = section.split("\n");
    return { title: title.trim(), inside: blocks(rest.join("\n")) };
  });
  const known = made.some(({ title }) => OPEN.has(title));
  const open = made.filter(({ title }) => !known || OPEN.has(title)).map(({ title, inside }) => make("section", "", make("h3", "", title), ...inside));
  const closed = made.filter(({ title }) => known && !OPEN.has(title)).map(({ title, inside }) => make("details", "", make("summary", "", title), ...inside));
  return [...open, ...closed];
}
