"use strict";
(() => {
  const root = document.documentElement;
  const stored = () => { try { return localStorage.getItem("sae-report-theme"); } catch { return null; } };
  const store = (theme) => { try { localStorage.setItem("sae-report-theme", theme); } catch { /* private window */ } };
  const systemIsDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const isDark = () => (root.dataset.theme || (systemIsDark() ? "dark" : "light")) === "dark";
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();

  document.addEventListener("DOMContentLoaded", () => {
    const toggle = document.getElementById("theme");
    const label = () => { toggle.textContent = isDark() ? "Light theme" : "Dark theme"; };
    toggle.hidden = false;
    label();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
    toggle.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      store(root.dataset.theme);
      label();
    });
    for (const table of document.querySelectorAll("table[data-sortable]")) makeSortable(table);
    const filter = document.getElementById("filter");
    if (filter) makeFilter(filter, document.getElementById("all-scores"), document.getElementById("shown"));
  });

  function makeSortable(table) {
    const body = table.tBodies[0];
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const ascending = header.getAttribute("aria-sort") !== "ascending";
        headers.forEach((other) => other.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent.trim();
        const numeric = header.dataset.kind === "number";
        const compare = (a, b) => {
          if (numeric && (key(a) === "" || key(b) === "")) return (key(a) === "") - (key(b) === "");
          const order = numeric ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b), "en", { numeric: true });
          return ascending ? order : -order;
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }

  function makeFilter(input, table, shown) {
    const rows = [...table.tBodies[0].rows];
    input.closest(".filter").hidden = false;
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        count += !row.hidden;
      }
      shown.textContent = `${count} of ${rows.length} scores`;
    };
    input.addEventListener("input", apply);
    apply();
  }
})();
