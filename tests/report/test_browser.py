"""The page in a browser: pointing, zooming, screens of any size, and hostile names."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
import xarray as xr

from browsers import CONTRAST
from plot import results as made
from report.pages import (
    HOSTILE,
    compared,
    orders_of,
    place_of,
    position,
    shown,
    shuffled,
    with_itself,
)
from repsim.measures import layer_match
from repsim.plot import heatmap, localization

pytestmark = pytest.mark.slow

EVERY = {
    "CNN with ViT": compared(),
    "untrained ViT with itself": with_itself(),
    "attention": made.attention(),
    "subsets": made.subsets(),
    "many layers of subsets": made.subsets(layers=12, kinds=("growing",)),
    "fields": made.fields(rows=100, columns=90),
    "ratios": made.ratios(),
    "influences": made.influences(),
    "ratios without prefix": made.ratios(prefix=0),
    "localisation": made.localized(layers=3, grid=(7, 7)),
    "probes": made.probes(single=5),
    "scales": made.scales(),
    "steps": made.steps(),
    "between steps": made.between_steps(),
    "match": layer_match(compared()),
    "unknown": xr.Dataset({"loss": ("step", np.linspace(3, 1, 50)), "lr": 0.1}),
}


def orders(result):
    return list(orders_of(result.cka.values).values())


def assert_says(page, canvas, result, rows, columns, i, j):
    """Point at the cell that stands in row i and column j, and read what the page says of it."""
    x, y = position(place_of(canvas), i, j)
    canvas.hover(position={"x": x, "y": y})
    text = page.locator(".tip:not([hidden])").inner_text()
    cell = result.isel(layer_x=int(rows[i]), layer_y=int(columns[j]))
    value = float(cell.cka)
    assert text.splitlines()[0] == shown(value)
    assert f"ViT-Ti/16 layer {cell.layer_x.item()}\n" in text + "\n"
    assert f"ResNet-18 layer {cell.layer_y.item()}\n" in text + "\n"
    assert f"standard error of CKA {shown(float(cell.standard_error), 3)}" in text
    assert f"z-score of CKA under permutation {shown(float(cell.z), 3)}" in text


def colour_at(canvas, i, j):
    """The colour that the map has in the middle of a cell."""
    x, y = position(place_of(canvas), i, j)
    return canvas.evaluate(
        """(canvas, [x, y]) => {
          const density = canvas.width / parseFloat(canvas.style.width);
          const context = canvas.getContext("2d");
          return Array.from(context.getImageData(x * density, y * density, 1, 1).data);
        }""",
        [x, y],
    )


CELLS = [(0, 0), (29, 23), (0, 23), (29, 0), (2, 5), (17, 11), (8, 20)]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_hovering_shows_the_pair_and_its_values_in_every_order(show, order):
    result = shuffled(compared())
    page = show({"map": result})
    canvas = page.locator("canvas.map")
    page.get_by_label("Order").select_option(index=order)
    rows, columns = orders(result)[order]
    if order:  # or the test would show nothing
        assert np.mean(rows == np.arange(30)) < 0.3
        assert np.mean(columns == np.arange(24)) < 0.3
    for i, j in CELLS:
        assert_says(page, canvas, result, rows, columns, i, j)
    page.mouse.move(1, 1)
    assert page.locator(".tip:not([hidden])").count() == 0


def assert_coloured(canvas, image, value, i, j):
    """Check that a cell has the colour of its value in the picture of `repsim.plot.heatmap`."""
    expected = image.cmap(image.norm(value))[:3]
    found = np.array(colour_at(canvas, i, j))[:3] / 255
    assert np.abs(found - expected).max() < 0.02, (i, j, value)


def test_colours_are_those_of_the_values(show):
    result = compared()
    ends = [0.0, -4e-7, -0.002, -0.03, -0.06, -0.2, -0.5, -0.7, 0.5, 1.000001, 1.2]
    result.cka[1, : len(ends)] = ends
    page = show({"map": result})
    canvas = page.locator("canvas.map")
    image = heatmap(result).images[0]
    values = image.get_array()
    for i in [0, 1, *range(3, 30, 2)]:
        for j in range(24) if i == 1 else range(0, 24, 3):
            assert_coloured(canvas, image, values[i, j], i, j)
    legend = page.locator(".legend").first
    assert legend.locator(".scale").inner_text().split() == ["−0.50", "0.00", "1.00"]
    assert legend.locator(".swatch").count() == 3
    for note in ("below −0.50", "above 1.00", "undefined (NaN)"):
        assert note in legend.inner_text()


def test_the_legend_has_the_fade_if_a_value_is_there(show):
    noise, none = with_itself(), with_itself()
    noise.cka[0, 1] = -0.25
    none.cka[0, 1] = -4e-7  # rounding
    page = show({"noise": noise, "none": none})
    for at, ends in ((1, ["−0.25", "0.00", "1.00"]), (2, ["0.00", "1.00"])):
        legend = page.locator(f"#result-{at} .legend").first
        assert legend.locator(".scale").inner_text().split() == ends
        assert legend.locator(".fade").count() == len(ends) - 2
        assert legend.locator(".swatch").count() == 0


def test_z_scores_have_one_scale_and_its_colours(show):
    result = compared(1, 9)
    for z, ends in (
        ([-0.1, 0.0, -1.5, 3.0, -2.5, -3.0, 0.5, 2.0, 1.0], ["−3.00", "0.00", "10.00"]),
        ([-0.1, 0.0, -3.0, 3.0, -5.0, -8.0, 0.5, 90.0, 4.0], ["−8.00", "0.00", "90.00"]),
        ([-0.1, 0.0, -3.0, 3.0, -5.0, -8.0, 0.5, 2.0, 4.0], ["−5.00", "0.00", "10.00"]),
    ):
        result["z"][0] = z
        page = show({"map": result})
        page.get_by_role("combobox").first.select_option(label="z-score of CKA under permutation")
        image = heatmap(result.z).images[0]
        for j, value in enumerate(z):
            assert_coloured(page.locator("canvas.map"), image, value, 0, j)
        legend = page.locator(".legend").first
        assert legend.locator(".scale").inner_text().split() == ends
        bar, fade = (legend.locator(name).bounding_box() for name in (".ramp:not(.fade)", ".fade"))
        low, zero, high = (float(end.replace("−", "-")) for end in ends)
        part = (zero - low) / (high - zero)
        assert fade["width"] == pytest.approx(part * bar["width"], abs=1.0)


def test_token_maps_have_the_colours_of_their_picture(show):
    result = made.localized(layers=1, grid=(2, 2), prefix=0)
    result["cka"][0, 0] = [-0.5, -0.15, 0.02, 0.15]
    page = show({"tokens": result})
    canvas = page.locator(".tile canvas")
    found = canvas.evaluate(
        """(canvas) => Array.from(canvas.getContext("2d").getImageData(0, 0, 2, 2).data)"""
    )
    image = localization(result).images[0]
    expected = image.cmap(image.norm(image.get_array()))
    np.testing.assert_allclose(np.reshape(found, (2, 2, 4)) / 255, expected, atol=0.02)
    legend = page.locator(".legend").nth(1)
    high = float(result["cka"].max())
    least = shown(-high / 2, 2)
    assert legend.locator(".scale").inner_text().split() == [least, "0.00", shown(high, 2)]
    assert f"below {least}" in legend.inner_text()


def test_colours_are_those_of_the_values_when_sorted_and_zoomed(show):
    result = shuffled(compared())
    page = show({"map": result})
    canvas = page.locator("canvas.map")
    page.get_by_label("Order").select_option(index=1)
    canvas.hover(position=dict(zip("xy", position(place_of(canvas), 20, 4), strict=True)))
    page.get_by_label("Zoom in").click()
    page.get_by_label("Zoom in").click()
    r0, r1, c0, c1 = view(canvas)
    assert r1 - r0 < 15
    page.mouse.move(1, 1)
    _, (rows, columns), _ = orders(result)
    image = heatmap(result).images[0]
    checked = 0
    for i in range(int(np.ceil(r0)), int(r1)):
        for j in range(int(np.ceil(c0)), int(c1), 2):
            value = float(result.cka[rows[i], columns[j]])
            if np.isfinite(value):
                assert_coloured(canvas, image, value, i, j)
                checked += 1
    assert checked > 30


def test_cells_not_above_chance_are_greyed(show):
    result = compared()
    page = show({"map": result})
    canvas = page.locator("canvas.map")
    low = np.argwhere(result.z.values < 3)[0]
    high = np.argwhere(result.z.values > 10)[0]
    before = colour_at(canvas, *high)
    page.get_by_label("grey: not above chance (z < 3)").check()
    assert colour_at(canvas, *low)[:3] == [0xB8] * 3
    assert colour_at(canvas, *high) == before


def test_another_variable_is_shown_first_and_in_its_own_scale(show):
    result = compared()
    page = show({"map": result})
    canvas = page.locator("canvas.map")
    page.locator("label", has_text="Show").locator("select").select_option(
        label="standard error of CKA"
    )
    x, y = position(place_of(canvas), 4, 4)
    canvas.hover(position={"x": x, "y": y})
    lines = page.locator(".tip:not([hidden])").inner_text().splitlines()
    assert lines[0] == shown(float(result.standard_error[4, 4]))
    most = float(result.standard_error.max())
    expected = matplotlib.colormaps["viridis"](float(result.standard_error[9, 9]) / most)[:3]
    assert np.abs(np.array(colour_at(canvas, 9, 9))[:3] / 255 - expected).max() < 0.02


def view(canvas):
    place = place_of(canvas)
    return place["r0"], place["r1"], place["c0"], place["c1"]


def test_zooming_by_dragging_buttons_wheel_and_keys(show):
    result = compared()
    page = show({"map": result})
    canvas = page.locator("canvas.map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    whole = view(canvas)
    assert whole == (0, 30, 0, 24)

    # A box from the middle of one cell to that of another shows what lies between.
    place = place_of(canvas)
    start, end = position(place, 20, 5), position(place, 10, 15)
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
    page.mouse.up()
    assert view(canvas) == pytest.approx((10.5, 20.5, 5.5, 15.5), abs=0.2)
    for i, j in [(11, 6), (19, 14), (15, 10)]:
        assert_says(page, canvas, result, range(30), range(24), i, j)

    # Shift and a drag move what is in view by as many cells as the pointer.
    place = place_of(canvas)
    start, end = position(place, 15, 10), position(place, 13, 11)
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert view(canvas) == pytest.approx((12.5, 22.5, 4.5, 14.5), abs=0.3)
    assert_says(page, canvas, result, range(30), range(24), 18, 8)

    page.get_by_label("Show the whole map").click()
    assert view(canvas) == whole
    page.get_by_label("Zoom in").click()
    inside = view(canvas)
    assert inside[1] - inside[0] == pytest.approx(30 / 1.6)
    page.get_by_label("Order").select_option(index=1)  # keeps the zoom
    assert view(canvas) == inside
    _, (rows, columns), _ = orders(result)
    assert_says(page, canvas, result, rows, columns, 15, 12)
    page.get_by_label("Zoom out").click()
    assert view(canvas) == pytest.approx(whole)

    # With Ctrl (as a pinch on a pad arrives) the wheel zooms about the pointer; alone it scrolls.
    canvas.hover(position=dict(zip("xy", position(place_of(canvas), 20, 12), strict=True)))
    page.mouse.wheel(0, -30)
    assert view(canvas) == pytest.approx(whole)
    canvas.hover(position=dict(zip("xy", position(place_of(canvas), 20, 12), strict=True)))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -50)
    page.keyboard.up("Control")
    page.locator("canvas.map[data-zoomed]").wait_for()
    assert_says(page, canvas, result, rows, columns, 20, 12)
    canvas.dblclick(position={"x": place["x"] + 30, "y": place["y"] + 30})
    assert view(canvas) == whole


def test_the_keyboard_alone_will_do(show):
    result = compared()
    page = show({"map": result})
    canvas = page.locator("canvas.map")
    canvas.focus()
    tip = page.locator(".tip:not([hidden])")
    for key in ["ArrowUp"] * 4 + ["ArrowRight"] * 3 + ["ArrowDown"]:
        page.keyboard.press(key)
    # The first key enters at the lowest row and the first column.
    assert "ViT-Ti/16 layer blocks.2.mlp.fc1" in tip.inner_text()
    assert "ResNet-18 layer layer3.conv2" in tip.inner_text()
    page.keyboard.press("Shift+ArrowUp")
    assert tip.inner_text().splitlines()[0] == shown(float(result.cka[12, 3]))
    page.keyboard.press("+")
    page.keyboard.press("+")
    r0, r1, c0, c1 = view(canvas)
    assert r1 - r0 == pytest.approx(30 / 1.6**2)
    assert r0 <= 12 < r1
    assert c0 <= 3 < c1
    for _ in range(12):  # beyond what is in view, which follows
        page.keyboard.press("ArrowUp")
    assert tip.inner_text().splitlines()[0] == shown(float(result.cka[24, 3]))
    assert view(canvas)[0] <= 24 <= view(canvas)[1] - 1 + 1e-9
    page.keyboard.press("0")
    assert view(canvas) == (0, 30, 0, 24)
    assert tip.count() == 0


def test_a_finger_taps_pinches_and_moves(show):
    result = compared()
    page = show({"map": result}, width=375, height=740, touch=True)
    canvas = page.locator("canvas.map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = position(place_of(canvas), 15, 12)
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    assert page.locator(".tip:not([hidden])").inner_text().splitlines()[0] == shown(
        float(result.cka[15, 12])
    )

    touch = page.context.new_cdp_session(page)

    def fingers(kind, *points):
        touch.send(
            "Input.dispatchTouchEvent",
            {
                "type": kind,
                "touchPoints": [
                    {"x": box["x"] + a, "y": box["y"] + b, "id": k}
                    for k, (a, b) in enumerate(points)
                ],
            },
        )

    fingers("touchStart", (x - 20, y))
    fingers("touchStart", (x - 20, y), (x + 20, y))
    for apart in (25, 32, 40):
        fingers("touchMove", (x - apart, y), (x + apart, y))
    fingers("touchEnd")
    r0, r1, c0, c1 = view(canvas)
    assert r1 - r0 == pytest.approx(15, rel=0.1)
    assert c1 - c0 == pytest.approx(12, rel=0.1)
    # What was between the fingers still is.
    assert position(place_of(canvas), 15, 12) == pytest.approx((x, y), abs=8)

    fingers("touchStart", (x, y))
    for step in (10, 25, 40):
        fingers("touchMove", (x + step, y))
    fingers("touchEnd")
    assert view(canvas)[2] < c0 - 1
    place = place_of(canvas)
    a, b = position(place, 14, int(np.ceil(place["c0"])) + 2)
    page.touchscreen.tap(box["x"] + a, box["y"] + b)
    assert page.locator(".tip:not([hidden])").inner_text().splitlines()[0] == shown(
        float(result.cka[14, int(np.ceil(place["c0"])) + 2])
    )


def test_the_table_has_every_value_in_the_order_of_the_map(show):
    result = with_itself(m=6)
    page = show({"map": result})
    _, (rows, columns), _ = orders(result)
    figure = page.locator("figure").first
    figure.locator("summary").click()
    for order, (i, j) in {0: (range(6), range(6)), 1: (rows, columns)}.items():
        figure.get_by_label("Order").select_option(index=order)
        table = figure.locator("table")
        head = table.locator("thead th").all_inner_texts()
        assert head[1:] == [f"blocks.{k}" for k in j]
        body = [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]
        expected = result.cka.values[np.ix_(list(i), list(j))]
        assert body == [[shown(v, 3) for v in row] for row in expected]
        names = table.locator("tbody th").all_inner_texts()
        assert names == [f"blocks.{k}" for k in i]


def test_values_are_saved_as_a_csv(show):
    result = compared(m=3, n=2, names=('a,"{}"', "b{}"))
    page = show({"map": result})
    with page.expect_download() as saved:
        page.get_by_label("Save the values as CSV").click()
    lines = saved.value.path().read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7
    assert lines[1].startswith('"a,""0""",b0,')
    assert float(lines[1].split(",")[3]) == pytest.approx(float(result.cka[0, 0]), rel=1e-6)
    assert lines[-1].split(",")[3] == ""  # undefined


