// Shows /openapi.json as text; every value goes in as text, never as markup.

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function table(heads, rows) {
  const head = element("tr", "", ...heads.map((name) => element("th", name)));
  const body = rows.map((cells) => element("tr", "", ...cells.map((cell) => element("td", cell))));
  return element("table", "", element("thead", "", head), element("tbody", "", ...body));
}

function bodyOf(operation) {
  const content = operation.requestBody?.content ?? {};
  return Object.entries(content).flatMap(([media, { schema }]) => {
    const rows = Object.entries(schema?.properties ?? {}).map(([name, property]) => [
      name + (schema.required?.includes(name) ? " (needed)" : ""),
      property.type ?? "",
      property.description ?? property.items?.description ?? "",
    ]);
    const title = element("h3", `Body: ${media}`);
    return rows.length ? [title, table(["part", "type", "what"], rows)] : [title];
  });
}

function routeOf(path, method, operation) {
  const parts = [element("h2", `${method.toUpperCase()} ${path}`), element("p", operation.description || operation.summary)];
  const parameters = (operation.parameters ?? []).map((p) => [p.name, p.in, String(p.schema?.default ?? "")]);
  if (parameters.length) parts.push(element("h3", "Parameters"), table(["name", "in", "default"], parameters));
  parts.push(...bodyOf(operation));
  const answers = Object.entries(operation.responses ?? {}).map(([status, r]) => [
    status,
    r.description,
    Object.keys(r.content ?? {}).join(", "),
  ]);
  parts.push(element("h3", "Answers"), table(["status", "what", "as"], answers));
  const section = element("section", "", ...parts);
  section.tabIndex = 0; // its tables may be wider than a phone, and then it scrolls
  section.setAttribute("aria-label", `${method.toUpperCase()} ${path}`);
  return section;
}

const place = document.getElementById("routes");
try {
  const description = await (await fetch("/openapi.json")).json();
  const routes = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => routeOf(path, method, operation)),
  );
  place.replaceChildren(...routes);
} catch {
  place.textContent = "The server does not answer; reload the page when it is back.";
}
