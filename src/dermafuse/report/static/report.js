"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Theme: follows the system until the button is pressed.
  const store = { get: () => { try { return localStorage.getItem("dermafuse-theme"); } catch { return null; } },
                  set: (value) => { try { localStorage.setItem("dermafuse-theme", value); } catch { /* file: pages */ } } };
  const button = document.querySelector(".theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(store.get())) root.dataset.theme = store.get();
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; store.set(root.dataset.theme); name(); });
  name();

  // Values on hover, focus and touch; a series under the pointer stands out.
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("role", "status");
  document.body.append(tip);
  const show = (target, x, y) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - box.width - 6))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  };
  document.addEventListener("pointermove", (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (target) show(target, event.clientX, event.clientY); else tip.hidden = true;
  });
  // What words mean: the browser's own tip stays hidden from the keyboard and from touch.
  for (const word of all("abbr[title], th button[title]")) {
    word.dataset.tip = word.title;
    word.setAttribute("aria-description", word.title);
    word.removeAttribute("title");
  }
  document.addEventListener("focusin", (event) => {
    const target = event.target.closest?.("[data-tip]");
    if (!target) { tip.hidden = true; return; }
    const box = target.getBoundingClientRect();
    show(target, box.left - 14, box.bottom - 12);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  for (const svg of all("figure svg")) {
    const series = all("[data-series]", svg);
    if (new Set(series.map((shape) => shape.dataset.series)).size < 2) continue;
    svg.addEventListener("pointerover", (event) => {
      const target = event.target.closest("[data-series]");
      svg.classList.toggle("focus", Boolean(target));
      for (const shape of series) shape.classList.toggle("lit", Boolean(target) && shape.dataset.series === target.dataset.series);
    });
    svg.addEventListener("pointerleave", () => svg.classList.remove("focus"));
  }

  // Tables sort by a click on a heading: numbers by value, texts by letter.
  for (const table of all("table.sortable")) {
    all("th button", table).forEach((heading) => heading.addEventListener("click", () => {
      const cell = heading.closest("th"), column = cell.cellIndex, body = table.tBodies[0];
      const value = (row) => row.cells[column].dataset.order ?? row.cells[column].textContent.trim();
      const numeric = cell.classList.contains("n") || all("tr", body).every((row) => value(row) !== "" && !isNaN(value(row)));
      const rising = cell.getAttribute("aria-sort") === "descending" || (!cell.hasAttribute("aria-sort") && !numeric);
      all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const sign = rising ? 1 : -1;
      all("tr", body)
        .sort((a, b) => sign * (numeric ? value(a) - value(b) : value(a).localeCompare(value(b), "en", { numeric: true })))
        .forEach((row) => body.append(row));
    }));
  }

  for (const field of all(".numbers input[name=filter]")) {
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      for (const row of all("tbody tr", field.closest(".numbers"))) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }

  // What a threshold would do. Counts come from the page; PPV and NPV follow the prevalence (Bayes).
  for (const explorer of all(".explorer")) {
    const targets = JSON.parse(explorer.querySelector("script").textContent);
    const [target, threshold, prevalence] = ["target", "threshold", "prevalence"].map((key) => explorer.querySelector(`[name=${key}]`));
    const write = (key, text) => { explorer.querySelector(`[data-read=${key}]`).textContent = text; };
    const share = (value) => Number.isFinite(value) ? `${(100 * value).toFixed(1)}%` : "–";
    const svg = explorer.parentElement.querySelector("figure svg");
    const line = svg && document.createElementNS("http://www.w3.org/2000/svg", "line");
    if (line) { line.setAttribute("class", "s-ink"); line.setAttribute("stroke-width", "1.6"); svg.append(line); }
    const update = () => {
      const chosen = targets[target.value], [level, hits, alarms] = chosen.points[threshold.value];
      const sensitivity = hits / chosen.positives, specificity = 1 - alarms / (chosen.n - chosen.positives);
      const share_ill = prevalence.value / 100;
      const caught = sensitivity * share_ill, alarmed = (1 - specificity) * (1 - share_ill);
      const clear = specificity * (1 - share_ill), missed = (1 - sensitivity) * share_ill;
      write("threshold", level.toFixed(4)); write("prevalence", `${Number(prevalence.value).toFixed(1)}%`);
      write("sensitivity", share(sensitivity)); write("specificity", share(specificity));
      write("ppv", share(caught / (caught + alarmed))); write("npv", share(clear / (clear + missed)));
      write("flagged", share(caught + alarmed));
      write("nnb", caught > 0 ? ((caught + alarmed) / caught).toFixed(1) : "–");
      if (line) {
        const [left, top, width, height] = explorer.dataset.frame.split(" ").map(Number);
        const x = left + width * Math.min(1, level), visible = target.value === "malignant";
        const places = { x1: x, x2: x, y1: top, y2: top + height, opacity: visible ? 1 : 0 };
        for (const [key, value] of Object.entries(places)) line.setAttribute(key, value);
      }
    };
    const reset = () => {
      const chosen = targets[target.value];
      threshold.max = chosen.points.length - 1;
      // Start where nine in ten are caught.
      const start = chosen.points.findLastIndex(([, hits]) => hits >= 0.9 * chosen.positives);
      threshold.value = Math.max(0, start);
      prevalence.value = 100 * chosen.positives / chosen.n;
      update();
    };
    target.addEventListener("change", reset);
    for (const slider of [threshold, prevalence]) slider.addEventListener("input", update);
    explorer.hidden = false;
    reset();
  }

  // A closed block stays closed in print unless it is opened first.
  let opened = [];
  addEventListener("beforeprint", () => { opened = all("section:not(#numbers) details:not([open])"); opened.forEach((block) => { block.open = true; }); });
  addEventListener("afterprint", () => { opened.forEach((block) => { block.open = false; }); });
})();
