// -- drawing -------------------------------------------------------------------------------------------------------

const PALETTE = [
  "#3d7a6a", "#d6932a", "#4f74c8", "#c9564c", "#8a63b8", "#7aa23c", "#c76a9f", "#2f9bb3", "#a1743f", "#6b7280",
  "#e0b84a", "#86c9b6", "#9db5ea", "#eba79f", "#c7b1e3", "#bcd48f", "#e8b6d2", "#93d1de", "#d3b48f", "#b8bcc4",
];
const NAMED = {
  black: "#1f2023", white: "#ffffff", grey: "#9a9da3", gray: "#9a9da3", beige: "#dcc8a4", brown: "#7b5236",
  red: "#c93a35", pink: "#eb94b4", orange: "#e98532", yellow: "#eccd3e", green: "#4d9250", blue: "#4c86d9",
  navy: "#25346b", purple: "#7f55a8", multi: "#39b7a5",
};
const ABSENT = { light: "#d5d2ca", dark: "#43464d" };
const RAMP = {
  light: ["#fbf3dc", "#f9dc96", "#f2ad52", "#dd6b3d", "#a63a4e", "#571f55"],
  dark: ["#2a2130", "#571f55", "#a63a4e", "#dd6b3d", "#f2ad52", "#fbe6ae"],
};
const SQUARES_FROM = 6000;  // more points than this are squares set pixel by pixel
const HEAT_CELL = 6, HEAT_BLUR = 2, HEAT_PASSES = 3, PHOTO_CELL = 66;

const scheme = matchMedia("(prefers-color-scheme: dark)");
const theme = () => scheme.matches ? "dark" : "light";
const channels = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
const packed = colour => { const [r, g, b] = channels(colour); return (255 << 24 | b << 16 | g << 8 | r) >>> 0; };

function colourOf(attribute, value) {
  const names = attribute.values.map(entry => entry.name);
  const shades = names.filter(name => name in NAMED).length;
  if (shades * 2 > names.length && names[value] in NAMED) return NAMED[names[value]];
  return PALETTE[value % PALETTE.length];
}

function ramp(share) {
  const stops = RAMP[theme()], at = Math.max(0, Math.min(0.9999, share)) * (stops.length - 1);
  const low = channels(stops[Math.floor(at)]), high = channels(stops[Math.floor(at) + 1]);
  return low.map((channel, i) => Math.round(channel + (high[i] - channel) * (at % 1)));
}

class Painter {
  constructor(canvas, catalogue, state) {
    Object.assign(this, { canvas, catalogue, state, context: canvas.getContext("2d"), bitmaps: new Map(), waiting: false });
    this.soft = document.createElement("canvas");
  }

  ask() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  resize() {
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.width = this.canvas.clientWidth; this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
  }

  screen(item) {
    const { view, layout } = this.state;
    return [(layout.xy[2 * item] - view.x) * view.k + this.width / 2, (layout.xy[2 * item + 1] - view.y) * view.k + this.height / 2];
  }

  place(sx, sy) {
    const { view } = this.state;
    return [(sx - this.width / 2) / view.k + view.x, (sy - this.height / 2) / view.k + view.y];
  }

  inView(margin = 20) {
    const [left, top] = this.place(-margin, -margin), [right, bottom] = this.place(this.width + margin, this.height + margin);
    const items = [];
    this.state.layout.index.within(left, top, right, bottom, item => items.push(item));
    return items;
  }

  /** Radius of a point in CSS pixels: smaller where there are many, larger from near. */
  radius() {
    const near = this.state.view.k / this.state.whole;
    const base = Math.max(0.9, Math.min(5, 150 / Math.sqrt(this.catalogue.n)));
    return Math.min(8, base * Math.sqrt(near));
  }

  draw() {
    const { context, state } = this;
    if (!this.width) return;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const items = this.inView(), shown = items.filter(item => state.visible[item]);
    if (state.heat) this.heat(shown);
    const faint = state.heat ? [] : items.filter(item => !state.visible[item]);
    if (items.length > SQUARES_FROM) this.squares(faint, shown);
    else { this.circles(faint, true); this.circles(shown, false); }
    if (state.photos) this.photos(shown);
    this.marks();
    this.drawn = (this.drawn || 0) + 1;
  }

