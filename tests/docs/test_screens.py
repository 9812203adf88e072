"""The documentation on a phone, on a desk and on paper, light and dark, in a browser.

The pages are built without running their code. REPSIM_DOCS=docs/_build/html checks a whole build.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from browsers import faults

pytest.importorskip("furo")
pytest.importorskip("sphinx_gallery")

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
RUN_CODE = {"sphinx_gallery.gen_gallery", "executed_pages", "gallery_downloads", "reference_pages"}
SIDE = ".sidebar-scroll, .toc-scroll"  # lists of pages may scroll, up and down

SCREENS = (
    {"width": 390, "color_scheme": "light", "media": "screen"},
    {"width": 1440, "color_scheme": "dark", "media": "screen"},
    {"width": 390, "color_scheme": "dark", "media": "screen"},
    {"width": 1440, "color_scheme": "light", "media": "screen"},
    {"width": 690, "color_scheme": "light", "media": "print"},
)
SOME = ("index.html", "measures.html")
"""Pages in every scheme; the others once on a phone, and those of a whole build once on a desk."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the pages as HTML."""
    if os.environ.get("REPSIM_DOCS"):
        return Path(os.environ["REPSIM_DOCS"]).absolute()
    folder = tmp_path_factory.mktemp("site")
    left_out = shutil.ignore_patterns("_*", "auto_gallery", "gallery", "reference", "notes")
    shutil.copytree(DOCS, folder / "source", ignore=left_out)
    named = re.search(r"^extensions = (\[.*?\])", (DOCS / "conf.py").read_text(), re.M | re.S)[1]
    extensions = ",".join(name for name in ast.literal_eval(named) if name not in RUN_CODE)
    command = [sys.executable, "-m", "sphinx", "-q", "-c", DOCS, "-D", f"extensions={extensions}"]
    done = subprocess.run(
        [*command, folder / "source", folder / "html"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_pages_fit_every_screen(browser, site):
    """No page scrolls sideways, nor a table, a formula or code on it; text stands out."""
    pages = sorted(path for path in site.rglob("*.html") if path.name != "genindex.html")
    assert len(pages) > 30
    once = 2 if os.environ.get("REPSIM_DOCS") else 1
    found = {}
    for at, screen in enumerate(SCREENS):
        page = browser.new_page(
            viewport={"width": screen["width"], "height": 900}, color_scheme=screen["color_scheme"]
        )
        page.emulate_media(media=screen["media"])
        for path in pages:
            if at < once or path.name in SOME:
                page.goto(path.as_uri())
                if wrong := faults(page, scrolling=SIDE):
                    found[path.relative_to(site).as_posix(), *screen.values()] = wrong[:5]
        page.close()
    assert not found


def test_a_row_of_a_wide_table_is_a_card_on_a_phone(browser, site):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto((site / "measures.html").as_uri())
    row = page.locator("table.cards tbody tr").filter(has_text=re.compile(r"^\s*svcca")).first
    assert re.sub(r"\s+", " ", row.inner_text()).startswith("svcca")
    label = "getComputedStyle(e, '::before').content"
    cell = row.locator("td").nth(2)
    assert cell.evaluate(f"e => {label}") == '"range"'
    boxes = [each.bounding_box() for each in row.locator("td:visible").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
    assert boxes[1]["y"] > boxes[0]["y"]
    page.set_viewport_size({"width": 1440, "height": 900})
    assert cell.evaluate(f"e => {label}") == "none"
    page.close()
