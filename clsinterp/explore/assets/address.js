// The state of the page, between the address, the controls and what the server is asked.
(function () {
  "use strict";
  const AUTO = "auto", NONE = "none";
  const explore = (window.dash_clientside = window.dash_clientside || {}).explore = window.dash_clientside.explore || {};
  const shared = (window.clsinterp = window.clsinterp || {});

  // A name for this tab that survives a reload, so that its uploads do too.
  shared.tab = (function () {
    let tab = sessionStorage.getItem("clsinterp-tab");
    if (!tab) {
      tab = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
      sessionStorage.setItem("clsinterp-tab", tab);
    }
    return tab;
  })();

  shared.setTheme = function (theme) {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme-switch");
    if (button) button.textContent = theme === "dark" ? "Light" : "Dark";
  };

  function whole(text, low, high, fallback) {
    const n = Number(text);
    return text !== null && text !== "" && Number.isInteger(n) && n >= low && n <= high ? n : fallback;
  }

  // Address -> controls. What the page cannot show falls back to its default, and a line says so.
  explore.open = function (facts) {
    const asked = new URLSearchParams(window.location.search);
    const wrong = [];
    function among(key, allowed, fallback) {
      const value = asked.get(key);
      if (value === null) return fallback;
      if (allowed.includes(value)) return value;
      wrong.push(key);
      return fallback;
    }
    function number(key, low, high, fallback) {
      const value = whole(asked.get(key), low, high, fallback);
      if (asked.get(key) && value === fallback && asked.get(key) !== String(fallback)) wrong.push(key);
      return value;
    }
    const last = facts.n_layers - 1;
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    const theme = among("theme", ["light", "dark"], localStorage.getItem("clsinterp-theme") || (dark ? "dark" : "light"));
    const first = facts.gallery.length ? facts.gallery[0].key : null;
    const cls = number("class", 0, facts.class_names.length - 1, null);
    const head = number("head", 0, facts.n_heads - 1, null);
    const controls = [
      asked.get("image") || first,
      among("quantity", facts.quantities, facts.quantity),
      cls === null ? AUTO : String(cls),
      head === null ? AUTO : String(head),
      facts.no_replacing ? NONE : among("replace", facts.replacing, NONE),
      number("at", -1, last, 0),
      asked.get("donor") || (facts.gallery.length > 1 ? facts.gallery[1].key : first),
      asked.get("cls_only") === "1" && !facts.no_cls_only ? ["on"] : [],
      number("layer", 0, last, last),  // see shared.keepLayer
      number("token", 0, 1e6, 0),
      theme,
    ];
    shared.keepLayer = asked.has("layer") && !wrong.includes("layer");
    if (wrong.length) shared.notice("This address asks for something the page does not have (" + wrong.join(", ") + "); that part was left out.");
    shared.setTheme(theme);
    return [...controls, shared.tab];
  };

  function query(picked, quantity, cls, head, replace, at, donor, clsOnly) {
    const q = new URLSearchParams();
    if (picked) q.set("image", picked);
    q.set("quantity", quantity);
    if (cls !== AUTO) q.set("class", cls);
    if (head !== AUTO) q.set("head", head);
    if (replace !== NONE) {
      q.set("replace", replace);
      q.set("at", at);
      if (replace === "swap" && donor) q.set("donor", donor);
    }
    if (clsOnly.length) q.set("cls_only", "1");
    return q;
  }

  // Controls -> what the server is asked for: everything but layer, token and looks, which are drawn here.
  explore.ask = function (picked, quantity, cls, head, replace, at, donor, clsOnly, facts) {
    if (!picked) return window.dash_clientside.no_update;
    shared.notice("");
    return query(picked, quantity, cls, head, replace, at, donor, clsOnly).toString();
  };

  // What follows from every change, in one callback: address, download links, and what shared.show draws.
  explore.follow = function (picked, quantity, cls, head, replace, at, donor, clsOnly, layer, token, theme, view, facts, tab) {
    const q = query(picked, quantity, cls, head, replace, at, donor, clsOnly);
    q.set("layer", layer);
    if (token) q.set("token", token);
    const state = q.toString();
    for (const what of ["html", "parquet"]) {
      document.getElementById("download-" + what).setAttribute("href", "/download/" + what + "?" + state + "&tab=" + tab);
    }
    q.set("theme", theme);
    history.replaceState(history.state, "", "?" + q.toString());
    shared.show(view, layer, token, facts.class_names);
    return state;
  };

  shared.notice = function (text) {
    window.dash_clientside.set_props("notice", { children: text, hidden: !text });
  };
})();
