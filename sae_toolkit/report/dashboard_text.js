// Elements, numbers and tokens as a reader sees them.

function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function svgEl(tag, attributes = {}, ...children) {
  const element = document.createElementNS(document.getElementById("svg").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const ABSENT = "–";

function readable(value) {
  if (value === null || value === undefined) return ABSENT;
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size >= 1e6 || size < 5e-4) text = value.toExponential(1).replace("e+", "e");
  else if (size >= 100) text = value.toLocaleString("en", { maximumFractionDigits: 0 });
  else text = value.toFixed(size < 1 ? 3 : size < 10 ? 2 : 1);
  return text.replaceAll("-", "−");
}

function percent(value) {
  if (value === null) return ABSENT;
  return `${value === 0 ? "0" : Number((100 * value).toPrecision(3)).toString()} %`;
}

// Spaces inside a text stay spaces; those at its ends, and whatever has no shape of its own, get a sign.
const SIGNS = { "\n": "↵", "\t": "⇥", "\r": "␍", " ": "␣", "\u00a0": "⍽" };

function signs(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u00a0\u2028\u2029 ]/gu, (c) => (c === "\u200d" ? c : SIGNS[c] ?? `⟨${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`));
}

function shownToken(text) {
  if (text === "") return "∅";
  return signs(text).replace(/([^␣])␣(?=[^␣])/gu, "$1 ");
}

function quoted(text) {
  return JSON.stringify(text);
}

// The space that most words begin with is no part of the shading, so that lines break before it and words stay words.
// A token on which the latent fires carries its value as text: hidden from the eye unless asked for, read aloud always.
function tokenNodes(text, value, scale, isPeak) {
  const [, space, rest] = text.match(/^( ?)(.*)$/su);
  const apart = space !== "" && rest.trim() !== "" && !rest.startsWith(" ");
  const token = el("span", { className: "token" }, shownToken(apart ? rest : text));
  if (isPeak) token.classList.add("peak");
  if (value === null) {
    token.classList.add("out");
    token.title = `${quoted(text)} was left out`;
    token.append(el("span", { className: "said" }, " left out "));
  } else if (value !== 0) {
    token.classList.add(value < 0 ? "below" : "above");
    token.style.setProperty("--a", (0.15 + 0.85 * Math.min(1, Math.abs(value) / scale)).toFixed(3));
    token.title = `${quoted(text)}: ${readable(value)}`;
    token.append(el("span", { className: "said" }, ` ${readable(value)} `));
  }
  return apart ? [" ", token] : [token];
}

// Tokens in few words: without the space before them, and none twice.
function chipsOf(texts) {
  const shown = new Map(texts.map((text) => [shownToken(text.trim() === "" ? text : text.trim()), text]));
  return [...shown].map(([words, text]) => el("span", { className: "chip", title: quoted(text) }, words));
}
