"""Results for the report, its page read back, and places of map cells on the screen."""

from __future__ import annotations

import base64
import html
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from repsim.report import write_report
from repsim.results import Finding

HOSTILE = "</script><img src=x onerror='window.broken=1'>\"&{{ 7*7 }}"


def compared(m=30, n=24, seed=0, names=("blocks.{}.mlp.fc1", "layer{}.conv2"), **attrs):
    """A map as compare returns it: all values differ, some are negative, a row is undefined."""
    rng = np.random.default_rng(seed)
    depth_x, depth_y = np.linspace(0, 1, m)[:, None], np.linspace(0, 1, n)
    cka = 0.95 * np.exp(-((depth_x - depth_y) ** 2) / 0.05) + 0.03 * rng.standard_normal((m, n))
    cka[2:3] = np.nan
    z = 40 * cka + rng.standard_normal((m, n))
    dims = ("layer_x", "layer_y")
    return xr.Dataset(
        {
            "cka": (dims, cka, {"long_name": "CKA", "units": "1"}),
            "standard_error": (
                dims,
                0.001 + 0.03 * rng.random((m, n)),
                {"long_name": "standard error of CKA"},
            ),
            "z": (dims, z, {"long_name": "z-score of CKA under permutation"}),
        },
        coords={
            "layer_x": [names[0].replace("{}", str(i)) for i in range(m)],
            "layer_y": [names[1].replace("{}", str(i)) for i in range(n)],
        },
        attrs={
            "model_x": "ViT-Ti/16",
            "model_y": "ResNet-18",
            "kernel": "Linear()",
            "estimator": "minibatch unbiased",
            "n_samples": 2048,
            "n_batches": 16,
            "repsim_version": "0.1.0",
            "torch_version": "2.6.0",
            **attrs,
        },
    )


def shuffled(result, seed=1):
    """The same map with its layers shuffled."""
    rng = np.random.default_rng(seed)
    return result.isel(
        layer_x=rng.permutation(result.sizes["layer_x"]),
        layer_y=rng.permutation(result.sizes["layer_y"]),
    )


def with_itself(m=12, seed=0, **attrs):
    """A symmetric map of one model with two alternating kinds of layers."""
    rng = np.random.default_rng(seed)
    kind = np.arange(m) % 2
    cka = np.where(kind[:, None] == kind, 0.8, 0.2) + 0.02 * rng.standard_normal((m, m))
    cka = (cka + cka.T) / 2
    np.fill_diagonal(cka, 1.0)
    names = [f"blocks.{i}" for i in range(m)]
    return xr.Dataset(
        {"cka": (("layer_x", "layer_y"), cka)},
        coords={"layer_x": names, "layer_y": names},
        attrs={"model_x": "untrained ViT", "model_y": "untrained ViT", "n_samples": 512, **attrs},
    )


@dataclass
class Section:
    """The section of one result on the page, without markup."""

    kind: str
    findings: list
    cautions: list
    pictures: list
    table: tuple | None


def section_of(name, result):
    """Write the page of one result, and read its section again."""
    with tempfile.TemporaryDirectory() as folder:
        page = write_report({name: result}, Path(folder) / "report.html").read_text("utf-8")
    top, _, body = page.partition('<section class="result"')
    body = body.partition("</section>")[0]
    findings = re.findall(
        r'<tr><th scope="row">(.*?)</th><td class="value">(.*?)</td><td class="where">(.*?)</td>',
        top,
    )
    pictures = json.loads(re.search(r'id="pictures">(.*?)</script>', page, re.DOTALL).group(1))
    figures = re.findall(r'<figure.*?data-alt="(.*?)">(.*?)</figure>', body, re.DOTALL)
    for picture, (alt, figure) in zip(pictures, figures, strict=True):
        note = re.search("<figcaption>(.*?)</figcaption>", figure)
        picture |= {"alt": html.unescape(alt), "note": note.group(1) if note else ""}
    table = re.search(
        'aria-label="Variables of.*?<thead>(.*?)</thead>(.*?)</table>', body, re.DOTALL
    )
    return Section(
        kind=re.search('<p class="kind">(.*?)</p>', body).group(1),
        findings=[Finding(*map(html.unescape, each)) for each in findings],
        cautions=[html.unescape(each) for each in re.findall("<li>(.*?)</li>", body)],
        pictures=pictures,
        table=table
        and (
            cells_of(table.group(1)),
            [cells_of(row) for row in re.findall("<tr>(.*?)</tr>", table.group(2))],
        ),
    )


def cells_of(row):
    return [html.unescape(cell) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)]


def values_of(picture, tile):
    """The values of a tile, which the page holds in 255 steps between the ends of the scale."""
    tile = picture["tiles"][tile]
    steps = np.frombuffer(base64.b64decode(tile["values"]), np.uint8)
    share = (steps.reshape(tile["rows"], tile["columns"]) - 1.0) / 254
    low, high = picture["least"], picture["high"]
    if picture["log"]:
        return low * (high / low) ** share
    return low + (high - low) * share


def orders_of(values):
    """Rows and columns of a map in each of the orders that the page offers, by name."""
    m, n = values.shape
    result = xr.Dataset(
        {"cka": (("layer_x", "layer_y"), values)},
        coords={"layer_x": [f"x{i}" for i in range(m)], "layer_y": [f"y{i}" for i in range(n)]},
    )
    (picture, *_) = section_of("map", result).pictures
    return {each["label"]: (each["rows"], each["columns"]) for each in picture["orders"]}


def shown(value, digits=4):
    """A number as the page writes it."""
    if np.isnan(value):
        return "undefined"
    text = f"{value:.{digits}f}"
    if 1e-3 <= abs(value) < 10.0 ** (1 - digits):
        text = f"{value:.2g}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def place_of(canvas):
    """The place of a map on the page: its frame, and the cells in view."""
    return json.loads(canvas.get_attribute("data-place"))


def position(place, i, j):
    """The middle of the cell in row i from below and column j, within its canvas, in pixels."""
    x = place["x"] + place["w"] * (j + 0.5 - place["c0"]) / (place["c1"] - place["c0"])
    y = place["y"] + place["h"] * (place["r1"] - i - 0.5) / (place["r1"] - place["r0"])
    return x, y
