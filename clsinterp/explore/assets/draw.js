// The figures at a layer: the server's figures with that layer's cells, the chosen token and the theme's colours put in.
(function () {
  "use strict";
  const explore = window.dash_clientside.explore;
  const INK = { light: "#1d2733", dark: "#e6ebf1" };
  const GRID = { light: "#e3e8ee", dark: "#333d49" };
  const PICK = { light: "#d1006c", dark: "#ff7ab8" };

  function themed(layout, theme) {
    const out = { ...layout, font: { ...layout.font, color: INK[theme], family: "system-ui, sans-serif" } };
    for (const key of Object.keys(out)) {
      if (/^[xy]axis/.test(key)) out[key] = { ...out[key], gridcolor: GRID[theme], linecolor: GRID[theme] };
    }
    out.hoverlabel = { bgcolor: theme === "dark" ? "#10161d" : "#ffffff", bordercolor: GRID[theme], font: { color: INK[theme], size: 13 } };
    out.uirevision = "same";
    out.autosize = true;
    return out;
  }

  // A frame round the chosen token, in every panel.
  function frames(view, token, theme) {
    const n = view.n_prefix, columns = view.grid[1];
    const panels = view.maps.data.length / (n ? 2 : 1);
    const prefix = token < n;
    const x = prefix ? 0 : (token - n) % columns, y = prefix ? token : Math.floor((token - n) / columns);
    return Array.from({ length: panels }, (_, i) => {
      const axis = 2 * i + (prefix ? 2 : 1), number = axis === 1 ? "" : axis;
      return {
        type: "rect", xref: "x" + number, yref: "y" + number, x0: x - 0.5, x1: x + 0.5, y0: y - 0.5, y1: y + 0.5,
        line: { color: PICK[theme], width: 3 },
      };
    });
  }

  explore.draw = function (view, layer, token, theme) {
    const same = window.dash_clientside.no_update;
    if (!view) return [same, same];
    const at = Math.min(layer, view.n_layers - 1);
    const chosen = token < view.tokens.length ? token : 0;
    const cells = view.cells[at];
    Object.assign(window.clsinterp, { view, token: chosen });  // for the arrow keys
    document.getElementById("stage").classList.toggle("compared", view.views.length > 1);
    const maps = {
      data: view.maps.data.map((trace, i) => ({
        ...trace, ...cells[i],
        ...(trace.colorbar ? { colorbar: { ...trace.colorbar, tickfont: { ...trace.colorbar.tickfont, color: INK[theme] } } } : {}),
      })),
      layout: { ...themed(view.maps.layout, theme), shapes: frames(view, chosen, theme) },
    };
    const shapes = view.trajectory.layout.shapes.map((s) => (s.name === "layer" ? { ...s, x0: at, x1: at } : s));
    const trajectory = { data: view.trajectory.data, layout: { ...themed(view.trajectory.layout, theme), shapes } };
    return [maps, trajectory];
  };

  // The token under the pointer.
  explore.hover = function (hovered, clicked) {
    const context = window.dash_clientside.callback_context.triggered.map((t) => t.prop_id);
    const points = (context.includes("maps.clickData") ? clicked : hovered || {})?.points;
    if (!points || !points.length || !points[0].customdata) return window.dash_clientside.no_update;
    return points[0].customdata[0];
  };

  explore.play = function (clicks, stopped) {
    return [!stopped, stopped ? "Pause" : "Play"];
  };

  explore.tick = function (n, layer, facts) {
    return (layer + 1) % facts.n_layers;
  };
})();
