"""Draw report.png, the picture of a page in README.md, from the results of ``make demo``.

    make demo
    python docs/images/draw_report.py

It needs Chromium and playwright, as the tests of pages do.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from repsim.report import load_results, write_report

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "demo-output" / "results"
WIDTH = 990  # pixels: the least in which the map and the curve stand side by side
CELL = "stage1.1", "blocks.1.mlp.fc2"


def main() -> None:
    """Write report.png beside this file."""
    results = load_results(RESULTS)
    result = results["cnn-vit"]
    row, column = (
        result[f"layer_{side}"].values.tolist().index(name)
        for side, name in zip("xy", CELL, strict=True)
    )
    browser_at = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = write_report({"CNN with ViT": result}, Path(folder) / "report.html")
        browser = driver.chromium.launch(executable_path=browser_at, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1800})
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        canvas = page.locator("canvas.map").first
        place = json.loads(str(canvas.get_attribute("data-place")))
        x = place["x"] + place["w"] * (column + 0.5) / len(result.layer_y)
        y = place["y"] + place["h"] * (1 - (row + 0.5) / len(result.layer_x))
        canvas.hover(position={"x": x, "y": y})
        page.locator(".tip:not([hidden])").wait_for()
        # Not the screenshot of an element: it scrolls, and the pointer leaves the cell.
        page.screenshot(path=HERE / "report.png", clip=page.locator("#result-1").bounding_box())
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
