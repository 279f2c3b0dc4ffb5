// Adds keys and the time a task was in view; the page works without.
"use strict";
(() => {
  const form = document.getElementById("ballot");
  const choices = [...form.querySelectorAll("input[type=radio]")];
  const said = document.getElementById("said");
  const keys = document.getElementById("keys");
  const on = document.getElementById("keys-on");
  const remembered = "epigone-keys";

  let shown = 0;
  let since = document.visibilityState === "visible" ? performance.now() : null;
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") since = performance.now();
    else if (since !== null) { shown += performance.now() - since; since = null; }
  });

  const go = form.querySelector("button[type=submit]");
  let sent = false;
  const ready = () => { sent = false; go.disabled = false; };
  form.addEventListener("submit", (event) => {
    if (sent) { event.preventDefault(); return; }
    sent = true;
    go.disabled = true;
    // An answer may never come, or lead nowhere; a vote that came twice is refused by the server.
    setTimeout(ready, 4000);
    const now = since === null ? 0 : performance.now() - since;
    form.elements.visible.value = String(Math.round(shown + now));
  });
  // A page that comes back from the browser's memory may be sent again.
  window.addEventListener("pageshow", ready);

  // Storage may be refused, inside another site's frame for one.
  const read = () => { try { return localStorage.getItem(remembered); } catch { return null; } };
  const write = (value) => { try { localStorage.setItem(remembered, value); } catch { /* asked again */ } };
  keys.hidden = false;
  on.checked = read() !== "off";
  on.addEventListener("change", () => write(on.checked ? "on" : "off"));

  document.addEventListener("keydown", (event) => {
    if (!on.checked || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const at = event.target;
    if (at.matches("textarea, input:not([type=radio]):not([type=checkbox])")) return;
    if (event.key >= "1" && event.key <= "5") {
      const choice = choices[Number(event.key) - 1];
      choice.checked = true;
      choice.focus();
      said.textContent = choice.parentElement.textContent.trim();
      event.preventDefault();
    } else if (event.key === "?") {
      keys.open = !keys.open;
      event.preventDefault();
    } else if (event.key === "Enter" && !at.matches("a, button, summary, input[type=checkbox]")) {
      if (form.reportValidity()) form.requestSubmit();
      event.preventDefault();
    }
  });
})();
