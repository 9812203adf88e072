"""A browser for the pages that repsim makes, and what can be wrong with a page on a screen."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing(what):
    """Skip on a machine without a browser; in CI a missing browser is an error."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"the report's pages are not tested: {what}")
    pytest.skip(f"{what}; apt-get install chromium, pip install playwright")


@pytest.fixture(scope="session")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        missing(f"none of {', '.join(BROWSERS)} is installed")
    if importlib.util.find_spec("playwright") is None:
        missing("playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=found, args=QUIET)
        yield made
        made.close()


CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map(
      (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const out = [];
  for (const element of document.querySelectorAll("body *:not(script):not(noscript)")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const svg = element instanceof SVGElement;
    const a = light(parse(svg ? style.fill : style.color));
    const b = light(ground(element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const kind = element.tagName + "." + element.getAttribute("class");
    out.push([ratio, kind + ": " + element.textContent.trim().slice(0, 30)]);
  }
  return out;
}"""
"""The contrast of every text on a page to its ground, and where."""

FAULTS = """(scrolling) => {
  const wide = document.documentElement.clientWidth, out = [];
  const say = (...words) => out.push(words.map(String).join(" "));
  if (document.documentElement.scrollWidth > wide)
    say("the page scrolls:", document.documentElement.scrollWidth, "of", wide);
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const style = getComputedStyle(e), box = e.getBoundingClientRect();
    const where = e.tagName + "." + e.getAttribute("class") + ": "
      + e.textContent.trim().slice(0, 40);
    const over = e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1;
    if (over && /auto|scroll|hidden|clip/.test(style.overflowX) && !e.matches(scrolling))
      say("scrolls or is cut:", e.scrollWidth, "of", e.clientWidth, where);
    if (e.matches("img, canvas, svg") && (box.width < 1 || box.right > wide + 1))
      say("a picture is empty or too wide:", box.left, box.right, where);
    if (e.tagName === "IMG" && !e.naturalWidth) say("a picture is missing:", e.src);
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const frame = e instanceof SVGElement && e.closest("svg").getBoundingClientRect();
    if (own && frame && (box.left < frame.left - 1 || box.right > frame.right + 1
        || box.top < frame.top - 1 || box.bottom > frame.bottom + 1))
      say("a label is cut:", where);
    let inside = e;
    while (inside && getComputedStyle(inside).overflowX === "visible")
      inside = inside.parentElement;
    if (own && !inside && box.right > 0 && (box.left < -1 || box.right > wide + 1))
      say("text beside the page:", box.left, box.right, where);
  }
  for (const label of window.cutLabels ?? []) say("a label of a map is cut:", label);
  return out;
}"""

LABELS = """(() => {
  window.cutLabels = [];
  const drawn = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y, ...rest) {
    const size = this.measureText(text), at = this.getTransform(), edge = 1;
    for (const [a, b] of [[-size.actualBoundingBoxLeft, -size.actualBoundingBoxAscent],
        [size.actualBoundingBoxRight, size.actualBoundingBoxDescent]]) {
      const point = at.transformPoint({ x: x + a, y: y + b });
      if (point.x < -edge || point.y < -edge || point.x > this.canvas.width + edge
          || point.y > this.canvas.height + edge) window.cutLabels.push(text);
    }
    return drawn.call(this, text, x, y, ...rest);
  };
})()"""
"""Notes the labels of maps that are not wholly on their canvas; to be run before the page."""


def faults(page, *, scrolling=":not(*)"):
    """What is wrong with a page on its screen; elements that match ``scrolling`` may scroll."""
    pale = [each for each in page.evaluate(CONTRAST) if each[0] < 4.5]
    return page.evaluate(FAULTS, scrolling) + [f"pale: {ratio:.1f} {what}" for ratio, what in pale]
