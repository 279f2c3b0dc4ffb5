"use strict";
(() => {
  const data = JSON.parse(document.getElementById("sample-data").textContent);
  const part = (name) => document.getElementById("sample-" + name);
  const view = part("view");
  if (!view || data.items.length === 0) return;
  const [search, source, base, order, pick] =
    ["search", "source", "base", "order", "item"].map(part);
  const kinds = [...document.querySelectorAll("[name=sample-kind]")];
  const lower = data.texts.map((text) => text.toLowerCase());
  const numbers = new Map(data.items.map((item, k) => [item.id, k]));
  const names = new Map(data.kinds);
  // More columns than these are one base's to begin with.
  const MANY = 9;
  let matches = [];
  let current = 0;

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
  const query = () => search.value.trim().toLowerCase();
  const kind = () => Number((kinds.find((k) => k.checked) || { value: 0 }).value);
  const model = (output) => data.models[output[0]];
  const rest = (output) => output[2] || {};
  const shown = (item) => item.outputs.filter((o) => base.value === "" ||
    model(o).base === undefined || model(o).base === Number(base.value));
  const mean = (item, what) => {
    const values = shown(item).filter((o) => model(o).role === "student")
      .map((o) => rest(o)[what]).filter((v) => v !== undefined);
    return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
  };

  const said = (item) => {
    const last = item.prompt[item.prompt.length - 1];
    const line = (last ? data.texts[last[1]] : item.id).replace(/\s+/g, " ").trim();
    return line.length > 80 ? line.slice(0, 80) + "…" : line || item.id;
  };
  const holds = (item, found) => item.id.toLowerCase().includes(query()) ||
    found[item.reference] || item.prompt.some(([, t]) => found[t]) ||
    shown(item).some((o) => found[o[1]]);
  const has = (item, bit) => shown(item).some((o) => rest(o).found & bit);

  const sorted = (chosen) => {
    const what = order.value.slice(0, -1);
    if (!what) return chosen;
    const sign = order.value.endsWith("-") ? -1 : 1;
    const by = new Map(chosen.map((k) => [k, mean(data.items[k], what)]));
    // What has no such value comes last in either order.
    return chosen.sort((a, b) => (by.get(a) === null) - (by.get(b) === null) ||
      sign * (by.get(a) - by.get(b)) || a - b);
  };
  const filter = () => {
    const asked = query();
    const found = lower.map((text) => text.includes(asked));
    const near = data.items.map((_, k) => k).filter((k) => {
      const item = data.items[k];
      return (source.value === "" || item.source === Number(source.value)) &&
        (!asked || holds(item, found));
    });
    for (const input of kinds) {
      const bit = Number(input.value);
      if (bit === 0) continue;
      const n = near.filter((k) => has(data.items[k], bit)).length;
      input.nextElementSibling.lastElementChild.textContent = n;
      input.disabled = n === 0 && !input.checked;
    }
    const bit = kind();
    matches = sorted(bit ? near.filter((k) => has(data.items[k], bit)) : near);
    pick.replaceChildren(...matches.map((k, n) => option(k, `${n + 1}. ${said(data.items[k])}`)));
  };

  // A search is marked where its letters stand as they were written.
  const lit = (place, text) => {
    const asked = query();
    const low = text.toLowerCase();
    if (!asked || low.length !== text.length || !low.includes(asked)) {
      place.textContent = text;
      return;
    }
    let from = 0;
    for (let at = low.indexOf(asked); at >= 0; at = low.indexOf(asked, from)) {
      place.append(text.slice(from, at), element("mark", "", text.slice(at, at + asked.length)));
      from = at + asked.length;
    }
    place.append(text.slice(from));
  };
  const written = (number, label) => {
    const text = data.texts[number];
    const made = element("div", text ? "text" : "text none");
    lit(made, text || "(empty)");
    made.dir = "auto";
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", label);
    const more = data.more[number];
    if (!more) return [made];
    return [made, element("p", "stop", `… ${more.toLocaleString("en")} more characters in samples.csv`)];
  };
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  const chips = (told) => {
    const made = element("p", "chips");
    if (told.right !== undefined) {
      made.append(element("span", "chip " + (told.right ? "up" : "down"), told.right ? "right" : "wrong"));
    }
    if (told.found & 1) made.append(element("span", "chip missing", names.get(1)));
    if (told.style !== undefined) made.append(element("span", "chip", "style " + signed(told.style)));
    return made.childNodes.length ? [made] : [];
  };
  const scores = (told) => {
    const list = element("dl");
    const row = (name, value) => {
      const made = element("div");
      made.append(element("dt", "", name), element("dd", "num", value));
      list.append(made);
    };
    for (const [rater, win] of told.won || []) {
      row(`preferred by ${rater}`, win > 0.5 ? "this" : win < 0.5 ? "the teacher's" : "neither");
    }
    const values = told.scores || [];
    // The one score of a benchmark's item is that it is right or wrong.
    if (values.length === 2 && told.right !== undefined && !told.won) return [];
    for (let k = 0; k < values.length; k += 2) {
      row(data.metrics[values[k]], String(values[k + 1]).replace("-", "−"));
    }
    if (!list.childNodes.length) return [];
    const made = element("details", "marks");
    made.append(element("summary", "", "Scores of this answer"), list);
    return [made];
  };
  const column = (output) => {
    const who = model(output);
    const told = rest(output);
    const made = element("article", "output " + who.role);
    if (kind() & told.found) made.classList.add("found");
    const head = element("h4");
    head.append(element("bdi", "", who.name), element("bdi", "tag", who.tag));
    head.title = who.title || who.name;
    made.append(head, ...chips(told), ...written(output[1], `Answer of ${who.name}, ${who.tag}`));
    if (told.note) made.append(element("p", "stop", told.note));
    made.append(...scores(told));
    return made;
  };
  const show = () => {
    const at = matches.indexOf(current);
    const n = matches.length;
    const item = data.items[current];
    part("unknown").hidden = true;
    part("link").hidden = at < 0;
    part("previous").disabled = part("next").disabled = n < 2;
    pick.disabled = n === 0;
    if (at < 0) {
      part("count").textContent = "No example is like that.";
      view.replaceChildren();
      return;
    }
    pick.value = String(current);
    part("link").href = "#example=" + encodeURIComponent(item.id);
    part("count").textContent = `Example ${at + 1} of ${n}`;
    const prompt = element("div", "prompt");
    const title = element("h3", "", data.sources[item.source] + " · ");
    title.append(element("bdi", "", item.id));
    for (const [role, number] of item.prompt) {
      prompt.append(element("h4", "", role), ...written(number, `Prompt, ${role}`));
    }
    if (!item.prompt.length) prompt.append(element("p", "dim", "The question was not kept."));
    if (item.reference !== undefined) {
      prompt.append(element("h4", "", "right answer"), ...written(item.reference, "Right answer"));
    }
    const grid = element("div", "outputs");
    const first = (o) => (model(o).role === "student" && !(rest(o).found & kind()) ? 1 : 0);
    const columns = shown(item).map((o, k) => [o, k]).sort((a, b) => model(a[0]).role === "teacher" ? -1 :
      model(b[0]).role === "teacher" ? 1 : (kind() ? first(a[0]) - first(b[0]) : 0) ||
      a[0][0] - b[0][0] || a[1] - b[1]);
    if (item.reference === undefined && !item.outputs.some((o) => model(o).role === "teacher")) {
      grid.append(element("p", "notice small", "The teacher's answer is not known."));
    }
    grid.append(...columns.map(([output]) => column(output)));
    view.replaceChildren(title, prompt, grid);
    // The keyboard can scroll what does not fit, and only that.
    for (const text of view.querySelectorAll(".text")) {
      if (text.scrollHeight > text.clientHeight) text.tabIndex = 0;
    }
  };

  const linked = () => {
    const told = location.hash.match(/^#example=(.*)$/s);
    if (!told) return null;
    try {
      return decodeURIComponent(told[1]);
    } catch {
      return told[1];
    }
  };
  const go = (number) => {
    location.hash = "example=" + encodeURIComponent(data.items[number].id);
  };
  const move = (by) => {
    const n = matches.length;
    if (n) go(matches[(matches.indexOf(current) + by + n) % n]);
  };
  const refresh = () => {
    filter();
    if (!matches.includes(current) && matches.length) current = matches[0];
    show();
    // Of all that is typed only where it ends is worth a step back.
    if (linked() !== null && matches.length) {
      history.replaceState(null, "", "#example=" + encodeURIComponent(data.items[current].id));
    }
  };
  const clear = () => {
    search.value = source.value = base.value = "";
    if (kinds.length) kinds[0].checked = true;
    if (data.models.length > MANY && data.bases.length > 1) base.value = "0";
    filter();
  };
  const follow = () => {
    const name = linked();
    if (name === null) {
      if (location.hash === "" && matches.length) {
        current = matches[0];
        show();
      }
      return;
    }
    const number = numbers.get(name);
    if (number !== undefined) {
      current = number;
      if (!matches.includes(number)) clear();
    }
    show();
    if (number === undefined) {
      const place = part("unknown");
      place.replaceChildren("No example on this page is called ", element("bdi", "", name),
        "; tables/samples.csv has all of them.");
      place.hidden = false;
    }
    const top = part("place").getBoundingClientRect().top;
    if (top < 0 || top > innerHeight * 0.8) {
      document.getElementById("samples").scrollIntoView({ behavior: "instant" });
    }
  };

  source.append(option("", `everywhere (${data.items.length})`));
  data.sources.forEach((name, k) => {
    const n = data.items.filter((item) => item.source === k).length;
    source.append(option(k, `${name} (${n})`));
  });
  base.append(option("", "all bases"), ...data.bases.map((name, k) => option(k, name)));
  source.parentElement.hidden = data.sources.length < 2;
  base.parentElement.hidden = data.bases.length < 2;
  order.parentElement.hidden = order.options.length < 2;
  for (const control of [search, source, base, order, ...kinds]) {
    control.addEventListener("input", refresh);
  }
  pick.addEventListener("change", () => go(Number(pick.value)));
  part("previous").addEventListener("click", () => move(-1));
  part("next").addEventListener("click", () => move(1));
  view.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      view.focus({ preventScroll: true });
      move(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  addEventListener("hashchange", follow);
  view.tabIndex = -1;
  part("controls").hidden = part("place").hidden = false;
  clear();
  current = matches[0];
  show();
  follow();
})();
