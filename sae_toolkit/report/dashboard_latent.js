// The view of one latent: statistics, examples, histogram, relations and scores.

const BAR_WIDTH = 16;
const CHART_HEIGHT = 132;

// `details` is its entry of a part, `texts` that part's texts; `linkTo` gives the address of another latent, or null.
function latentView(data, row, details, texts, linkTo) {
  const side = [histogramBox(details.histogram, data.nSamples), featureBox(data, row), scoresBox(data, row), ...relatedBoxes(data, details, texts, linkTo)];
  return [
    statistics(data, row),
    el("div", { className: "columns" }, examplesBox(details.examples, texts, data.features[row]?.[1]), el("div", { className: "side" }, ...side.filter(Boolean))),
  ];
}

function box(title, ...content) {
  return el("section", { className: "panel" }, el("h3", {}, title), ...content);
}

function noteOn(data, about) {
  return about in data.notes ? [el("p", { className: "note" }, data.notes[about])] : [];
}

function statistics(data, row) {
  const facts = [["Density", percent(data.density[row])], ["Mean where it fires", readable(data.mean[row])], ["Maximum", readable(data.max[row])]];
  return el("dl", { className: "facts" }, ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

// `own` is the name of the true feature that the latent is matched to, if there is one.
function examplesBox(examples, texts, own) {
  if (!examples.length) return box("Examples", el("p", {}, "It never fired on these samples."));
  const scale = Math.max(...examples.flatMap((example) => example[2].map((value) => Math.abs(value ?? 0)))) || 1;
  const bands = [...new Set(examples.map((example) => example[0]))];
  const groups = bands.flatMap((band) => [
    el("h4", {}, texts[band] === "top" ? "Strongest" : `Activations in ${texts[band]} of those that fire`),
    el("ol", { className: "examples" }, ...examples.filter((example) => example[0] === band).map((example) => exampleItem(example, texts, scale, own))),
  ]);
  return box("Examples", ...groups);
}

function exampleItem([, tokens, activations, peak, documentNumber, position, truth], texts, scale, own) {
  const text = tokens.flatMap((id, i) => tokenNodes(texts[id], activations[i], scale, i === peak).slice(i ? 0 : -1));
  const facts = [`${readable(activations[peak])}`];
  if (documentNumber !== null) facts.push(`document ${documentNumber}`);
  if (position !== null) facts.push(`position ${position}`);
  const parts = text.length ? [el("p", { className: "tokens", dir: "auto" }, ...text)] : [];
  parts.push(el("p", { className: "where" }, facts.join(", ")));
  if (truth.length) {
    const features = truth.map(([name, coefficient]) => el("span", { className: texts[name] === own ? "chip own" : "chip" }, `${texts[name]} `, el("small", {}, readable(coefficient))));
    parts.push(el("p", { className: "chips" }, el("span", { className: "where" }, "true features:"), ...features));
  }
  return el("li", {}, ...parts);
}

function histogramBox(histogram, nSamples) {
  if (histogram === null) return null;
  const { edges, counts } = histogram;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const highest = Math.max(...counts);
  const fullest = counts.indexOf(highest);
  const range = (bin) => `${readable(edges[bin])} to ${readable(edges[bin + 1])}`;
  const said = `Histogram of ${total.toLocaleString("en")} nonzero activations in ${counts.length} bins from ${readable(edges[0])} to ${readable(edges.at(-1))}; most, ${highest.toLocaleString("en")}, lie in ${range(fullest)}.`;
  const bars = counts.map((count, bin) => {
    const height = count === 0 ? 0 : Math.max(1.5, (CHART_HEIGHT * count) / highest);
    const shape = { x: bin * BAR_WIDTH + 1, y: CHART_HEIGHT - height, width: BAR_WIDTH - 2, height, class: "bar" };
    return svgEl("rect", shape, svgEl("title", {}, `${range(bin)}: ${count.toLocaleString("en")}`));
  });
  const width = counts.length * BAR_WIDTH;
  const chart = svgEl("svg", { viewBox: `0 0 ${width} ${CHART_HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": said }, ...bars);
  const middle = Math.floor(counts.length / 2);
  const axis = [edges[0], edges[middle], edges.at(-1)].map((edge) => el("span", {}, readable(edge)));
  const lines = counts.map((count, bin) => el("tr", {}, el("th", { scope: "row" }, range(bin)), el("td", { className: "number" }, count.toLocaleString("en"))));
  const head = el("tr", {}, el("th", { scope: "col" }, "Activation"), el("th", { scope: "col", className: "number" }, "Samples"));
  const table = el("table", {}, el("caption", { className: "said" }, "Histogram"), el("thead", {}, head), el("tbody", {}, ...lines));
  const fired = `Fired on ${total.toLocaleString("en")} of ${nSamples.toLocaleString("en")} samples; the highest bar is ${highest.toLocaleString("en")}.`;
  return box("Activations", el("div", { className: "histogram" }, chart), el("p", { className: "axis", ariaHidden: "true" }, ...axis), el("p", { className: "note" }, fired), el("details", {}, el("summary", {}, "As a table"), table));
}

function featureBox(data, row) {
  const feature = data.features[row];
  if (feature === null) return null;
  const [index, name, cosine, f1] = feature;
  const facts = [["Feature", `${name} (number ${index})`], ["Cosine of the directions", readable(cosine)], ["F1 as its detector", readable(f1)]];
  return box("Matched true feature", el("dl", { className: "pairs" }, ...facts.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])));
}

function scoresBox(data, row) {
  const all = Object.keys(data.scores);
  if (!all.length) return null;
  const names = all.filter((name) => data.scores[name].values[row] !== null);
  const silent = all.filter((name) => !names.includes(name));
  const unanswered = silent.length ? [el("details", {}, el("summary", {}, `${silent.length} without a value`), el("p", { className: "note" }, silent.join(", ")))] : [];
  if (!names.length) return box("Scores", ...unanswered);
  const lines = names.map((name) => {
    const { values, floors } = data.scores[name];
    return el("tr", {}, el("th", { scope: "row" }, el("code", {}, name), ...noteOn(data, name)), ...[values[row], floors[row]].map((value) => el("td", { className: "number" }, readable(value))));
  });
  const head = ["Score", "Value", "Floor"].map((label, i) => el("th", { scope: "col", className: i ? "number" : "" }, label));
  return box("Scores", el("table", {}, el("caption", { className: "said" }, "Scores of this latent"), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...lines)), ...unanswered);
}

function relatedBoxes(data, details, texts, linkTo) {
  return details.related.filter(([, nearby]) => nearby.length).map(([title, nearby]) => {
    const scale = Math.max(...nearby.map(([, , value]) => Math.abs(value ?? 0))) || 1;
    const items = nearby.map(([index, label, value]) => {
      const text = texts[label];
      const address = text === `latent ${index}` ? linkTo(index) : null;
      const name = address === null ? el("span", { title: quoted(text) }, shownToken(text)) : el("a", { href: address }, text);
      const bar = el("span", { className: value < 0 ? "meter below" : "meter", ariaHidden: "true" });
      bar.style.setProperty("--a", (Math.abs(value ?? 0) / scale).toFixed(3));
      return el("li", {}, name, bar, el("span", { className: "number" }, readable(value)));
    });
    return box(title[0].toUpperCase() + title.slice(1), ...noteOn(data, title), el("ol", { className: "related" }, ...items));
  });
}
