// Updates the page: requests its URL every two seconds while the page is visible, and replaces the
// sections that differ. The page's state (order, open rows, colors) is in the URL.
"use strict";
(() => {
  const EVERY = 2000, PATIENCE = 10000;
  const main = document.getElementById("main");
  const lost = document.getElementById("lost");
  let timer = 0, asking = null, pressed = false, answered = new Date();

  const address = (form, button) => {
    const fields = new FormData(form, button);
    return "/?" + new URLSearchParams(fields);
  };

  // Identifies an element across updates.
  const key = (element) => element && (element.dataset.key || element.id);
  const named = (name) => {
    for (const element of main.querySelectorAll("[data-key],[id]")) {
      if (key(element) === name) return element;
    }
    return null;
  };

  const openDetails = (root) => new Set(
    [...root.querySelectorAll("details[open]")].map((details) => details.id));

  // Replaces a section; keeps its open details, focus and scroll position.
  const replace = (old, fresh) => {
    const open = openDetails(old);
    for (const details of fresh.querySelectorAll("details")) details.open = open.has(details.id);
    if (old.isEqualNode(fresh)) return;
    const held = old.contains(document.activeElement) ? key(document.activeElement) : null;
    const scrolled = [...old.querySelectorAll("[id]")]
      .filter((element) => element.scrollLeft || element.scrollTop)
      .map((element) => [element.id, element.scrollLeft, element.scrollTop]);
    old.replaceWith(fresh);
    for (const [id, left, top] of scrolled) {
      const element = document.getElementById(id);
      if (element) element.scrollTo({ left, top, behavior: "instant" });
    }
    const again = held && named(held);
    if (again) again.focus({ preventScroll: true });
  };

  const take = (page) => {
    const fresh = page.getElementById("main");
    if (!fresh) throw new Error("unexpected response");
    const ids = new Set([...fresh.children].map((child) => child.id));
    for (const child of [...main.children]) if (!ids.has(child.id)) child.remove();
    let before = null;
    for (const child of [...fresh.children]) {
      const next = document.adoptNode(child);
      const old = [...main.children].find((known) => known.id === next.id);
      if (old) replace(old, next);
      else if (before) before.after(next);
      else main.prepend(next);
      before = document.getElementById(next.id);
    }
    document.title = page.title;
  };

  const say = (text) => {
    if (lost.textContent !== text) lost.textContent = text;
    lost.hidden = !text;
  };

  const ask = async (where) => {
    clearTimeout(timer);
    if (asking) asking.abort();
    const mine = asking = new AbortController();
    const late = setTimeout(() => mine.abort(), PATIENCE);
    try {
      const answer = await fetch(where, { signal: mine.signal, cache: "no-store" });
      if (!answer.ok) throw new Error("status " + answer.status);
      const text = await answer.text();
      // An update would lose a click or a text selection in progress.
      const busy = pressed || !getSelection().isCollapsed;
      if (asking === mine && (!busy || where !== current())) {
        take(new DOMParser().parseFromString(text, "text/html"));
        if (where !== location.pathname + location.search) history.replaceState(null, "", current());
      }
      answered = new Date();
      say("");
    } catch (error) {
      if (asking === mine) {
        say("The exporter has not answered since " + answered.toLocaleTimeString() +
          ". This page shows the state at that time.");
      }
    } finally {
      clearTimeout(late);
      if (asking === mine) {
        asking = null;
        plan();
      }
    }
  };

  const current = () => address(document.getElementById("look"));
  const plan = () => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(() => ask(current()), EVERY);
  };

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "look") return;
    event.preventDefault();
    ask(address(event.target, event.submitter));
  });
  document.addEventListener("pointerdown", () => { pressed = true; });
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, () => { pressed = false; });
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else ask(current());
  });
  plan();
})();
