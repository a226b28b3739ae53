// The page: its state lives in the address behind the #, so that links, reloading and the back button work.

const UNASKED = { latent: null, q: "", firing: "", feature: "", sort: "latent", order: "asc" };
const TITLE = document.title;
const byId = (id) => document.getElementById(id);
const dataOf = (id) => JSON.parse(byId(id).textContent);
const waiting = new Map();

let data = null;
let list = null;
let state = null;
let opened = null;
let showsValues = false;

// A file of latents calls this with its number and content.
window.saeDashboardPart = (part, content) => waiting.get(part)?.resolve(content);

function partOf(row) {
  const part = Math.floor(row / data.latentsPerPart);
  if (!waiting.has(part)) {
    const request = {};
    request.content = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }));
    waiting.set(part, request);
    if (byId(`part-${part}`)) request.resolve(dataOf(`part-${part}`));
    else load(part, request);
  }
  return waiting.get(part).content;
}

function load(part, request) {
  const name = `latents/${String(part).padStart(3, "0")}.js`;
  const script = el("script", { src: name });
  script.addEventListener("error", () => {
    waiting.delete(part);
    request.reject(new Error(`${name} could not be read. It belongs beside this page: keep the folder together.`));
  });
  document.head.append(script);
}

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  const found = { ...UNASKED };
  for (const key of Object.keys(UNASKED)) if (given.has(key)) found[key] = given.get(key);
  const latent = found.latent === null || found.latent === "" ? NaN : Number(found.latent);
  found.latent = list.place.has(latent) ? latent : null;
  if (!list.columns.some((column) => column.key === found.sort)) Object.assign(found, { sort: UNASKED.sort, order: UNASKED.order });
  return found;
}

function address(changes) {
  const asked = { ...state, ...changes };
  const told = Object.keys(UNASKED).filter((key) => asked[key] !== UNASKED[key]);
  return `#${new URLSearchParams(told.map((key) => [key, asked[key]]))}`;
}

const linkTo = (latent) => (list.place.has(latent) ? address({ latent }) : null);
// Without a new entry in the history; the address is the page's own, so that it works on a page from a disk, too.
function replaceState(changes) {
  history.replaceState(null, "", address(changes));
  route();
}

function route() {
  const before = state;
  state = readState();
  byId("search").value = state.q;
  byId("firing").value = state.firing;
  byId("feature").value = state.feature;
  const listChanged = before === null || ["q", "firing", "feature", "sort", "order"].some((key) => before[key] !== state[key]);
  if (listChanged) list.select(state);
  if (state.latent === null) showList(before, listChanged);
  else showLatent(before !== null);
}

function showList(before, listChanged) {
  opened = null;
  document.title = TITLE;
  byId("latent-view").hidden = true;
  byId("list-view").hidden = false;
  if (listChanged || before.latent !== null) {
    const sorting = document.activeElement?.closest("thead") ? list.columns.findIndex((column) => column.key === state.sort) : -1;
    list.drawHead(state, sortBy);
    list.drawRows(linkTo);
    if (sorting >= 0) document.querySelectorAll("#table .sort")[sorting].focus();
  }
  const { label } = list.columns.find((column) => column.key === state.sort);
  const by = label.length > 2 ? label[0].toLowerCase() + label.slice(1) : label;
  byId("status").textContent = `${list.rows.length.toLocaleString("en")} of ${data.latents.length.toLocaleString("en")} latents, by ${by}, ${state.order === "desc" ? "highest first" : "lowest first"}`;
  if (before?.latent != null) (list.linkOf(before.latent, linkTo) ?? byId("search")).focus();
}

function sortBy(column) {
  const first = column.numeric ? "desc" : "asc";
  const order = state.sort !== column.key ? first : state.order === "asc" ? "desc" : "asc";
  location.hash = address({ sort: column.key, order });
}

