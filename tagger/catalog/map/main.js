// -- the page ------------------------------------------------------------------------------------------------------

const $ = id => document.getElementById(id);
const plain = text => text.normalize("NFKC").toLowerCase();
const NEAR = 12, TAP = 6, MOST = 400;  // pixels around the pointer; pixels of a click; the closest zoom

async function start() {
  const catalogue = new Catalogue(await unpack("data"), await unpack("pictures"));
  const state = {
    layout: catalogue.layouts[0], view: { x: 0, y: 0, k: 1 }, whole: 1, colour: 0, heat: null, photos: false, reading: false,
    visible: new Uint8Array(catalogue.n).fill(1), chosen: -1, hover: -1, neighbours: [], point: null, keyboard: false,
  };
  const map = $("map"), tip = $("tip"), painter = new Painter(map, catalogue, state);
  const panel = new Panel($("panel"), catalogue, item => choose(item, true));
  const lower = catalogue.ids.map(plain);

  // -- what is chosen

  function choose(item, centre = false) {
    Object.assign(state, { chosen: item, point: null, neighbours: catalogue.nearest(catalogue.features(item), NEIGHBOURS, item) });
    panel.item(item, state.neighbours);
    if (centre) {
      const [x, y] = painter.screen(item);
      if (x < 30 || y < 30 || x > painter.width - 30 || y > painter.height - 30) {
        state.view.x = state.layout.xy[2 * item]; state.view.y = state.layout.xy[2 * item + 1];
      }
    }
    painter.ask();
  }

  function read(x, y) {
    const reading = catalogue.read(state.layout, x, y);
    const nearest = catalogue.nearest(reading.features, NEIGHBOURS);
    Object.assign(state, { chosen: -1, point: { x, y }, neighbours: nearest });
    panel.place(reading, nearest);
    painter.ask();
  }

  function forget() {
    Object.assign(state, { chosen: -1, point: null, neighbours: [] });
    panel.empty();
    painter.ask();
  }

  // -- the view

  function showAll() {
    const { index } = state.layout, margin = 36;
    const width = Math.max(index.right - index.left, 1e-6), height = Math.max(index.bottom - index.top, 1e-6);
    state.whole = Math.min((painter.width - 2 * margin) / width, (painter.height - 2 * margin) / height);
    state.view = { x: (index.left + index.right) / 2, y: (index.top + index.bottom) / 2, k: state.whole };
    painter.ask();
  }

  function zoom(factor, sx = painter.width / 2, sy = painter.height / 2) {
    const k = Math.max(state.whole * 0.5, Math.min(state.whole * MOST, state.view.k * factor));
    const [x, y] = painter.place(sx, sy);
    state.view = { x: x - (sx - painter.width / 2) / k, y: y - (sy - painter.height / 2) / k, k };
    painter.ask();
  }

  function pan(dx, dy) {
    state.view.x -= dx / state.view.k; state.view.y -= dy / state.view.k;
    painter.ask();
  }

  const under = (sx, sy, radius = NEAR) => {
    const [x, y] = painter.place(sx, sy);
    return state.layout.index.nearest(x, y, radius / state.view.k, item => state.visible[item]);
  };

  function hover(sx, sy) {
    const item = under(sx, sy);
    map.classList.toggle("over", item >= 0 && !state.reading);
    if (item !== state.hover) {
      state.hover = item;
      tip.hidden = item < 0;
      if (item >= 0) {
        tip.replaceChildren(photoOf(catalogue, item), make("p", {}, make("b", {}, make("bdi", {}, catalogue.ids[item])), catalogue.title(item)));
      }
      painter.ask();
    }
    if (item < 0) return;
    const [x, y] = painter.screen(item), { offsetWidth: w, offsetHeight: h } = tip;
    tip.style.transform = `translate(${Math.max(6, Math.min(painter.width - w - 6, x + 16 + w > painter.width ? x - w - 16 : x + 16))}px,`
      + `${Math.max(6, Math.min(painter.height - h - 6, y - h / 2))}px)`;
  }

  function leave() { state.hover = -1; tip.hidden = true; painter.ask(); }

  // -- mouse, touch, keyboard

  const pointers = new Map();
  let moved = 0, pinch = 0;
  const at = event => { const box = map.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  map.addEventListener("pointerdown", event => {
    if (event.isTrusted) map.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    if (pointers.size === 1) moved = 0;
    pinch = 0; state.keyboard = false;
  });
  map.addEventListener("pointermove", event => {
    const [x, y] = at(event), before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") hover(x, y);
      if (state.reading && event.pointerType === "mouse") read(...painter.place(x, y));
      return;
    }
    moved += Math.hypot(x - before[0], y - before[1]);
    pointers.set(event.pointerId, [x, y]);
    if (pointers.size === 1) {
      if (moved > TAP) { leave(); map.classList.add("dragging"); pan(x - before[0], y - before[1]); }
      return;
    }
    const [one, other] = [...pointers.values()], apart = Math.hypot(one[0] - other[0], one[1] - other[1]);
    if (pinch) zoom(apart / pinch, (one[0] + other[0]) / 2, (one[1] + other[1]) / 2);
    pan((x - before[0]) / 2, (y - before[1]) / 2);
    pinch = apart; moved = Infinity;
  });
  const up = event => {
    const known = pointers.delete(event.pointerId);
    pinch = 0;
    map.classList.remove("dragging");
    if (!known || event.type !== "pointerup" || pointers.size || moved > TAP) return;
    const [x, y] = at(event), item = state.reading ? -1 : under(x, y, event.pointerType === "mouse" ? NEAR : 22);
    if (item >= 0) choose(item); else read(...painter.place(x, y));
  };
  map.addEventListener("pointerup", up);
  map.addEventListener("pointercancel", up);
  map.addEventListener("pointerleave", leave);
  map.addEventListener("wheel", event => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.0016)), ...at(event));
    hover(...at(event));
  }, { passive: false });
  map.addEventListener("dblclick", event => zoom(2, ...at(event)));
  const toggle = name => {
    state[name] = !state[name];
    $(name === "reading" ? "read" : name).setAttribute("aria-pressed", state[name]);
    map.classList.toggle("reading", state.reading);
    painter.ask();
  };
  const keys = {
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), "0": showAll, p: () => toggle("photos"),
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    r: () => read(state.view.x, state.view.y), Escape: forget,
    Enter: () => {
      const item = under(painter.width / 2, painter.height / 2, 60);
      if (item >= 0) choose(item); else read(state.view.x, state.view.y);
    },
  };
  map.addEventListener("keydown", event => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    state.keyboard = true;
    act();
    painter.ask();
  });
  map.addEventListener("blur", () => { state.keyboard = false; painter.ask(); });
  $("closer").addEventListener("click", () => zoom(1.6));
  $("farther").addEventListener("click", () => zoom(1 / 1.6));
  $("whole").addEventListener("click", showAll);
  $("photos").addEventListener("click", () => toggle("photos"));
  $("read").addEventListener("click", () => toggle("reading"));
  document.addEventListener("keydown", event => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { event.preventDefault(); $("query").focus(); }
  });

  // -- colours, heat, filters

  const option = (text, value) => make("option", { value }, text);
  const values = (first, select) => {
    select.append(...first);
    catalogue.attributes.forEach((attribute, a) => {
      const group = make("optgroup", { label: attribute.label });
      attribute.values.forEach((value, v) => group.append(option(value.label, `${a}=${v}`)));
      select.append(group);
    });
  };
  $("colour").append(...catalogue.attributes.map((attribute, a) => option(attribute.label, String(a))));
  state.colour = Math.max(0, catalogue.attributes.findIndex(attribute => attribute.name === catalogue.colour));
  $("colour").value = String(state.colour);
  values([option("None", ""), option("Density of items", "density")], $("heat"));
  values([option("All items", "")], $("filter"));
  if (catalogue.heat) {
    const [name, value] = catalogue.heat.split(/=(.*)/s), a = catalogue.attributes.findIndex(attribute => attribute.name === name);
    const v = a < 0 ? -1 : catalogue.attributes[a].values.findIndex(entry => entry.name === value);
    $("heat").value = v < 0 ? catalogue.heat : `${a}=${v}`;
  }
  const chosenPair = text => text.split("=").map(Number);

  function showHeat() {
    const choice = $("heat").value;
    $("scale").hidden = !choice;
    state.heat = null;
    if (choice) {
      const [a, v] = chosenPair(choice), attribute = catalogue.attributes[a];
      state.heat = choice === "density" ? { density: true } : { density: false, column: attribute.start + v };
      $("scale-name").textContent = choice === "density" ? "Density of items" : `${attribute.label}: ${attribute.values[v].label}`;
      [$("scale-low").textContent, $("scale-high").textContent] = choice === "density" ? ["few", "many"] : ["0%", "100%"];
      const context = $("ramp").getContext("2d");
      for (let x = 0; x < 160; x++) { context.fillStyle = `rgb(${ramp(x / 159).join(" ")})`; context.fillRect(x, 0, 1, 8); }
    }
    painter.ask();
  }

  function showLegend() {
    const a = state.colour, attribute = catalogue.attributes[a], counts = attribute.values.map(() => 0);
    for (let item = 0; item < catalogue.n; item++) { const v = catalogue.value(item, a); if (v !== NO_VALUE) counts[v] += 1; }
    const order = counts.map((_, v) => v).filter(v => counts[v]).sort((x, y) => counts[y] - counts[x]);
    $("legend").replaceChildren(...order.map(v => {
      const pair = `${a}=${v}`;
      const button = make("button", { type: "button", "aria-pressed": $("filter").value === pair },
        drawing("0 0 12 12", { "aria-hidden": "true" }, ["circle", { cx: 6, cy: 6, r: 5.4, fill: colourOf(attribute, v) }]),
        attribute.values[v].label, make("small", {}, counts[v].toLocaleString("en")));
      button.addEventListener("click", () => { $("filter").value = $("filter").value === pair ? "" : pair; apply(); });
      return make("li", {}, button);
    }));
    painter.ask();
  }

  /** A word finds values whose name or label holds it, and ids that hold it. */
  function apply() {
    const words = plain($("query").value).split(/\s+/).filter(Boolean), pair = $("filter").value, [a, v] = chosenPair(pair);
    const tables = words.map(word => catalogue.attributes.map(attribute => attribute.values.map(value => plain(value.label + " " + value.name).includes(word))));
    let shown = 0;
    for (let item = 0; item < catalogue.n; item++) {
      const match = (!pair || catalogue.value(item, a) === v) && words.every((word, w) =>
        lower[item].includes(word) || tables[w].some((table, other) => table[catalogue.value(item, other)]));
      state.visible[item] = match ? 1 : 0;
      shown += match;
    }
    $("shown").textContent = `${shown.toLocaleString("en")} of ${catalogue.n.toLocaleString("en")} items`;
    $("clear").hidden = !pair && !words.length;
    showLegend();
  }

  let pending = 0;
  $("query").addEventListener("input", () => { clearTimeout(pending); pending = setTimeout(apply, 90); });
  $("filter").addEventListener("change", apply);
  $("heat").addEventListener("change", showHeat);
  $("colour").addEventListener("change", () => { state.colour = Number($("colour").value); showLegend(); });
  $("tools").addEventListener("submit", event => event.preventDefault());
  $("tools").addEventListener("reset", event => { event.preventDefault(); $("query").value = ""; $("filter").value = ""; apply(); });
  for (const radio of document.getElementsByName("layout")) {
    radio.addEventListener("change", () => {
      state.layout = catalogue.layouts[Number(radio.value)];
      state.point = null; leave(); showAll();
    });
  }
  scheme.addEventListener("change", () => { showHeat(); showLegend(); });

  let last = "";
  new ResizeObserver(() => {
    const before = painter.width;
    painter.resize();
    const size = painter.width + "x" + painter.height;
    if (before && size !== last && state.view.k !== state.whole) painter.draw(); else { showAll(); painter.draw(); }
    last = size;
  }).observe(map);
  painter.resize();
  showAll();
  panel.empty();
  showHeat();
  apply();
  $("loading").remove();
  map.dataset.ready = "yes";
}

start().catch(error => {
  $("loading")?.remove();
  $("problem").hidden = false;
  $("problem").textContent = "The map cannot be shown: " + error.message + ". It needs a browser of 2023 or later.";
});
