"""The gallery page in a real browser: its script runs under its own policy, and its filters work."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from catalog.gallery_page import CARDS, HOSTILE, Page, page_of
from services.environments import run_outside

DRIVER = """<script>
const log = [];
const note = () => log.push([...document.querySelectorAll(".card:not([hidden]) h2")].map(e => e.textContent).join("+")
  + " | " + document.getElementById("shown").textContent);
const set = (id, value, type) => {
  const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event(type));
};
note();
for (const state of ["accepted", "review", "failed", "all"]) {
  document.querySelector(`[value=${state}]`).click();
  note();
}
set("attribute", "=category", "change"); note();
set("value", "=shirt", "change"); note();
document.getElementById("clear").click();
setTimeout(() => {
  note(); set("query", "RED dress", "input");
  setTimeout(() => { note(); document.body.dataset.log = log.join("\\n"); }, 200);
}, 50);
</script>"""


def test_filters(tmp_path: Path) -> None:
    text = page_of(*CARDS)
    assert "</body>" in text
    driven = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", DRIVER + "</body>")
    (tmp_path / "page.html").write_text(driven, "utf-8")
    dom = Page(dump_dom(tmp_path / "page.html", tmp_path / "profile"))
    (body,) = dom.all("body")
    assert (body["data-log"] or "").split("\n") == [
        "001+002+003+004 | 4 of 4 shown",
        "001+004 | 2 of 4 shown",
        "002 | 1 of 4 shown",
        "003 | 1 of 4 shown",
        "001+002+003+004 | 4 of 4 shown",
        "001+002+004 | 3 of 4 shown",
        "002 | 1 of 4 shown",
        "001+002+003+004 | 4 of 4 shown",
        "001 | 1 of 4 shown",
    ]


def test_the_policy_lets_the_pages_own_script_run(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page_of(*CARDS, replace(CARDS[1], item_id=HOSTILE)), "utf-8")
    dom = Page(dump_dom(tmp_path / "page.html", tmp_path / "profile"))
    assert "5 of 5 shown" in dom.texts
    assert "hidden" not in next(a for a in dom.all("div", "tools"))


def dump_dom(page: Path, profile: Path) -> str:
    """The page as the browser has it after its scripts ran."""
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"),
        *("--virtual-time-budget=3000", "--dump-dom", page.as_uri()),
    ]
    return run_outside("chromium", *options, timeout=120)
