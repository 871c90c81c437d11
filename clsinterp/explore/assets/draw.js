// The figures: the server's, with a layer's cells and the theme's colours put in. A change of layer or token is drawn on the
// figure that stands there, without Dash: that takes a tenth of the time.
(function () {
  "use strict";
  const explore = window.dash_clientside.explore;
  const shared = window.clsinterp;
  const INK = { light: "#1d2733", dark: "#e6ebf1" };
  const GRID = { light: "#e3e8ee", dark: "#333d49" };

  const CLEAR = "rgba(0,0,0,0)";
  const BLANK = { data: [], layout: { xaxis: { visible: false }, yaxis: { visible: false }, paper_bgcolor: CLEAR, plot_bgcolor: CLEAR } };

  function themed(layout, theme) {
    const out = { ...layout, font: { ...layout.font, color: INK[theme], family: "system-ui, sans-serif" }, autosize: true };
    for (const key of Object.keys(out)) {
      if (/^[xy]axis/.test(key)) out[key] = { ...out[key], gridcolor: GRID[theme] };
    }
    out.hoverlabel = { bgcolor: theme === "dark" ? "#10161d" : "#ffffff", bordercolor: GRID[theme], font: { color: INK[theme], size: 13 } };
    return out;
  }

  function inked(bar, theme) {
    const font = (one) => ({ ...one, color: INK[theme] });
    return { ...bar, tickfont: font(bar.tickfont), title: { ...bar.title, font: font((bar.title || {}).font) } };
  }

  const plot = (id) => document.querySelector("#" + id + " .js-plotly-plot");

  explore.draw = function (view, theme, layer, token) {
    if (!view || view.error) {
      shared.view = null;
      document.getElementById("stage").classList.remove("compared");
      for (const mark of document.querySelectorAll(".pick, .now")) mark.remove();
      return [BLANK, BLANK];
    }
    const at = opening(view, Math.min(layer, view.n_layers - 1));
    if (at !== layer) window.dash_clientside.set_props("layer", { value: at });
    Object.assign(shared, { view, layer: at, token: token < view.tokens.length ? token : 0 });
    document.getElementById("stage").classList.toggle("compared", view.views.length > 1);
    const cells = view.cells[shared.layer];
    const maps = {
      data: view.maps.data.map((trace, i) => ({
        ...trace, ...cells[i],
        ...(trace.colorbar ? { colorbar: inked(trace.colorbar, theme) } : {}),
      })),
      layout: themed(view.maps.layout, theme),
    };
    // The line at the layer is an element of its own, which moves without the figure being drawn again.
    const shapes = view.trajectory.layout.shapes.filter((s) => s.name !== "layer");
    const trajectory = { data: view.trajectory.data, layout: { ...themed(view.trajectory.layout, theme), shapes } };
    shared.drawn = shared.layer;
    requestAnimationFrame(watch);
    return [maps, trajectory];
  };

  // The layer a new intervention is first seen at: where nothing of it is to be seen, the one where it changes most. Never
  // away from a layer that the address names, nor when something else is asked of the same intervention.
  const UNSEEN = 1 / 50;  // of the largest difference
  let edit = "";

  function opening(view, layer) {
    const asked = new URLSearchParams(view.asked), keep = shared.keepLayer;
    const now = view.change ? ["replace", "at", "donor", "cls_only"].map((key) => asked.get(key)).join() : "";
    const fresh = now !== edit;
    edit = now;
    shared.keepLayer = false;
    if (!now || !fresh || keep) return layer;
    const most = Math.max(...view.change);
    return view.change[layer] > most * UNSEEN ? layer : view.change.indexOf(most);
  }

  // After every drawing of a figure, however it came about, the marks are put where its axes now are.
  function watch() {
    for (const id of ["maps", "trajectory"]) {
      const figure = plot(id);
      if (!figure || !figure.on) { requestAnimationFrame(watch); return; }
      if (figure.dataset.watched) continue;
      figure.dataset.watched = "yes";
      figure.on("plotly_afterplot", place);
      if (id === "maps") for (const event of ["plotly_hover", "plotly_click"]) figure.on(event, point);
      place();
    }
  }

  // The token under the pointer. (Dash's own hoverData has no customdata for heatmaps.)
  function point(event) {
    const token = event.points[0].customdata[0];
    if (token !== shared.token) window.dash_clientside.set_props("token", { data: token });
  }

  function place() {
    const maps = plot("maps"), trajectory = plot("trajectory"), view = shared.view;
    if (!view || !maps || !maps._fullLayout || !trajectory || !trajectory._fullLayout) return;
    const n = view.n_prefix, prefix = shared.token < n;
    const x = prefix ? 0 : (shared.token - n) % view.grid[1];
    const y = prefix ? shared.token : Math.floor((shared.token - n) / view.grid[1]);
    marks(maps, "pick", view.maps.data.length / (n ? 2 : 1), (i) => {
      const axes = axesOf(maps, 2 * i + (prefix ? 2 : 1));
      if (!axes) return null;
      const [left, right] = span(axes.x, x - 0.5, x + 0.5), [top, bottom] = span(axes.y, y - 0.5, y + 0.5);
      return { left, top, width: right - left, height: bottom - top };
    });
    marks(trajectory, "now", view.views.length, (i) => {
      const axes = axesOf(trajectory, i + 1);
      if (!axes) return null;
      const [left] = span(axes.x, shared.layer, shared.layer);
      return { left: left - 1, top: axes.y._offset, width: 2, height: axes.y._length };
    });
  }

  function axesOf(figure, number) {
    const of = (letter) => figure._fullLayout[letter + "axis" + (number === 1 ? "" : number)];
    return of("x") && of("y") ? { x: of("x"), y: of("y") } : null;
  }

  function span(axis, a, b) {
    const [low, high] = axis.range, vertical = axis._id[0] === "y";
    const at = (v) => { const t = (v - low) / (high - low); return axis._offset + (vertical ? 1 - t : t) * axis._length; };
    return [at(a), at(b)];
  }

  function marks(figure, name, count, where) {
    const have = Array.from(figure.querySelectorAll(":scope > ." + name));
    for (const extra of have.splice(count)) extra.remove();
    for (let i = 0; i < count; i++) {
      const mark = have[i] || figure.appendChild(Object.assign(document.createElement("div"), { className: name }));
      const box = where(i);
      mark.hidden = !box;
      if (box) Object.assign(mark.style, Object.fromEntries(Object.entries(box).map(([k, v]) => [k, v + "px"])));
    }
  }

  // Everything on the page that a layer or token changes, but not the figures' making: see draw.
  shared.show = function (view, layer, token, names) {
    const fits = view && !view.error;
    const at = fits ? Math.min(layer, view.n_layers - 1) : layer;
    const chosen = fits && token < view.tokens.length ? token : 0;
    shared.read(view, at, chosen, names);
    if (!fits || !shared.view || shared.view.asked !== view.asked) return;  // draw will come
    Object.assign(shared, { layer: at, token: chosen });
    const maps = plot("maps");
    if (at === shared.drawn || !maps || !maps.data || maps.data.length !== view.maps.data.length) {
      place();
      return;
    }
    shared.drawn = at;
    const cells = view.cells[at];
    const pick = (key) => cells.map((cell) => cell[key]);
    window.Plotly.restyle(maps, { z: pick("z"), customdata: pick("customdata"), text: pick("text") }, cells.map((_, i) => i));
  };

  explore.play = function (clicks, stopped) {
    return [!stopped, stopped ? "Pause" : "Play"];
  };

  explore.tick = function (n, layer, facts) {
    return (layer + 1) % facts.n_layers;
  };
})();
