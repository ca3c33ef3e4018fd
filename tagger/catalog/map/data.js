// -- data: what the page carries, and what is computed from it ------------------------------------------------------

const NO_VALUE = -1, NO_CONFIDENCE = 255, REVIEW = 1, HUMAN = 4;
const TYPES = { uint8: Uint8Array, int16: Int16Array, int32: Int32Array, float32: Float32Array };
const SQUARE = Float32Array.from({ length: 256 }, (_, byte) => (byte / 255) ** 2);

/** The header of a packed block, its arrays by their names. */
async function unpack(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent.trim());
  element.textContent = "";
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const [name, { at, type, length: size }] of Object.entries(header.arrays)) {
    arrays[name] = new TYPES[type](buffer, 4 + length + at, size);
  }
  return { header, arrays };
}

class Catalogue {
  constructor({ header, arrays }, pictures) {
    Object.assign(this, { n: header.items, attributes: header.attributes, ids: header.ids, uris: header.uris });
    Object.assign(this, { links: header.links, layouts: header.layouts, heat: header.heat, colour: header.colour });
    Object.assign(this, { profile: arrays.profile, best: arrays.best, confidence: arrays.confidence, flags: arrays.flags });
    this.scores = this.profile.length / this.n;
    this.layouts.forEach((layout, number) => {
      layout.xy = arrays["xy" + number];
      layout.net = layout.layers.map((shape, depth) => ({
        weight: arrays[`weight${number}.${depth}`], bias: arrays[`bias${number}.${depth}`], out: shape[0], in: shape[1],
      }));
      layout.index = new Grid(layout.xy, this.n);
    });
    this.thumbnails = new Map();
    let from = 0;
    pictures.header.items.forEach((item, i) => {
      const to = pictures.arrays.ends[i];
      this.thumbnails.set(item, new Blob([pictures.arrays.jpeg.subarray(from, to)], { type: "image/jpeg" }));
      from = to;
    });
    this.addresses = new Map();
    this.weights = new Float32Array(this.scores);
    for (const attribute of this.attributes) {
      this.weights.fill(attribute.weight, attribute.start, attribute.start + attribute.values.length);
    }
  }

  value(item, attribute) { return this.best[item * this.attributes.length + attribute]; }

  probability(item, column) { return SQUARE[this.profile[item * this.scores + column]]; }

  /** Where an item's photo can be had: a blob of the page, a file beside it, or nowhere. */
  photo(item) {
    if (!this.addresses.has(item)) {
      const blob = this.thumbnails.get(item);
      this.addresses.set(item, blob ? URL.createObjectURL(blob) : this.links[item] || "");
    }
    return this.addresses.get(item);
  }

  tags(item) {
    const tags = [];
    this.attributes.forEach((attribute, a) => {
      const at = item * this.attributes.length + a, value = this.best[at];
      if (value === NO_VALUE) return;
      const percent = this.confidence[at], flags = this.flags[at];
      tags.push({
        attribute, a, value, label: attribute.values[value].label, human: flags >= HUMAN,
        review: flags % HUMAN === REVIEW, percent: percent === NO_CONFIDENCE ? null : percent,
      });
    });
    return tags;
  }

  title(item) {
    return this.tags(item).slice(0, 3).map(tag => tag.label).join(", ");
  }

  /** The `k` items whose profiles are most like `features` (square roots of probabilities), nearest first. */
  nearest(features, k, except = -1) {
    const { profile, scores, weights, n } = this;
    const found = [];
    for (let item = 0, at = 0; item < n; item++, at += scores) {
      const limit = found.length < k ? Infinity : found[found.length - 1].distance;
      let distance = 0;
      for (let c = 0; c < scores && distance < limit; c++) {
        const difference = profile[at + c] / 255 - features[c];
        distance += weights[c] * difference * difference;
      }
      if (distance < limit && item !== except) {
        found.push({ item, distance });
        found.sort((one, other) => one.distance - other.distance);
        found.length = Math.min(found.length, k);
      }
    }
    return found.map(entry => entry.item);
  }