def test_curves_answer_too(show):
    result = made.attention(layers=4, heads=3)
    result["distance"] = result.distance.copy(data=np.linspace(10, 120, 12).reshape(4, 3) ** 1.02)
    page = show({"attention": result})
    svg = page.locator("figure svg").first
    svg.scroll_into_view_if_needed()
    dots = svg.locator("circle.dot")
    assert dots.count() == 12
    seen = set()
    for k in range(12):
        box = dots.nth(k).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        text = page.locator(".tip:not([hidden])").inner_text()
        name = re.search(r"blocks\.(\d)\.attn, head (\d)", text)
        layer, head = map(int, name.groups())
        found = float(text.splitlines()[0])
        assert found == pytest.approx(float(result.distance[layer, head]), abs=0.06)
        seen.add((layer, head))
    assert len(seen) == 12


def test_small_maps_answer_too(show):
    result = made.localized(layers=1, grid=(3, 4))
    page = show({"places": result})
    canvas = page.locator(".tile canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # Token (1, 2) of 3 × 4, its patch (2, 1); a line of one cell runs between the tokens.
    row, column = 1 * (3 + 1) + 2, 2 * (4 + 1) + 1
    page.mouse.move(
        box["x"] + box["width"] * (column + 0.5) / (4 * 4 + 3),
        box["y"] + box["height"] * (row + 0.5) / (3 * 3 + 2),
    )
    text = page.locator(".tip:not([hidden])").inner_text()
    assert "token at (1, 2)" in text
    assert "patch at (2, 1)" in text
    value = float(result.cka[0, 1 + 1 * 4 + 2, 2 * 4 + 1])  # after the CLS token
    spread = float(result.cka[0, 1:].max() - result.cka[0, 1:].min())
    found = float(text.splitlines()[0].replace("−", "-"))
    assert found == pytest.approx(value, abs=spread / 508 + 0.0006)


PATHS = "all => all.map((e) => e.getAttribute('d'))"


@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_is_drawn_at_any_width_in_either_scheme(show, keep, width, scheme):
    page = show(EVERY, width=width, scheme=scheme, title="All kinds", command=["repsim", "run"])
    keep(page, f"every-{width}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.locator("figure").all()
    assert len(figures) >= len(EVERY)
    for figure in figures:
        picture = figure.locator("canvas, svg").first
        box, room = picture.bounding_box(), figure.bounding_box()
        assert box["height"] > 40
        assert box["x"] + box["width"] <= room["x"] + room["width"] + 1
        assert figure.locator("[aria-label]:is(canvas, svg, .tiles)").first.get_attribute(
            "aria-label"
        )
    assert not [path for path in page.locator("svg path").evaluate_all(PATHS) if "NaN" in path]
    labels = page.locator("select, button, input").evaluate_all(
        "all => all.map(e => e.getAttribute('aria-label') || e.closest('label')?.textContent || '')"
    )
    assert all(labels)


def odd():
    """Results that are hard to draw."""
    infinite = compared(4, 5)
    infinite.cka[0, 0], infinite.cka[1, 1] = np.inf, -np.inf
    return {
        "one cell": compared(1, 1),
        "one row": compared(1, 7),
        "tall": compared(90, 4),
        "wide": compared(4, 90),
        "all undefined": compared(3, 3) * np.nan,
        "all the same": compared(3, 3) * 0 + 0.5,
        "infinite": infinite,
        "without names": compared(4, 5).drop_vars(["layer_x", "layer_y"]),
        "one layer": made.attention(layers=1, heads=1),
        "no heads": made.attention(layers=2, heads=2) * np.nan,
        "no ratios": made.ratios(blocks=2) * np.nan,
        "negative ratios": -made.ratios(blocks=2),
        "one subset": made.subsets(subsets=1, layers=1, kinds=("growing",)),
        "no fields": made.fields() * 0,
        "one field": made.fields(layers=1, rows=1, columns=5),
        "no places": made.localized() * np.nan,
        "no accuracy": made.probes(single=2) * np.nan,
        "one fraction": made.scales(layers=1, fractions=(0.5,), controls=("other seed",)),
    }


@pytest.mark.parametrize("width", [375, 1440])
def test_odd_results_are_drawn_too(show, keep, width):
    page = show(odd(), width=width)
    keep(page, f"odd-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("details.data summary").evaluate_all("all => all.forEach((e) => e.click())")
    for canvas in page.locator("canvas.map").all():
        x, y = position(place_of(canvas), 0, 0)
        canvas.hover(position={"x": x, "y": y})
        assert page.locator(".tip:not([hidden])").inner_text()
    for path in page.locator("svg path").evaluate_all(PATHS):
        assert not re.search("NaN|Infinity|undefined", path)
    text = page.locator("main").inner_text().replace("undefined (NaN)", "")
    text += " ".join(page.locator("figure").evaluate_all("all => all.map((e) => e.dataset.alt)"))
    assert not re.search(r"\bnan\b|\bnull\b|Infinity|\binf\b|\[object", text.lower(), re.IGNORECASE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show, scheme):
    page = show({"map": compared(estimator="biased"), "probes": made.probes()}, scheme=scheme)
    found = page.evaluate(CONTRAST)
    assert len(found) > 60
    assert [each for each in found if each[0] < 4.5] == []


def test_a_change_of_scheme_is_followed(show):
    page = show({"subsets": made.subsets(), "map": compared()})
    colour = "getComputedStyle(document.querySelector('svg .curve')).stroke"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(200)
    assert page.evaluate(colour) != light


def test_paper_is_light_and_has_no_controls(show, keep):
    page = show(EVERY, scheme="dark")
    keep(page, "report.pdf")
    page.emulate_media(media="print", color_scheme="dark")
    ground = "getComputedStyle(document.querySelector('main > section')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("canvas.map").first.is_visible()


def test_a_page_of_150_layers_is_small_and_soon_there(show, record_property, capsys):
    page = show({"big": compared(150, 150)})
    size = page.file.stat().st_size
    ready = float(page.locator("html").get_attribute("data-ready"))
    record_property("bytes", size)
    record_property("ready_ms", ready)
    assert size < 3_000_000
    assert ready < 5000  # shared machines; alone it is a few hundred
    canvas = page.locator("canvas.map")
    assert_says(page, canvas, compared(150, 150), range(150), range(150), 140, 33)
    with capsys.disabled():
        print(f"\n150 × 150: {size / 1e6:.2f} MB, ready after {ready:.0f} ms")


def test_names_are_text_wherever_they_come_from(show):
    result = compared(4, 3, names=(HOSTILE + "{}", "y{}" + HOSTILE), command=HOSTILE)
    result.attrs.update(model_x=HOSTILE, model_y=HOSTILE, kernel=HOSTILE)
    result.attrs[HOSTILE] = HOSTILE
    result.cka.attrs["long_name"] = HOSTILE
    scales = made.scales(layers=2, controls=(HOSTILE,))
    page = show(
        {HOSTILE: result, "scales": scales, "x": xr.Dataset({HOSTILE: ("k", [HOSTILE])})},
        title=HOSTILE,
        command=HOSTILE,
    )
    for summary in page.locator("summary").all():
        summary.click()
    canvas = page.locator("canvas.map")
    x, y = position(place_of(canvas), 1, 1)
    canvas.hover(position={"x": x, "y": y})
    assert f"{HOSTILE}1" in page.locator(".tip:not([hidden])").inner_text()
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("#result-1 h2").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.evaluate("window.broken") is None
    assert "49" not in page.locator("h1").inner_text()


def test_the_page_may_load_nothing_and_run_nothing_else(show):
    page = show({"map": compared(4, 3)})
    failed = []
    page.on("requestfailed", lambda asked: failed.append(asked.failure))
    blocked = page.evaluate(
        """async () => {
          const heard = [];
          document.addEventListener("securitypolicyviolation", (event) =>
            heard.push(event.violatedDirective));
          const image = document.createElement("img");
          image.src = "https://example.org/x.png";
          const script = document.createElement("script");
          script.textContent = "window.broken = 1";
          document.body.append(image, script);
          try { await fetch("https://example.org/"); heard.push("fetched"); } catch (e) {}
          await new Promise((done) => setTimeout(done, 100));
          return heard;
        }"""
    )
    assert sorted(blocked) == ["connect-src", "img-src", "script-src-elem"]
    assert page.evaluate("window.broken") is None
    assert all("Content Security Policy" in told or "CSP" in told for told in page.complaints)
    assert len(page.complaints) >= 3
    assert failed
    assert set(failed) == {"csp"}
    page.complaints.clear()  # they were asked for
    del page.requests[1:]


def test_small_numbers_keep_their_digits(show):
    small = made.fields()
    small["sigma"] = small.sigma * 1e-7
    low = compared(4, 5)
    low["standard_error"] = low.standard_error * 0.0 + 0.00341
    page = show({"fields": small, "map": low})
    bars = page.locator(".legend .scale").all_inner_texts()
    assert len(bars) == 2
    assert "0.00" not in [bar.split()[-1] for bar in bars]
    levels = page.locator(
        "#result-1 svg text[text-anchor=end]:not([transform])"
    ).all_text_contents()
    assert len(set(levels)) == len(levels) > 2, levels
    assert levels[0] == "0"
    assert all(level.endswith(" × 10⁻⁷") or level.endswith(" × 10⁻⁶") for level in levels[1:])
    page.locator("#result-2 select").first.select_option(index=1)
    (bar,) = page.locator("#result-2 .legend .scale").all_inner_texts()
    assert bar.split() == ["0.00", "0.0034"]
