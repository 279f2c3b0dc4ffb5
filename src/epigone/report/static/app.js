"use strict";
(() => {
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
  const specs = JSON.parse(document.getElementById("chart-data").textContent);
  const views = [];
  const charts = Object.entries(specs).map(([id, spec]) =>
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
})();
