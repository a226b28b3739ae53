// The list of latents: what it holds, in which order, and the table that shows it.

const ROWS_AT_ONCE = 200;
const DENSE = 0.1;
const ALWAYS = 5; // columns shown even where they are empty: number, tokens and activations

class LatentList {
  constructor(data) {
    this.data = data;
    this.columns = columnsOf(data);
    this.place = new Map(data.latents.map((latent, row) => [latent, row]));
    this.text = data.words.map((words) => `\n${words.map((word) => data.texts[word].trim().toLowerCase()).join("\n")}\n`);
    this.rows = data.latents.map((_, row) => row);
    this.limit = ROWS_AT_ONCE;
  }

  // The rows that the state asks for, in its order; rows without a value come last, whatever the order.
  select(state) {
    const phrase = state.q.trim().toLowerCase();
    const rows = this.data.latents.map((_, row) => row).filter((row) => this.passes(row, state) && this.isFound(row, phrase));
    const column = this.columns.find((one) => one.key === state.sort) ?? this.columns[0];
    const direction = state.order === "desc" ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [column.values[a], column.values[b]];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return direction * order || a - b;
    });
    this.rows = rows;
    this.limit = ROWS_AT_ONCE;
  }

  passes(row, state) {
    const { density, features } = this.data;
    if (state.firing === "dead" && density[row] > 0) return false;
    if (state.firing === "alive" && density[row] === 0) return false;
    if (state.firing === "dense" && density[row] <= DENSE) return false;
    return !state.feature || (features[row] !== null) === (state.feature === "with");
  }

  // A phrase is found as it is, or word by word; a number stands for a latent or a whole token, not for a part of one.
  isFound(row, phrase) {
    const text = this.text[row];
    const number = String(this.data.latents[row]);
    const has = (word) => (/^#?\d+$/.test(word) ? word.replace("#", "") === number || text.includes(`\n${word}\n`) : text.includes(word));
    return (phrase.includes(" ") && text.includes(phrase)) || phrase.split(/\s+/).filter(Boolean).every(has);
  }

  // Draws the head, with the order that the state asks for; `onSort` is told a column's key.
  drawHead(state, onSort) {
    const cells = this.columns.map((column) => {
      const button = el("button", { type: "button", className: "sort" }, column.label);
      button.addEventListener("click", () => onSort(column));
      const head = el("th", { scope: "col" }, button);
      if (column.numeric) head.className = "number";
      if (column.key === state.sort) head.setAttribute("aria-sort", state.order === "desc" ? "descending" : "ascending");
      return head;
    });
    document.querySelector("#table thead tr").replaceChildren(...cells);
  }

  drawRows(linkTo) {
    const rows = this.rows.slice(0, this.limit).map((row) => {
      const [first, ...others] = this.columns;
      const link = el("a", { href: linkTo(this.data.latents[row]) }, first.cell(row));
      const cells = others.map((column) => el("td", { className: column.numeric ? "number" : "words" }, ...[column.cell(row)].flat()));
      const line = el("tr", {}, el("th", { scope: "row" }, link), ...cells);
      line.dataset.latent = this.data.latents[row];
      return line;
    });
    if (!rows.length) rows.push(el("tr", {}, el("td", { colSpan: this.columns.length }, "No latent is like this.")));
    document.querySelector("#table tbody").replaceChildren(...rows);
    const hidden = this.rows.length - this.limit;
    const more = document.getElementById("more");
    more.hidden = hidden <= 0;
    more.textContent = `Show ${Math.min(hidden, ROWS_AT_ONCE)} more of ${hidden}`;
  }

  // Draws as many rows as it takes to have this latent among them; its link, or null where the list lacks it.
  linkOf(latent, linkTo) {
    const position = this.rows.indexOf(this.place.get(latent));
    if (position >= this.limit) {
      this.limit = position + 1;
      this.drawRows(linkTo);
    }
    return document.querySelector(`#table tr[data-latent="${latent}"] a`);
  }
}

function columnsOf(data) {
  const texts = (ids) => ids.map((id) => data.texts[id]);
  const part = (index) => data.features.map((feature) => feature && feature[index]);
  const number = (key, label, values, cell = (row) => readable(values[row])) => ({ key, label, values, cell, numeric: true });
  const peaks = data.peaks.map((ids) => texts(ids).join(" ").trim());
  const columns = [
    { ...number("latent", "Latent", data.latents, (row) => String(data.latents[row])), numeric: false },
    {
      key: "peaks",
      label: "Fires on",
      values: peaks.map((words) => words || null),
      cell: (row) => (data.peaks[row].length ? el("span", { className: "chips" }, ...chipsOf(texts(data.peaks[row]))) : ABSENT),
    },
    number("density", "Density", data.density, (row) => percent(data.density[row])),
    number("mean", "Mean where it fires", data.mean),
    number("max", "Max", data.max),
  ];
  if (data.features.some((feature) => feature !== null)) {
    columns.push(
      { key: "feature", label: "True feature", values: part(1), cell: (row) => data.features[row]?.[1] ?? ABSENT },
      number("cosine", "Cosine", part(2)),
      number("f1", "F1", part(3)),
    );
  }
  for (const [name, { values, floors }] of Object.entries(data.scores)) {
    const cell = (row) => (floors[row] === null ? readable(values[row]) : [`${readable(values[row])} `, el("small", { title: "floor" }, el("span", { className: "said" }, "floor "), readable(floors[row]))]);
    columns.push(number(`score.${name}`, name, values, cell));
  }
  return columns.filter((column, i) => i < ALWAYS || column.values.some((value) => value !== null));
}
