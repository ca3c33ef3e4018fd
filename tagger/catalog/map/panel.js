// -- the panel: an item, or what the map says where no item lies -----------------------------------------------------

const NEIGHBOURS = 4, SURE = 0.8, LIKELY = 0.5, MENTIONED = 0.2;
const SVG = "http://www.w3.org/2000/svg";

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value; else if (key in element) element[key] = value; else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function drawing(viewBox, properties, ...shapes) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", viewBox);
  for (const [key, value] of Object.entries(properties)) svg.setAttribute(key, value);
  for (const [name, attributes] of shapes) {
    const shape = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    svg.append(shape);
  }
  return svg;
}

function photoOf(catalogue, item) {
  const frame = make("div", { class: "photo" });
  const without = () => {
    frame.className = "photo none";
    frame.replaceChildren(drawing("0 0 24 24", { role: "img", "aria-label": "No photo" },
      ["rect", { x: 3, y: 4.5, width: 18, height: 15, rx: 2 }], ["path", { d: "M3 16l5-5 4 4 3-3 6 6M4 21L20 3" }]));
  };
  const address = catalogue.photo(item);
  if (!address) { without(); return frame; }
  const image = make("img", { alt: "Photo of item " + catalogue.ids[item], decoding: "async" });
  image.addEventListener("error", without);
  image.src = address;
  frame.append(image);
  return frame;
}

function tagRow(label, value, percent, { review = false, human = false } = {}) {
  const end = human ? [make("span", { class: "person" }, "set by a person")] : percent === null ? [] : [
    drawing("0 0 100 4", { class: "bar", preserveAspectRatio: "none", "aria-hidden": "true" }, ["rect", { width: percent, height: 4 }]),
    make("span", { class: "number" }, percent + "%"),
  ];
  const note = review ? [make("span", { class: "sr" }, ", needs review")] : [];
  return make("div", { class: review ? "tag review" : "tag" },
    make("dt", {}, label), make("dd", {}, make("span", { class: "value" }, value), ...end, ...note));
}

class Panel {
  constructor(element, catalogue, open) { Object.assign(this, { element, catalogue, open }); }

  empty() {
    this.element.replaceChildren(
      make("h2", {}, "Choose an item"),
      make("p", { class: "hint" }, "Items with like attributes lie beside each other. Rest on a point to see its photo; click it for its tags and the four items most like it."),
      make("p", { class: "hint" }, "Click between the points, or turn on the cross, to read what the map says there: the attributes that an item at that place would have."),
      make("p", { class: "hint" }, "A heat map shows where a value is at home, or where the catalogue is crowded."));
  }

  item(item, neighbours) {
    const { catalogue } = this, tags = catalogue.tags(item);
    const list = make("dl", { class: "tags" });
    for (const tag of tags) list.append(tagRow(tag.attribute.label, tag.label, tag.percent, tag));
    const where = catalogue.uris[item] ? [make("p", { class: "where", title: catalogue.uris[item] }, make("bdi", {}, catalogue.uris[item]))] : [];
    this.element.replaceChildren(
      photoOf(catalogue, item), make("h2", {}, make("bdi", {}, catalogue.ids[item])), ...where, list,
      make("h3", {}, "Most alike"), this.neighbours(neighbours, other => this.compared(item, other)));
    this.element.scrollTop = 0;
  }

  neighbours(items, text) {
    const list = make("ul", { class: "neighbours" });
    for (const item of items) {
      const button = make("button", { type: "button" }, photoOf(this.catalogue, item),
        make("span", {}, make("b", {}, make("bdi", {}, this.catalogue.ids[item])), ...text(item).map(line => make("small", {}, line))));
      button.addEventListener("click", () => this.open(item));
      list.append(make("li", {}, button));
    }
    return list;
  }

  compared(item, other) {
    const same = [], differs = [];
    this.catalogue.attributes.forEach((attribute, a) => {
      const mine = this.catalogue.value(item, a), theirs = this.catalogue.value(other, a);
      if (mine === NO_VALUE && theirs === NO_VALUE) return;
      if (mine === theirs) same.push(attribute.values[mine].label);
      else differs.push(attribute.label + (theirs === NO_VALUE ? "" : ` (${attribute.values[theirs].label})`));
    });
    return [same.length ? "same: " + same.slice(0, 4).join(", ") + (same.length > 4 ? ` and ${same.length - 4} more` : "") : "nothing is the same",
      differs.length ? "differs: " + differs.join(", ") : "no tag differs"];
  }

  /** What the decoder reads at a place. */
  place(reading, nearest) {
    const list = make("dl", { class: "tags" }), sure = [], likely = [], open = [];
    this.catalogue.attributes.forEach((attribute, a) => {
      if (reading.applies[a] < LIKELY) return;
      const ranked = reading.chances[a].map((p, value) => ({ p, label: attribute.values[value].label })).sort((x, y) => y.p - x.p);
      const [first, second] = ranked, percent = Math.min(99, Math.round(100 * first.p));
      list.append(tagRow(attribute.label, first.label, percent));
      if (first.p >= SURE) sure.push(first.label);
      else if (first.p >= LIKELY) likely.push(first.label);
      else open.push(second.p >= MENTIONED ? `${first.label} or ${second.label}` : `any ${attribute.label.toLowerCase()}`);
    });
    const sentence = [sure.join(", "), likely.length ? "probably " + likely.join(", ") : "", open.length ? "perhaps " + open.join("; ") : ""];
    this.element.replaceChildren(
      make("h2", {}, "At this point of the map"),
      make("p", { class: "words" }, sentence.filter(Boolean).join("; ") + "."), list,
      make("h3", {}, "Items most like that"), this.neighbours(nearest, item => [this.catalogue.title(item)]));
    this.element.scrollTop = 0;
  }
}
