// What is written rather than plotted: top classes with bars, and the shelves of images. React escapes every name.
(function () {
  "use strict";
  const explore = window.dash_clientside.explore;
  const shared = window.clsinterp;

  function el(type, props, ...children) {
    return { namespace: "dash_html_components", type, props: { ...props, children } };
  }

  function bars(title, names, classes, p, logits) {
    const rows = classes.map((c, i) =>
      el("Li", { className: "bar", "data-class": String(c), "data-p": String(p[i]), "data-logit": String(logits[i]),
                 title: names[c] + ": probability " + p[i] + ", logit " + logits[i] },
        el("Span", { className: "name" }, names[c]),
        el("Span", { className: "value" }, (100 * p[i]).toFixed(1) + "%"),
        el("Span", { className: "track" }, el("Span", { className: "fill", style: { width: (100 * p[i]).toFixed(2) + "%" } }))));
    return el("Div", { className: "bars" }, title ? el("H3", {}, title) : null, el("Ol", {}, ...rows));
  }

  explore.read = function (view, layer, token, facts) {
    if (!view || view.error) {
      const text = view ? "Nothing to show. Pick an image on the left, or upload one." : "Looking at the image …";
      const wait = el("P", { className: "fine" }, text);
      return [[el("H2", {}, "Token"), wait], [el("H2", {}, "Output, probability"), wait]];
    }
    const at = Math.min(layer, view.n_layers - 1), chosen = token < view.tokens.length ? token : 0;
    const names = facts.class_names;
    const titles = view.views.length > 1 ? ["intact", "intervened"] : [""];
    const place = chosen - view.n_prefix;
    const where = place < 0 ? "" : " · row " + Math.floor(place / view.grid[1]) + ", column " + (place % view.grid[1]);
    const one = view.views.map((v, i) => bars(titles[i], names, v.classes[at][chosen], v.p[at][chosen], v.logits[at][chosen]));
    const all = view.views.map((v, i) => bars(titles[i], names, v.output.classes, v.output.p, v.output.logits));
    return [
      [el("H2", {}, view.tokens[chosen] + ", probability"), el("P", { className: "fine" }, "layer " + at + where), el("Div", { className: "pair" }, ...one)],
      [el("H2", {}, "Output, probability"), el("P", { className: "fine" }, "the model's answer"), el("Div", { className: "pair" }, ...all)],
    ];
  };

  function thumb(picture, kind, pressed) {
    return el("Button", { className: "thumb", "aria-pressed": String(pressed), "aria-label": picture.name, title: picture.name,
                          ["data-" + kind]: picture.key },
      el("Img", { src: "/thumb/" + picture.key + "?tab=" + shared.tab, alt: "", width: 40, height: 40 }));
  }

  explore.shelves = function (picked, donor, uploads, facts) {
    const all = [...uploads.slice().reverse(), ...facts.gallery];
    const find = (key) => all.find((p) => p.key === key);
    const current = find(picked), giver = find(donor);
    const big = current
      ? el("Img", { src: "/thumb/" + current.key + "?tab=" + shared.tab, alt: "", className: "big" })
      : el("Span", { className: "big" });
    return [
      all.map((p) => thumb(p, "pick", p.key === picked)),
      all.map((p) => thumb(p, "donor", p.key === donor)),
      big,
      current ? current.name : "No image",
      ["CLS token of: ", el("B", {}, giver ? giver.name : "choose an image")],
    ];
  };

  explore.enable = function (quantity, replace, facts) {
    const ofClass = ["probability", "logit", "rank", "identifiability"].includes(quantity);
    return [!ofClass, quantity !== "attention", replace === "none" || Boolean(facts.no_replacing), replace !== "swap"];
  };
})();