  /** One colour per item: of its value, or a plain one over a heat map. */
  colours() {
    const { state, catalogue } = this, absent = ABSENT[theme()];
    if (state.heat) return () => theme() === "dark" ? "#ffffff" : "#1e1f22";
    const attribute = catalogue.attributes[state.colour];
    const table = attribute.values.map((_, value) => colourOf(attribute, value));
    return item => table[catalogue.value(item, state.colour)] ?? absent;
  }

  circles(items, faint) {
    const { context } = this, radius = this.state.heat ? Math.min(2, this.radius()) : this.radius();
    const colour = this.colours(), groups = new Map();
    for (const item of items) {
      const key = faint ? ABSENT[theme()] : colour(item);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(item);
    }
    context.globalAlpha = faint ? 0.35 : this.state.heat ? 0.3 : 0.88;
    for (const [key, members] of groups) {
      context.beginPath();
      for (const item of members) {
        const [x, y] = this.screen(item);
        context.moveTo(x + radius, y);
        context.arc(x, y, radius, 0, 7);
      }
      context.fillStyle = key;
      context.fill();
      if (!faint && !this.state.heat && radius > 2.2) {
        context.strokeStyle = theme() === "dark" ? "rgb(0 0 0 / .5)" : "rgb(40 38 30 / .3)";
        context.lineWidth = 0.7;
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  squares(faint, shown) {
    const { width, height } = this.canvas, image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer), colour = this.colours(), known = new Map();
    const size = Math.max(1, Math.round(2 * this.radius() * this.ratio * (this.state.heat ? 0.6 : 1)));
    const mark = (item, value) => {
      const [x, y] = this.screen(item);
      const left = Math.round(x * this.ratio - size / 2), top = Math.round(y * this.ratio - size / 2);
      for (let py = Math.max(0, top); py < Math.min(height, top + size); py++) {
        for (let px = Math.max(0, left); px < Math.min(width, left + size); px++) pixels[py * width + px] = value;
      }
    };
    const alpha = (value, share) => (value & 0xffffff | Math.round(255 * share) << 24) >>> 0;
    const grey = alpha(packed(ABSENT[theme()]), 0.45);
    for (const item of faint) mark(item, grey);
    for (const item of shown) {
      const name = colour(item);
      if (!known.has(name)) known.set(name, alpha(packed(name), this.state.heat ? 0.28 : 0.92));
      mark(item, known.get(name));
    }
    this.soft.width = width; this.soft.height = height;
    this.soft.getContext("2d").putImageData(image, 0, 0);
    this.context.drawImage(this.soft, 0, 0, this.width, this.height);
  }

  /** A smooth share of one value, or the density of items, over the screen. */
  heat(items) {
    const { state, catalogue, context } = this;
    const columns = Math.ceil(this.width / HEAT_CELL) + 1, rows = Math.ceil(this.height / HEAT_CELL) + 1;
    const count = new Float32Array(columns * rows), sum = new Float32Array(columns * rows);
    for (const item of items) {
      const [x, y] = this.screen(item), column = Math.floor(x / HEAT_CELL), row = Math.floor(y / HEAT_CELL);
      if (column < 0 || row < 0 || column >= columns || row >= rows) continue;
      count[row * columns + column] += 1;
      sum[row * columns + column] += state.heat.density ? 0 : catalogue.probability(item, state.heat.column);
    }
    for (let pass = 0; pass < HEAT_PASSES; pass++) {
      blur(count, columns, rows);
      if (!state.heat.density) blur(sum, columns, rows);
    }
    const high = quantile(count, 0.995), low = high * 0.02;
    const image = new ImageData(columns, rows);
    for (let cell = 0; cell < count.length; cell++) {
      const dense = Math.min(1, Math.log1p(count[cell] / low) / Math.log1p(high / low));
      const share = state.heat.density ? dense : sum[cell] / Math.max(count[cell], 1e-9);
      const [r, g, b] = ramp(share);
      image.data.set([r, g, b, Math.round(255 * Math.min(1, dense * 2.2))], cell * 4);
    }
    this.soft.width = columns; this.soft.height = rows;
    this.soft.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.soft, 0, 0, columns * HEAT_CELL, rows * HEAT_CELL);
  }

  /** Photos of the page at their items' places, one in each square of the screen. */
  photos(items) {
    const { context, catalogue } = this, taken = new Map();
    const { x: ox, y: oy, k } = this.state.view;
    for (const item of items) {
      if (!catalogue.thumbnails.has(item)) continue;
      const [x, y] = this.screen(item);
      // squares are fixed to the map, so that photos do not jump while it moves
      const column = Math.floor((x + ox * k) / PHOTO_CELL), row = Math.floor((y + oy * k) / PHOTO_CELL);
      const off = Math.hypot((x + ox * k) / PHOTO_CELL - column - 0.5, (y + oy * k) / PHOTO_CELL - row - 0.5);
      const key = column + ":" + row, before = taken.get(key);
      if (!before || off < before.off) taken.set(key, { item, x, y, off });
    }
    const side = PHOTO_CELL - 12, placed = [];
    for (const { item, x, y } of taken.values()) {
      if (placed.some(other => Math.abs(other.x - x) < side && Math.abs(other.y - y) < side)) continue;
      placed.push({ x, y });
      const bitmap = this.bitmap(item);
      if (!bitmap) continue;
      context.beginPath();
      context.roundRect(x - side / 2, y - side / 2, side, side, 7);
      context.fillStyle = "#ffffff";
      context.save();
      context.shadowColor = "rgb(0 0 0 / .25)"; context.shadowBlur = 5; context.shadowOffsetY = 1;
      context.fill();
      context.restore();
      context.save();
      context.clip();
      context.drawImage(bitmap, x - side / 2, y - side / 2, side, side);
      context.restore();
      context.strokeStyle = this.colours()(item); context.lineWidth = 1.5;
      context.stroke();
    }
  }

  bitmap(item) {
    const known = this.bitmaps.get(item);
    if (known === undefined) {
      this.bitmaps.set(item, null);
      createImageBitmap(this.catalogue.thumbnails.get(item)).then(bitmap => { this.bitmaps.set(item, bitmap); this.ask(); }, () => {});
    }
    return known;
  }

  /** Rings around what is chosen, its neighbours and what the pointer is on; a cross where the map is read. */
  marks() {
    const { context, state } = this, radius = this.radius() + 3;
    const ring = (item, grow, style, width) => {
      const [x, y] = this.screen(item);
      context.beginPath(); context.arc(x, y, radius + grow, 0, 7);
      context.strokeStyle = theme() === "dark" ? "#16171a" : "#ffffff"; context.lineWidth = width + 2.5; context.stroke();
      context.strokeStyle = style; context.lineWidth = width; context.stroke();
    };
    const strong = theme() === "dark" ? "#ececea" : "#1e1f22";
    for (const item of state.neighbours) ring(item, 0, theme() === "dark" ? "#69b39f" : "#3d7a6a", 2);
    if (state.chosen >= 0) ring(state.chosen, 2, strong, 2.5);
    if (state.hover >= 0 && state.hover !== state.chosen) ring(state.hover, 1, strong, 1.5);
    const cross = (x, y, size) => {
      context.beginPath();
      context.moveTo(x - size, y); context.lineTo(x - 4, y); context.moveTo(x + 4, y); context.lineTo(x + size, y);
      context.moveTo(x, y - size); context.lineTo(x, y - 4); context.moveTo(x, y + 4); context.lineTo(x, y + size);
      context.strokeStyle = theme() === "dark" ? "#16171a" : "#ffffff"; context.lineWidth = 4.5; context.stroke();
      context.strokeStyle = strong; context.lineWidth = 1.8; context.stroke();
    };
    if (state.point) {
      cross((state.point.x - state.view.x) * state.view.k + this.width / 2, (state.point.y - state.view.y) * state.view.k + this.height / 2, 14);
    }
    if (state.keyboard) cross(this.width / 2, this.height / 2, 9);
  }
}

/** One pass of a box blur in both directions, in place. */
function blur(cells, columns, rows) {
  const line = new Float32Array(Math.max(columns, rows)), width = 2 * HEAT_BLUR + 1;
  const along = (start, step, length) => {
    let sum = 0;
    for (let i = 0; i < length; i++) line[i] = cells[start + i * step];
    for (let i = 0; i <= HEAT_BLUR && i < length; i++) sum += line[i];
    for (let i = 0; i < length; i++) {
      cells[start + i * step] = sum / width;
      if (i + HEAT_BLUR + 1 < length) sum += line[i + HEAT_BLUR + 1];
      if (i - HEAT_BLUR >= 0) sum -= line[i - HEAT_BLUR];
    }
  };
  for (let row = 0; row < rows; row++) along(row * columns, 1, columns);
  for (let column = 0; column < columns; column++) along(column, columns, rows);
}

function quantile(cells, share) {
  const sorted = Float32Array.from(cells.filter(value => value > 1e-6)).sort();
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : 1;
}
