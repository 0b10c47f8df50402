// What the pages share; fill_page() in 01_bpe.py puts it into each of them.
const $ = (id) => document.getElementById(id);
const number = (x, digits = 0) =>
  x.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (x, digits = 0) => number(100 * x, digits) + "%";
const plural = (n, word) => number(n) + " " + word + (n === 1 ? "" : "s");
const visible = (text) => text.replace(/ /g, "_").replace(/\n/g, "↵");

function el(tag, settings = {}, ...children) {  // "onclick" and the like are listeners
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(settings))
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  node.append(...children);  // strings become text, never HTML
  return node;
}

function draw(parent, tag, attributes, text) {  // an element of an SVG drawing
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

// ---- a story colored token by token, and a panel about one of them

function tokenSpan(text, t, special) {  // special: <BOS>, <EOS>
  const shown = special ? text : text.replace(/\n/g, "↵\n");
  // The space before a word stays uncolored, and a line may end there.
  const space = shown.length > 1 && shown[0] === " " ? 1 : 0;
  const ink = el("span", { class: "ink" }, shown.slice(space), el("i"));
  const span = el("span", { class: "token", tabindex: -1 }, shown.slice(0, space), ink);
  span.dataset.t = t;
  span.classList.toggle("special", special);
  return span;
}

function color(span, probability) {  // by surprise: 0 bits if certain, 6 for 1/64
  const surprise = -Math.log2(Math.max(probability, 1e-4));
  span.querySelector(".ink").style.backgroundColor =
    "rgb(var(--warm) / " + (0.6 * Math.min(1, surprise / 6)).toFixed(3) + ")";
}

function tokenAt(event) {  // the position of the token that an event is about, or null
  const span = event.target.closest ? event.target.closest(".token") : null;
  return span ? Number(span.dataset.t) : null;
}

function frame(spans, selected) {  // the story is one stop of the Tab key
  spans.forEach((span, i) => {
    span.classList.toggle("selected", i === selected);
    span.classList.toggle("source", i === selected - 1);
    span.tabIndex = i === selected ? 0 : -1;
  });
}

function bar(fraction) {
  const track = el("span", { class: "track" }, el("b"));
  track.firstChild.style.width = 100 * fraction + "%";
  return [track, el("span", { class: "number" }, percent(fraction, 1))];
}

function candidateRow(name, before, after, taken) {  // probabilities before, after samplers
  const row = el("tr", {}, el("td", {}, name),
    el("td", {}, el("div", { class: "bar" }, ...bar(before))),
    el("td", {}, el("div", { class: "bar after" }, ...bar(after))));
  row.classList.toggle("taken", taken);
  row.classList.toggle("out", after === 0);
  return row;
}

function fillHeads(layers, heads, onchange) {  // the two menus
  for (const [id, count] of [["layer", layers], ["head", heads]]) {
    $(id).append(el("option", { value: "all" }, "all, mean"));
    for (let i = 0; i < count; i++) $(id).append(el("option", { value: i }, String(i + 1)));
    $(id).addEventListener("change", onchange);
  }
}

function chosenHeads(layers) {  // [layer][head] -> a list of those that the menus choose
  const chosen = (list, id) => $(id).value === "all" ? list : [list[$(id).value]];
  return chosen(layers, "layer").flatMap((heads) => chosen(heads, "head"));
}

function showWeights(spans, names, weights) {  // weights: attention weight per position
  spans.forEach((span, i) => {  // the square root makes small weights visible, too
    span.querySelector("i").style.opacity = weights[i] ? Math.sqrt(weights[i]).toFixed(3) : 0;
  });
  const most = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 5);
  $("attended").replaceChildren(...most.map((i) => {
    const [track, value] = bar(weights[i]);
    track.classList.add("bar", "after");
    return el("li", {}, el("code", { class: "name" }, visible(names[i])), track, value);
  }));
}
