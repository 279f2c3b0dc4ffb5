"use strict";
(() => {
  const data = (id) => JSON.parse(document.getElementById(id).textContent);

  // The interpreter (`ast`) evaluates Vega's expressions without eval, which the policy forbids.
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true,
    defaultStyle: false,
    tooltip: { disableDefaultStyle: true, theme: "custom" },
  };
  const failed = (id, error) => {
    const place = document.getElementById(id);
    place.textContent = "This chart could not be drawn; the tables hold its numbers.";
    console.error(id, error);
  };
  const views = [];
  const charts = Object.entries(data("chart-data")).map(([id, spec]) =>
    vegaEmbed("#" + id, spec, options)
      .then((result) => views.push(result.view))
      .catch((error) => failed(id, error)));
  Promise.all(charts).then(() => { document.documentElement.dataset.charts = "done"; });

  // A name in a legend switches its line off in every chart that has it.
  const hidden = new Set();
  const toggles = document.querySelectorAll("button.toggle");
  const toggle = (line) => {
    if (!hidden.delete(line)) hidden.add(line);
    for (const button of toggles) {
      button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.line))));
    }
    for (const view of views) {
      if (view.getState({ signals: (name) => name === "hidden" }).signals.hidden) {
        view.signal("hidden", [...hidden]).runAsync();
      }
    }
  };
  for (const button of toggles) {
    button.disabled = false;
    button.addEventListener("click", () => toggle(Number(button.dataset.line)));
  }
  // Paper cannot open them.
  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });

  const samples = data("sample-data");
  const view = document.getElementById("sample-view");
  if (!view || samples.items.length === 0) return;
  const pick = document.getElementById("sample-item");
  const base = document.getElementById("sample-base");

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const option = (value, text) => {
    const made = element("option", "", text);
    made.value = value;
    return made;
  };
  const written = (text) => {
    const made = element("div", text ? "text" : "text none", text || "(empty)");
    made.dir = "auto";
    made.tabIndex = 0;
    return made;
  };
  const column = (entry, className) => {
    const made = element("article", "output " + className);
    const head = element("h4", "", "");
    head.append(element("bdi", "", entry.model), element("span", "tag", entry.tag));
    head.title = entry.title;
    made.append(head, written(entry.text));
    if (entry.stop) made.append(element("p", "stop", entry.stop));
    return made;
  };
  const show = () => {
    const item = samples.items[Number(pick.value)];
    const prompt = element("div", "prompt");
    for (const [role, text] of item.prompt) prompt.append(element("h4", "", role), written(text));
    const grid = element("div", "outputs");
    if (item.teacher) grid.append(column(item.teacher, "teacher"));
    else grid.append(element("p", "notice small", "The teacher's answer is not known."));
    for (const output of item.outputs) {
      if (base.value === "" || samples.bases[Number(base.value)] === output.model) {
        grid.append(column(output, output.tag === "untrained" ? "untrained" : "student"));
      }
    }
    view.replaceChildren(prompt, grid);
  };
  const move = (by) => {
    const n = samples.items.length;
    pick.value = String((Number(pick.value) + by + n) % n);
    show();
  };

  samples.items.forEach((item, k) => {
    const said = item.prompt.length ? item.prompt[item.prompt.length - 1][1] : item.id;
    const line = said.replace(/\s+/g, " ").trim();
    pick.append(option(k, `${k + 1}. ${line.length > 80 ? line.slice(0, 80) + "…" : line}`));
  });
  base.append(option("", "all bases"));
  samples.bases.forEach((name, k) => base.append(option(k, name)));
  base.parentElement.hidden = samples.bases.length < 2;
  if (samples.bases.length > 1) base.value = "0";
  pick.addEventListener("change", show);
  base.addEventListener("change", show);
  document.getElementById("sample-previous").addEventListener("click", () => move(-1));
  document.getElementById("sample-next").addEventListener("click", () => move(1));
  document.getElementById("sample-controls").hidden = false;
  show();
})();
