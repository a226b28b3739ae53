"use strict";
(() => {
  document.addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll("table[data-sortable]")) makeSortable(table);
    for (const plot of document.querySelectorAll(".plot")) makePlayer(plot);
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

  function makePlayer(plot) {
    const groups = [...plot.querySelectorAll("[data-frame]")];
    if (!groups.length) return;
    const last = Math.max(...groups.map((group) => Number(group.dataset.frame)));
    const player = document.createElement("div");
    const button = document.createElement("button");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: last, step: 1, value: last });
    slider.setAttribute("aria-label", "Picture");
    button.type = "button";
    player.className = "player";
    player.append(button, slider);
    plot.closest(".scroll").after(player);
    let timer = null;
    const show = () => {
      for (const group of groups) {
        if (group.dataset.frame === slider.value) group.removeAttribute("display");
        else group.setAttribute("display", "none");
      }
      const words = groups.filter((group) => group.dataset.frame === slider.value).map((group) => group.textContent.trim());
      slider.setAttribute("aria-valuetext", words.filter(Boolean).reverse().join(", "));
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      button.textContent = "Play";
    };
    const advance = () => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === last) stop();
    };
    button.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (Number(slider.value) === last) slider.value = 0;
      show();
      button.textContent = "Pause";
      timer = setInterval(advance, Math.max(60, 6000 / (last + 1)));
    });
    slider.addEventListener("input", () => { stop(); show(); });
    stop();
    show();
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
