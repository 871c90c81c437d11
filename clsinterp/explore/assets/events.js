// What Dash has no component for: picking from shelves, uploads, arrow keys on the maps, the code dialog, open and closed tabs.
(function () {
  "use strict";
  const shared = window.clsinterp;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const MAX_BYTES = 10 * 1024 * 1024;

  async function upload(file) {
    if (!file) return;
    if (file.size > MAX_BYTES) return shared.notice(file.name + " is larger than 10 MB. Make it smaller and try again.");
    document.getElementById("page").classList.add("uploading");
    try {
      const where = "/upload?tab=" + shared.tab + "&name=" + encodeURIComponent(file.name);
      const answer = await fetch(where, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
      const said = await answer.json();
      if (!answer.ok) return shared.notice(said.error);
      set("uploads", { data: await shelved() });
      set("picked", { data: said.key });
    } catch (error) {
      shared.notice("The upload did not arrive. Is clsinterp explore still running?");
    } finally {
      document.getElementById("page").classList.remove("uploading");
    }
  }

  // What this tab uploaded before, so that a reload shows it again.
  const shelved = async () => (await fetch("/uploads?tab=" + shared.tab)).json();
  window.dash_clientside.explore.uploaded = shelved;

  const picker = Object.assign(document.createElement("input"), { type: "file", accept: "image/*", id: "file", hidden: true });
  picker.addEventListener("change", () => { upload(picker.files[0]); });
  picker.addEventListener("click", () => { picker.value = ""; });  // the same file may be chosen again

  // The token the arrow keys lead to: patches row by row; prefix tokens as a column on the left.
  function neighbour(view, token, key) {
    const n = view.n_prefix, [rows, columns] = view.grid, place = token - n;
    if (key === "p" || key === "P") return n ? (token < n ? n : 0) : token;
    if (place < 0) {
      if (key === "ArrowRight") return n;
      const next = token + (key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0);
      return Math.max(0, Math.min(n - 1, next));
    }
    let row = Math.floor(place / columns), column = place % columns;
    if (key === "ArrowLeft" && column === 0 && n) return Math.min(n - 1, row);
    row += key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0;
    column += key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0;
    return n + Math.max(0, Math.min(rows - 1, row)) * columns + Math.max(0, Math.min(columns - 1, column));
  }

  document.addEventListener("keydown", (event) => {
    if (!event.target.closest || !event.target.closest("#maps-box")) return;
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "p", "P"].includes(event.key) || event.ctrlKey || event.metaKey) return;
    if (!shared.view) return;
    event.preventDefault();
    shared.token = neighbour(shared.view, shared.token || 0, event.key);
    set("token", { data: shared.token });
  });

  document.addEventListener("click", (event) => {
    const at = (selector) => event.target.closest(selector);
    const pick = at("[data-pick]"), donor = at("[data-donor]");
    if (pick) set("picked", { data: pick.dataset.pick });
    else if (donor) set("donor", { data: donor.dataset.donor });
    else if (at("#upload")) picker.click();
    else if (at("#code-open")) { set("code", { value: "…" }); document.getElementById("code-dialog").showModal(); }
    else if (at("#code-close")) document.getElementById("code-dialog").close();
    else if (at("#code-copy")) copy(at("#code-copy"));
    else if (at("#theme-switch")) {
      const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      localStorage.setItem("clsinterp-theme", theme);
      shared.setTheme(theme);
      set("theme", { data: theme });
    }
  });

  async function copy(button) {
    const text = document.getElementById("code");
    text.select();
    try {
      await navigator.clipboard.writeText(text.value);
    } catch (error) {
      document.execCommand("copy");  // pages that are not served over a secure origin have no clipboard
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  document.addEventListener("dragover", (event) => { event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    upload(event.dataTransfer.files[0]);
  });

  const tell = (what) => fetch("/tab/" + what + "?tab=" + shared.tab, { method: "POST", keepalive: true });
  window.addEventListener("pagehide", () => { tell("leaving"); });
  setInterval(() => {
    tell("alive").catch(() => { shared.notice("The server has stopped. Run clsinterp explore again, then reload this page."); });
  }, 30000);

  const boot = () => { document.body.append(picker); tell("alive").catch(() => {}); };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", boot);
  else boot();
})();
