// What is written rather than plotted: top classes with bars, and the shelves of images. These are plain elements: every
// Dash component is told of every change on the page, and a few hundred of them would make each layer change slow.
(function () {
  "use strict";
  const explore = window.dash_clientside.explore;
  const shared = window.clsinterp;

  // Names are put in as text, never as HTML.
  function el(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function bars(title, names, classes, p, logits) {
    const rows = classes.map((c, i) => {
      const fill = el("span", { class: "fill" });
      fill.style.width = (100 * p[i]).toFixed(2) + "%";
      const said = names[c] + ": probability " + p[i] + ", logit " + logits[i];
      return el("li", { class: "bar", "data-class": c, "data-p": p[i], "data-logit": logits[i], title: said },
        el("span", { class: "name" }, names[c]),
        el("span", { class: "value" }, (100 * p[i]).toFixed(1) + "%"),
        el("span", { class: "track" }, fill));
    });
    return el("div", { class: "bars" }, title ? el("h3", {}, title) : null, el("ol", {}, ...rows));
  }

  function panel(id, title, note, ...found) {
    document.getElementById(id).replaceChildren(
      el("h2", {}, title), el("p", { class: "fine" }, note), el("div", { class: "pair" }, ...found));
  }

  shared.read = function (view, layer, token, names) {
    if (!view || view.error) {
      const text = view ? "Nothing to show. Pick an image on the left, or upload one." : "Looking at the image …";
      panel("token-panel", "Token", text);
      panel("output-panel", "Output, probability", text);
      return;
    }
    const titles = view.views.length > 1 ? ["intact", "intervened"] : [""];
    const place = token - view.n_prefix, columns = view.grid[1];
    const where = place < 0 ? "" : " · row " + Math.floor(place / columns) + ", column " + (place % columns);
    panel("token-panel", view.tokens[token] + ", probability", "layer " + layer + where,
      ...view.views.map((v, i) => bars(titles[i], names, v.classes[layer][token], v.p[layer][token], v.logits[layer][token])));
    panel("output-panel", "Output, probability", "answer among " + names.length + " classes",
      ...view.views.map((v, i) => bars(titles[i], names, v.output.classes, v.output.p, v.output.logits)));
  };

  const address = (picture) => "/thumb/" + picture.key + "?tab=" + shared.tab;

  // A shelf is filled when its images change; picking one only presses another button.
  function shelf(id, kind, pictures, chosen) {
    const box = document.getElementById(id), all = pictures.map((p) => p.key).join();
    if (box.dataset.all !== all) {
      box.dataset.all = all;
      box.replaceChildren(...pictures.map((p) =>
        el("button", { class: "thumb", "aria-label": p.name, title: p.name, ["data-" + kind]: p.key },
          el("img", { src: address(p), alt: "", width: 40, height: 40 }))));
    }
    for (const button of box.children) button.setAttribute("aria-pressed", String(button.dataset[kind] === chosen));
  }

  explore.shelves = function (picked, donor, uploads, facts) {
    const all = [...uploads.slice().reverse(), ...facts.gallery];
    const current = all.find((p) => p.key === picked), giver = all.find((p) => p.key === donor);
    shelf("gallery", "pick", all, picked);
    shelf("donors", "donor", all, donor);
    document.getElementById("current").replaceChildren(
      current ? el("img", { class: "big", src: address(current), alt: "" }) : el("span", { class: "big" }));
    document.getElementById("current-name").textContent = current ? current.name : "No image";
    document.getElementById("donor-label").replaceChildren(
      "CLS token of: ", el("b", {}, giver ? giver.name : "choose an image"));
    return all.length;
  };

  explore.enable = function (quantity, replace, facts) {
    const ofClass = ["probability", "logit", "rank", "identifiability"].includes(quantity);
    return [!ofClass, quantity !== "attention", replace === "none" || Boolean(facts.no_replacing), replace !== "swap"];
  };
})();
