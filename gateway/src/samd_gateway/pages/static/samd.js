// What every page does by itself: the gateway's clock and the ages by it, the banner of a lost connection,
// language, theme and keyboard shortcuts. Data arrives by samd.beat and samd.cards, which the hub calls.
"use strict";

window.samd = (() => {
  const LOST_AFTER_MS = 4000;
  const ASK_EVERY_MS = 3000;
  const RELOAD_AFTER_MS = 20000;
  const config = JSON.parse(document.getElementById("samd-config").textContent);
  const texts = { ...config.texts };
  const cards = new Map();
  const changed = new Set();
  const ticks = new Set();
  const keys = new Map();
  let base = config.now;
  let heardAt = performance.now();
  let askedAt = 0;
  let beaten = false;
  let lost = false;
  let problem = null;

  const t = (key, values = {}) =>
    (texts[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  // performance.now stands still in a suspended browser; the next beat puts it right
  const now = () => base + (performance.now() - heardAt) / 1000;

  function age(seconds) {
    const s = Math.max(0, Math.floor(seconds));
    if (s < 60) return t("shell.age.s", { n: s });
    if (s < 3600) return t("shell.age.min", { n: Math.floor(s / 60) });
    if (s < 86400) return t("shell.age.h", { h: Math.floor(s / 3600), min: Math.floor((s % 3600) / 60) });
    return t("shell.age.d", { d: Math.floor(s / 86400), h: Math.floor((s % 86400) / 3600) });
  }

  const clock = (epoch, options = { hour: "2-digit", minute: "2-digit" }) =>
    new Intl.DateTimeFormat(config.language === "ko" ? "ko-KR" : "en-GB", { hourCycle: "h23", ...options }).format(new Date(epoch * 1000));

  function beat(message) {
    base = message.now;
    heardAt = performance.now();
    beaten = true;
    problem = message.problem;
    show();
  }

  function receive(message) {
    if (message.whole) {
      const there = new Set(message.cards.map((card) => card.device));
      for (const name of cards.keys()) if (!there.has(name)) cards.delete(name);
    }
    for (const change of message.cards) cards.set(change.device, { ...cards.get(change.device), ...change });
    for (const name of message.gone ?? []) cards.delete(name);
    for (const tell of changed) tell(message);
  }

  function show() {
    const silent = performance.now() - heardAt;
    lost = silent > LOST_AFTER_MS || !navigator.onLine;
    const root = document.documentElement;
    root.classList.toggle("samd-lost", lost);
    root.classList.toggle("samd-problem", !lost && Boolean(problem));
    const banner = document.querySelector(".samd-banner");
    const live = document.querySelector("[data-live]");
    if (!banner || !live) return;
    const word = lost ? "shell.lost_short" : beaten ? "shell.live" : "shell.connecting";
    live.dataset.live = lost ? "lost" : beaten ? "live" : "connecting";
    if (live.textContent !== t(word)) live.textContent = t(word);
    const text = lost
      ? t("shell.lost", {
          time: clock(base, { hour: "2-digit", minute: "2-digit", second: "2-digit" }),
          // by tens of seconds: a screen reader would otherwise read the banner anew each second
          age: age(Math.floor(silent / 10000) * 10),
        })
      : problem
        ? t("shell.problem", { problem })
        : "";
    if (banner.textContent !== text) banner.textContent = text;
    banner.hidden = !text;
  }

  // A session that has ended, or a gateway that was started anew, leaves nothing to go on with: load the page
  // again, which leads to the login form where that is needed.
  async function askWhy(silent) {
    try {
      const answer = await fetch("/api/me", { cache: "no-store" });
      if (answer.status === 401 || (answer.ok && silent > RELOAD_AFTER_MS)) location.reload();
    } catch {
      // the gateway cannot be reached: the banner says so
    }
  }

  function tick() {
    show();
    const silent = performance.now() - heardAt;
    if (lost && performance.now() > askedAt + ASK_EVERY_MS) {
      askedAt = performance.now();
      askWhy(silent);
    }
    const at = now();
    for (const element of document.querySelectorAll("[data-age]")) {
      const text = age(at - Number(element.dataset.age));
      if (element.textContent !== text) element.textContent = text;
    }
    for (const tell of ticks) tell(at);
  }

  // times are made on the gateway in UTC, and shown in the zone of whoever reads
  function times(root) {
    for (const element of root.querySelectorAll?.("time[data-time]") ?? []) {
      const text = clock(Number(element.dataset.time), { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function remember(name, value) {
    const secure = location.protocol === "https:" ? "; Secure" : "";
    document.cookie = `samd_${name}=${value}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
  }

  function choose(name, value) {
    remember(name, value);
    location.reload();
  }

  // shortcuts

  const typing = (element) =>
    element && (element.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(element.tagName));
  const enabled = () => localStorage.getItem("samd-shortcuts") !== "off";
  let going = 0;

  function pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || typing(event.target)) return;
    if (document.querySelector("dialog[open], .q-dialog:not([aria-hidden=true]) .q-dialog__inner")) return;
    if (event.key === "?") {
      event.preventDefault();
      help();
      return;
    }
    if (!enabled()) return;
    if (performance.now() < going && config.nav[event.key]) {
      event.preventDefault();
      location.href = config.nav[event.key];
      return;
    }
    if (event.key === "g") {
      going = performance.now() + 1500;
      return;
    }
    if (event.key === "t") {
      const select = document.querySelector("[data-choice=theme]");
      choose("theme", select.value === "dark" ? "light" : "dark");
      return;
    }
    const action = keys.get(event.key);
    if (action) {
      event.preventDefault();
      action.run(event);
    }
  }

  function help() {
    let dialog = document.getElementById("samd-help");
    if (!dialog) {
      dialog = document.createElement("dialog");
      dialog.id = "samd-help";
      dialog.setAttribute("aria-labelledby", "samd-help-title");
      document.body.append(dialog);
    }
    dialog.replaceChildren();
    const title = document.createElement("h2");
    title.id = "samd-help-title";
    title.textContent = t("shell.help.title");
    const list = document.createElement("dl");
    const row = (shown, text) => {
      const term = document.createElement("dt");
      shown.forEach((key, place) => {
        if (place) term.append(` ${t("shell.help.then")} `);
        const kbd = document.createElement("kbd");
        kbd.textContent = key;
        term.append(kbd);
      });
      const meaning = document.createElement("dd");
      meaning.textContent = text;
      list.append(term, meaning);
    };
    for (const [key, path] of Object.entries(config.nav)) {
      const link = document.querySelector(`.samd-header nav a[href="${path}"]`);
      if (link) row(["g", key], t("shell.help.go", { page: link.textContent }));
    }
    for (const [key, { text }] of keys) row([key], t(text));
    row(["t"], t("shell.help.theme"));
    row(["?"], t("shell.help.help"));
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = enabled();
    box.addEventListener("change", () => localStorage.setItem("samd-shortcuts", box.checked ? "on" : "off"));
    label.append(box, ` ${t("shell.help.on")}`);
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = t("shell.close");
    close.addEventListener("click", () => dialog.close());
    dialog.append(title, list, label, close);
    dialog.showModal();
    close.focus();
  }

  // there before the page is: nothing here needs its elements
  document.addEventListener("keydown", pressed);
  document.addEventListener("change", (event) => {
    const name = event.target?.dataset?.choice;
    if (name) choose(name, event.target.value);
  });
  document.addEventListener("click", (event) => {
    if (event.target?.closest?.("[data-help]")) help();
    if (event.target?.closest?.("a.skip")) {
      event.preventDefault();
      document.getElementById("main")?.focus();
    }
  });
  window.addEventListener("offline", show);
  window.addEventListener("online", show);
  document.addEventListener("visibilitychange", show);
  setInterval(tick, 1000);
  new MutationObserver((changes) => {
    if (changes.some((change) => change.addedNodes.length)) times(document);
  }).observe(document.documentElement, { childList: true, subtree: true });

  return {
    t,
    now,
    age,
    clock,
    beat,
    cards: receive,
    language: config.language,
    /** Texts of this page beside those of the shell. */
    learn: (more) => Object.assign(texts, more),
    /** The cards so far, and what to call at each change; returns how to stop. */
    watch: (tell) => {
      changed.add(tell);
      return { cards, stop: () => changed.delete(tell) };
    },
    everySecond: (tell) => {
      ticks.add(tell);
      return () => ticks.delete(tell);
    },
    /** A shortcut of one key; `text` is the key of its description. */
    shortcut: (key, text, run) => {
      keys.set(key, { text, run });
      return () => keys.delete(key);
    },
    isLost: () => lost,
  };
})();
