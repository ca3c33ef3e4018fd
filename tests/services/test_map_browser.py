"""The map in a real browser: hover, click, filter, zoom, heat map and reading a point, under its own policy."""

from __future__ import annotations

import json
import re
from pathlib import Path

from catalog.gallery_page import Page, jpeg
from catalog.map_items import TEXTS, circle_of, grouped_points, page_of
from services.test_gallery_browser import dump_dom

from tagger.catalog.map.page import Photos

DRIVER = """<script>
const XY = %s, log = {}, map = document.getElementById("map");
const text = selector => document.querySelector(selector)?.textContent ?? "";
const send = (type, x, y, more = {}) => {
  const box = map.getBoundingClientRect();
  const Kind = type === "wheel" ? WheelEvent : PointerEvent;
  const place = { clientX: box.left + x, clientY: box.top + y, pointerId: 1, pointerType: "mouse" };
  map.dispatchEvent(new Kind(type, { ...place, bubbles: true, ...more }));
};
const pick = (id, value) => {
  const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event("change"));
};
const click = (x, y) => { send("pointerdown", x, y); send("pointerup", x, y); };
const low = [0, 1].map(i => Math.min(...XY.map(p => p[i]))), high = [0, 1].map(i => Math.max(...XY.map(p => p[i])));
const [w, h] = [map.clientWidth, map.clientHeight];
const k = Math.min((w - 72) / (high[0] - low[0]), (h - 72) / (high[1] - low[1]));
const at = i => [(XY[i][0] - (low[0] + high[0]) / 2) * k + w / 2, (XY[i][1] - (low[1] + high[1]) / 2) * k + h / 2];
const painted = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
  const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) sum += data[i + 3] ? 1 : 0;
  done(sum);
})));
const tip = () => document.getElementById("tip").hidden ? "" : text("#tip b");
async function use() {
  while (!map.dataset.ready) await new Promise(done => setTimeout(done, 20));
  log.shown = text("#shown");
  log.points = await painted();
  send("pointermove", ...at(59));
  log.hover = tip();
  log.photo = document.querySelector("#tip img")?.src.slice(0, 5);
  send("pointermove", 5, 5);
  log.nothing = tip();
  click(...at(59));
  log.chosen = text("#panel h2");
  log.tags = [...document.querySelectorAll("#panel .value")].map(e => e.textContent);
  log.neighbours = [...document.querySelectorAll("#panel .neighbours b")].map(e => e.textContent);
  log.compared = text("#panel .neighbours small");
  document.querySelector("#panel .neighbours button").click();
  log.next = text("#panel h2");
  click(w / 2, h / 2);
  log.read = [text("#panel h2"), text("#panel .words"), document.querySelectorAll("#panel .neighbours li").length];
  pick("filter", "1=0");
  log.filtered = text("#shown");
  send("pointermove", ...at(59));
  log.hidden = tip();
  document.getElementById("query").value = "dress 0";
  document.getElementById("query").dispatchEvent(new Event("input"));
  await new Promise(done => setTimeout(done, 200));
  log.searched = text("#shown");
  document.getElementById("clear").click();
  log.cleared = text("#shown");
  document.querySelector("#legend button").click();
  log.legend = [text("#shown"), document.querySelector("#legend [aria-pressed=true]").textContent];
  document.querySelector("#legend [aria-pressed=true]").click();
  pick("heat", "1=0");
  log.heat = [await painted(), document.getElementById("scale").hidden, text("#scale-name")];
  pick("heat", "density");
  log.density = text("#scale-name");
  pick("heat", "");
  const [x, y] = at(59);
  send("wheel", x, y, { deltaY: -400, cancelable: true });
  log.zoomed = tip();
  send("pointermove", (x + w) / 2, (y + h) / 2);
  const before = await painted();
  map.dispatchEvent(new KeyboardEvent("keydown", { key: "0", bubbles: true }));
  log.grew = [before, await painted()];
  send("pointermove", ...at(59));
  log.whole = tip();
  document.querySelectorAll("[name=layout]")[1].click();
  send("pointermove", ...at(59).reverse());
  log.layout = document.querySelectorAll("[name=layout]")[1].checked;
  document.body.dataset.log = JSON.stringify(log);
}
use().catch(error => { document.body.dataset.log = JSON.stringify({ error: error.stack }); });
</script>"""


def test_the_map_is_used(tmp_path: Path) -> None:
    points = grouped_points(60)
    text = page_of(points, photos=Photos({59: jpeg()}))
    driver = DRIVER % json.dumps(circle_of(points).tolist())
    driven = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", driver + "</body>")
    (tmp_path / "page.html").write_text(driven, "utf-8")
    (body,) = Page(dump_dom(tmp_path / "page.html", tmp_path / "profile")).all("body")
    log = json.loads(body["data-log"] or "{}")
    assert "error" not in log, log
    assert log["shown"] == log["cleared"] == "60 of 60 items"
    assert log["points"] > 500
    assert (log["hover"], log["photo"], log["nothing"]) == ("059", "blob:", "")
    kind, colour = (points.schema.attributes[i].values[points.best[59, i]].display() for i in (0, 1))
    assert log["chosen"] == "059"
    assert log["tags"][:2] == [kind, colour]
    nearest = [int(item) for item in log["neighbours"]]
    assert len(nearest) == 4
    assert 59 not in nearest
    assert all(points.best[item].tolist() == points.best[59].tolist() for item in nearest)
    assert log["compared"].startswith(f"same: {kind}, {colour}")
    assert log["next"] == log["neighbours"][0]
    assert log["read"][0] == "At this point of the map"
    assert log["read"][1].endswith(".")
    assert log["read"][2] == 4
    red = int((points.best[:, 1] == 0).sum())
    assert log["filtered"] == f"{red} of 60 items"
    assert log["hidden"] == ("059" if points.best[59, 1] == 0 else "")
    dress_or_0 = sum(points.best[i, 1] == 0 and points.best[i, 0] == 0 and "0" in f"{i:03d}" for i in range(60))
    assert log["searched"] == f"{dress_or_0} of 60 items"
    assert log["legend"][0] == "20 of 60 items"
    assert log["legend"][1].endswith("20")
    assert log["heat"][0] > 2 * log["points"]
    assert log["heat"][1:] == [False, "colour: red"]
    assert log["density"] == "Density of items"
    assert log["zoomed"] == "059"  # what the wheel turns over stays where it is
    assert log["grew"][0] != log["grew"][1]
    assert log["whole"] == "059"
    assert log["layout"] is True


def test_the_policy_lets_the_pages_own_script_run(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page_of(grouped_points(60), TEXTS), "utf-8")
    dom = Page(dump_dom(tmp_path / "page.html", tmp_path / "profile"))
    assert "60 of 60 items" in dom.texts
    assert dom.all("canvas")[0].get("data-ready") == "yes"