  features(item) {
    return Float32Array.from(this.profile.subarray(item * this.scores, (item + 1) * this.scores), byte => byte / 255);
  }

  /** What the decoder of a layout says of a place: P(value | applies) of every attribute, and P(applies). */
  read(layout, x, y) {
    let units = [(x - layout.centre[0]) / layout.scale, (y - layout.centre[1]) / layout.scale];
    layout.net.forEach(({ weight, bias, out, in: width }, depth) => {
      const next = new Float64Array(out);
      for (let o = 0; o < out; o++) {
        let sum = bias[o];
        for (let i = 0; i < width; i++) sum += weight[o * width + i] * units[i];
        next[o] = depth < layout.net.length - 1 ? sum / (1 + Math.exp(-sum)) : sum;
      }
      units = next;
    });
    const chances = this.attributes.map(({ start, values }) => {
      const part = Array.from(units.subarray(start, start + values.length));
      const top = Math.max(...part), exponents = part.map(value => Math.exp(value - top));
      const total = exponents.reduce((sum, value) => sum + value, 0);
      return exponents.map(value => value / total);
    });
    const applies = this.attributes.map(({ appliesTo }) =>
      appliesTo ? appliesTo.values.reduce((sum, value) => sum + chances[appliesTo.attribute][value], 0) : 1);
    return { chances, applies, features: chances.flatMap((part, a) => part.map(p => Math.sqrt(p * applies[a]))) };
  }
}

/** Points sorted into squares, so that the one under the pointer is found without looking at all. */
class Grid {
  constructor(xy, n) {
    this.xy = xy;
    this.left = Infinity; this.top = Infinity; this.right = -Infinity; this.bottom = -Infinity;
    for (let i = 0; i < n; i++) {
      this.left = Math.min(this.left, xy[2 * i]); this.right = Math.max(this.right, xy[2 * i]);
      this.top = Math.min(this.top, xy[2 * i + 1]); this.bottom = Math.max(this.bottom, xy[2 * i + 1]);
    }
    this.side = Math.max(this.right - this.left, this.bottom - this.top, 1e-6);
    this.count = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n / 2))));
    this.size = this.side / this.count * 1.0001;
    this.begin = new Int32Array(this.count ** 2 + 1);
    this.items = new Int32Array(n);
    const square = i => this.column(xy[2 * i] - this.left) + this.count * this.column(xy[2 * i + 1] - this.top);
    for (let i = 0; i < n; i++) this.begin[square(i) + 1] += 1;
    for (let s = 0; s < this.count ** 2; s++) this.begin[s + 1] += this.begin[s];
    const next = this.begin.slice();
    for (let i = 0; i < n; i++) this.items[next[square(i)]++] = i;
  }

  column(offset) { return Math.max(0, Math.min(this.count - 1, Math.floor(offset / this.size))); }

  /** Calls `visit` with every item in the squares that a rectangle touches. */
  within(left, top, right, bottom, visit) {
    if (right < this.left || left > this.right || bottom < this.top || top > this.bottom) return;
    const x1 = this.column(right - this.left), y1 = this.column(bottom - this.top);
    for (let y = this.column(top - this.top); y <= y1; y++) {
      for (let x = this.column(left - this.left); x <= x1; x++) {
        const square = x + this.count * y;
        for (let at = this.begin[square]; at < this.begin[square + 1]; at++) visit(this.items[at]);
      }
    }
  }

  /** The nearest item to a place within `radius` that `allowed` lets through, or -1. */
  nearest(x, y, radius, allowed) {
    let best = -1, least = radius * radius;
    this.within(x - radius, y - radius, x + radius, y + radius, item => {
      const distance = (this.xy[2 * item] - x) ** 2 + (this.xy[2 * item + 1] - y) ** 2;
      if (distance <= least && allowed(item)) { least = distance; best = item; }
    });
    return best;
  }
}
