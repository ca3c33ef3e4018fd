"""The map in a real browser: hover, click, filter, zoom, heat map and reading a point, under its own policy."""

from __future__ import annotations

import html
import json
import queue
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from catalog.gallery_page import jpeg
from catalog.map_items import circle_of, grouped_points, page_of
from services.environments import outside_environment

from tagger.catalog.map.page import Photos

DRIVER = """<!DOCTYPE html><iframe src="map.html" width="1200" height="900"></iframe><script>
const XY = %s, log = {}, frame = document.querySelector("iframe");
const send_log = () => fetch("log", { method: "POST", body: JSON.stringify(log) });
let page, map, w, h, k;
const text = selector => page.querySelector(selector)?.textContent ?? "";
const send = (type, x, y, more = {}) => {
  const box = map.getBoundingClientRect();
  const Kind = type === "wheel" ? page.defaultView.WheelEvent : page.defaultView.PointerEvent;
  const place = { clientX: box.left + x, clientY: box.top + y, pointerId: 1, pointerType: "mouse" };
  map.dispatchEvent(new Kind(type, { ...place, bubbles: true, ...more }));
};
const pick = (id, value) => {
  const e = page.getElementById(id); e.value = value; e.dispatchEvent(new Event("change"));
};
const click = (x, y) => { send("pointerdown", x, y); send("pointerup", x, y); };
const low = [0, 1].map(i => Math.min(...XY.map(p => p[i]))), high = [0, 1].map(i => Math.max(...XY.map(p => p[i])));
const at = i => [(XY[i][0] - (low[0] + high[0]) / 2) * k + w / 2, (XY[i][1] - (low[1] + high[1]) / 2) * k + h / 2];
const next_frame = () => new Promise(done => page.defaultView.requestAnimationFrame(done));
const painted = async () => {
  await next_frame(); await next_frame();
  const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) sum += data[i + 3] ? 1 : 0;
  return sum;
};
const tip = () => page.getElementById("tip").hidden ? "" : text("#tip b");
async function use() {
  while (!frame.contentDocument?.querySelector("#map[data-ready]")) await new Promise(done => setTimeout(done, 50));
  page = frame.contentDocument;
  map = page.getElementById("map");
  [w, h] = [map.clientWidth, map.clientHeight];
  k = Math.min((w - 72) / (high[0] - low[0]), (h - 72) / (high[1] - low[1]));
  log.shown = text("#shown");
  log.points = await painted();
  send("pointermove", ...at(59));
  log.hover = tip();
  log.photo = page.querySelector("#tip img")?.src.slice(0, 5);
  send("pointermove", 5, 5);
  log.nothing = tip();
  click(...at(59));
  log.chosen = text("#panel h2");
  log.tags = [...page.querySelectorAll("#panel .value")].map(e => e.textContent);
  log.neighbours = [...page.querySelectorAll("#panel .neighbours b")].map(e => e.textContent);
  log.compared = text("#panel .neighbours small");
  page.querySelector("#panel .neighbours button").click();
  log.next = text("#panel h2");
  click(w / 2, h / 2);
  log.read = [text("#panel h2"), text("#panel .words"), page.querySelectorAll("#panel .neighbours li").length];
  pick("filter", "1=0");
  log.filtered = text("#shown");
  send("pointermove", ...at(59));
  log.hidden = tip();
  page.getElementById("query").value = "dress 0";
  page.getElementById("query").dispatchEvent(new Event("input"));
  await new Promise(done => setTimeout(done, 200));
  log.searched = text("#shown");
  page.getElementById("clear").click();
  log.cleared = text("#shown");
  page.querySelector("#legend button").click();
  log.legend = [text("#shown"), page.querySelector("#legend [aria-pressed=true]").textContent];
  page.querySelector("#legend [aria-pressed=true]").click();
  pick("heat", "1=0");
  log.heat = [await painted(), page.getElementById("scale").hidden, text("#scale-name")];
  pick("heat", "density");
  log.density = text("#scale-name");
  pick("heat", "");
  const [x, y] = at(59);
  send("wheel", x, y, { deltaY: -400, cancelable: true });
  log.zoomed = tip();
  send("pointermove", (x + w) / 2, (y + h) / 2);
  const before = await painted();
  map.dispatchEvent(new page.defaultView.KeyboardEvent("keydown", { key: "0", bubbles: true }));
  log.grew = [before, await painted()];
  send("pointermove", ...at(59));
  log.whole = tip();
  page.querySelectorAll("[name=layout]")[1].click();
  send("pointermove", ...at(59).reverse());
  log.layout = page.querySelectorAll("[name=layout]")[1].checked;
  await send_log();
}
use().catch(error => { log.error = error.stack; send_log(); });
</script>"""


def use(folder: Path, page: str, driver: str) -> dict[str, Any]:
    """What `driver` notes down of a page in a browser, both served from this machine, the page as it is.

    Real time, not the browser's virtual one: unpacking the page's data is work of another thread.
    """
    (folder / "map.html").write_text(page, "utf-8")
    (folder / "index.html").write_text(driver, "utf-8")
    logs: queue.Queue[bytes] = queue.Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            logs.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = [
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder}/profile"),
            *("--remote-debugging-port=0", f"http://127.0.0.1:{server.server_port}/index.html"),
        ]
        with subprocess.Popen(["chromium", *options], env=outside_environment(), stderr=subprocess.DEVNULL) as browser:
            try:
                log: dict[str, Any] = json.loads(logs.get(timeout=120))
            finally:
                browser.terminate()
                server.shutdown()
    return log


def test_the_map_is_used_under_its_own_policy(tmp_path: Path) -> None:
    points = grouped_points(60)
    text = page_of(points, photos=Photos({59: jpeg()}))
    assert "script-src 'sha256-" in html.unescape(text)
    log = use(tmp_path, text, DRIVER % json.dumps(circle_of(points).tolist()))
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
