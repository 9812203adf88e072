"""The page of a run on a phone, on a desk and on paper, light and dark, in a browser."""

from __future__ import annotations

import pytest

from browsers import LABELS, faults
from plot import results as made
from report.pages import compared, with_itself
from repsim.measures import layer_match
from repsim.report import write_report

pytestmark = pytest.mark.slow

LONG = "vit_base_patch16_224.augreg2_in21k_ft_in1k"


def results():
    """Results of every kind, with long names and with models that were not trained."""
    cross = compared(model_x=LONG, weights_x="random (seed 0)", estimator="biased")
    return {
        "CNN with ViT": cross,
        "small": compared(2, 3),
        "untrained ViT with itself": with_itself(),
        "many layers": compared(252, 68, names=("encoder.layers.encoder_layer_{}.mlp", "l{}.out")),
        "attention": made.attention(),
        "subsets": made.subsets(),
        "fields": made.fields(rows=100, columns=90),
        "ratios": made.ratios(),
        "influences": made.influences(),
        "localisation": made.localized(layers=3, grid=(7, 7)),
        "probes": made.probes(single=5),
        "scales": made.scales(),
        "steps": made.steps(),
        "match": layer_match(compared()),
    }


SCREENS = (
    (390, "light", "screen"),
    (390, "dark", "screen"),
    (1440, "light", "screen"),
    (1440, "dark", "screen"),
    (690, "dark", "print"),  # the width of A4 without margins
)
TABLES = ".scroll, .scroll *"  # tables of all values may scroll in their frames


def test_every_picture_fits_every_screen(browser, tmp_path, keep):
    skipped = {"attention_distance": "AttentionRecorder: no attention was seen."}
    path = write_report(results(), tmp_path / "report.html", skipped=skipped)
    found = {}
    for width, scheme, media in SCREENS:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.emulate_media(media=media)
        page.add_init_script(LABELS)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)
        keep(page, f"page-{width}-{scheme}-{media}.png")
        wrong = faults(page, scrolling=TABLES)
        title = page.locator("h1").bounding_box()
        if title["x"] < 0 or title["x"] + title["width"] > width or title["y"] > 200:
            wrong.append(f"the title lies at {title}")
        if not page.locator("header .untrained").is_visible():
            wrong.append("the page does not say at its top what was not trained")
        for badge in page.locator("#result-1 .badge, #result-3 .badge").all():
            if not badge.is_visible():
                wrong.append("a badge is hidden")
        if page.locator("figure .badge").count() < 4:
            wrong.append("pictures of models that were not trained have no badge")
        for figure in page.locator("figure").all():
            picture = figure.locator("canvas, svg").first.bounding_box()
            if picture["height"] < 40 or picture["width"] < 60:
                wrong.append(f"{figure.get_attribute('data-alt')[:60]} is {picture}")
        if wrong:
            found[width, scheme, media] = wrong[:8]
        page.close()
    assert not found