async function showLatent(movesFocus) {
  const { latent } = state;
  const row = list.place.get(latent);
  const view = byId("latent-view");
  byId("list-view").hidden = true;
  view.hidden = false;
  document.title = `Latent ${latent} · ${TITLE}`;
  opened = latent;
  const heading = el("h2", { id: "latent-heading", tabIndex: -1 }, `Latent ${latent}`);
  const body = el("div", {}, el("p", { className: "note" }, "Loading …"));
  view.replaceChildren(latentBar(row), heading, body);
  if (movesFocus) {
    scrollTo(0, 0);
    heading.focus({ preventScroll: true });
  }
  let content;
  try {
    const part = await partOf(row);
    content = latentView(data, row, part.latents[row % data.latentsPerPart], part.texts, linkTo);
  } catch (error) {
    content = [el("p", { className: "verdict bad", role: "alert" }, error.message)];
  }
  body.replaceChildren(...content);
}

function latentBar(row) {
  const position = list.rows.indexOf(row);
  const button = (label, act, enabled = true) => {
    const made = el("button", { type: "button", className: "pill", disabled: !enabled }, label);
    made.addEventListener("click", act);
    return made;
  };
  const values = button("Show values", toggleValues);
  values.id = "values";
  const place = position < 0 ? "not in this list" : `${(position + 1).toLocaleString("en")} of ${list.rows.length.toLocaleString("en")} in this list`;
  const bar = el("nav", { className: "steps", ariaLabel: "Latents" }, el("a", { href: address({ latent: null }), className: "pill" }, "All latents"),
    button("Previous", () => step(-1), position > 0), button("Next", () => step(1), position >= 0 && position < list.rows.length - 1), el("span", { className: "note" }, place), values);
  tellValues(values);
  return bar;
}

function tellValues(button) {
  button.setAttribute("aria-pressed", String(showsValues));
  byId("latent-view").classList.toggle("with-values", showsValues);
}

function toggleValues() {
  showsValues = !showsValues;
  tellValues(byId("values"));
}

// To the neighbour in the list: another latent where one is open, another row's link where the list is.
function step(by) {
  if (opened !== null) {
    const position = list.rows.indexOf(list.place.get(opened));
    const row = position < 0 ? undefined : list.rows[position + by];
    if (row !== undefined) replaceState({ latent: data.latents[row] });
    return;
  }
  const links = [...document.querySelectorAll("#table tbody a")];
  const here = links.indexOf(document.activeElement);
  links[here < 0 ? 0 : Math.min(Math.max(here + by, 0), links.length - 1)]?.focus();
}

function leave() {
  if (opened !== null) location.hash = address({ latent: null });
  else if (document.activeElement === byId("search") && state.q) replaceState({ q: "" });
  else document.activeElement?.blur();
}

function search() {
  if (opened !== null) replaceState({ latent: null });
  byId("search").focus();
  byId("search").select();
}

const KEYS = {
  j: () => step(1), ArrowRight: () => step(1), k: () => step(-1), ArrowLeft: () => step(-1), Escape: leave, "/": search,
  v: () => opened !== null && toggleValues(), "?": () => byId("help").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  const typing = event.target.closest("input, select, textarea");
  const scrolling = event.key.startsWith("Arrow") && event.target.closest(".scroll") && !event.target.closest("a");
  if ((typing && event.key !== "Escape") || scrolling || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
}

document.addEventListener("DOMContentLoaded", () => {
  data = dataOf("overview");
  list = new LatentList(data);
  byId("feature-filter").hidden = data.features.every((feature) => feature === null);
  byId("open-help").hidden = false;
  byId("open-help").addEventListener("click", KEYS["?"]);
  byId("search").addEventListener("input", (event) => replaceState({ q: event.target.value }));
  for (const id of ["firing", "feature"]) byId(id).addEventListener("change", (event) => replaceState({ [id]: event.target.value }));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => { list.limit += ROWS_AT_ONCE; list.drawRows(linkTo); });
  byId("table").tBodies[0].addEventListener("click", (event) => {
    if (!event.target.closest("a") && getSelection().isCollapsed) event.target.closest("tr").querySelector("a")?.click();
  });
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", route);
  route();
});
