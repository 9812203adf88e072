"""From models and images to results on disk, and from these to pictures and findings."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import xarray as xr
from matplotlib import rc_context

import repsim
from raghu2021 import lab as lab_module
from raghu2021.experiments import EXPERIMENTS, Experiment, Measurement, Results
from raghu2021.lab import Lab
from raghu2021.report import Shown
from raghu2021.steps import Step, digest, save_result
from repsim import RepsimWarning

__all__ = ["measuring", "report_on"]

SOURCES = [Path(lab_module.__file__), Path(__file__).with_name("layers.py")]


def measuring(lab: Lab) -> list[Step]:
    """Return a step for every measurement of every experiment."""
    return [
        _step(lab, experiment, measurement)
        for experiment in EXPERIMENTS
        for measurement in experiment.measurements(lab)
    ]


def _step(lab: Lab, experiment: Experiment, measurement: Measurement) -> Step:
    models = [lab.subjects[role].key for role in measurement.roles]
    measure = getattr(experiment, "_measure", experiment.measurements)
    # Only the measuring code, because a better picture or verdict needs no new result.
    code = [*SOURCES, inspect.getsource(experiment.measurements), inspect.getsource(measure)]
    key = digest(
        measurement.name, models, lab.data.key, lab.effort.settings, repsim.__version__, code
    )
    file = _file(lab, measurement)
    # No closure, because it may be pickled for another process.
    make = partial(_make, file, key, measurement.measure)
    return Step(f"{lab.data.name}: {measurement.name}", file, key, make)


def _file(lab: Lab, measurement: Measurement) -> Path:
    return lab.folder / "results" / f"{measurement.name.replace('/', '.')}.nc"


def _make(file: Path, key: str, measure: Callable[[], xr.Dataset]) -> None:
    """Measure, and write the result with its warnings."""
    # Warnings of the library belong to the result, and would break the progress bar.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RepsimWarning)
        result = measure()
    said = [str(each.message) for each in caught if issubclass(each.category, RepsimWarning)]
    for other in caught:
        if not issubclass(other.category, RepsimWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    save_result(file, key, result.assign_attrs(warnings=sorted(set(said))))


def report_on(lab: Lab, *, draw: bool = True) -> Shown:
    """Judge every finding, and draw and write every picture if asked."""
    results: dict[str, xr.Dataset] = {}
    pictures, findings = [], []
    for experiment in EXPERIMENTS:
        results |= {
            measurement.name: xr.load_dataset(_file(lab, measurement), engine="scipy")
            for measurement in experiment.measurements(lab)
        }
        if draw:
            pictures += _drawn(lab, experiment, results)
        findings += experiment.findings(lab, results)
    findings.sort(key=lambda finding: _number(finding.figure))
    pictures.sort(key=lambda picture: _number(picture[0]))
    return Shown(
        lab.data.name,
        _about(lab),
        findings,
        pictures,
        {
            subject.label: float(subject.about["accuracy"])
            for subject in lab.subjects.values()
            if "accuracy" in subject.about
        },
    )


def _number(text: str) -> int:
    """Return the number of the figure that a caption begins with."""
    return int(re.findall(r"\d+", text)[0])


def _drawn(lab: Lab, experiment: Experiment, results: Results) -> list[tuple[str, str, bytes]]:
    out = []
    folder = lab.folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context({"axes.titlesize": 10, "axes.labelsize": 9}):
        for picture in experiment.pictures(lab, results):
            png = picture.png()
            (folder / f"{picture.name}.png").write_bytes(png)
            out.append((picture.caption, picture.alt, png))
    return out


def _about(lab: Lab) -> str:
    words = f"{len(lab.data.classes)} classes, {lab.data.side}×{lab.data.side} pixels."
    images = getattr(lab.data, "images", None)
    if images is None:
        return words
    return (
        f"{words} Training crops are drawn from {len(images.tiles)} tiles; {len(images.test)} "
        "test crops come from other places. A nearest-neighbour classifier that sees only the "
        f"mean and the spread of grey is right on {images.grey_alone:.1%} of the test images. A "
        "model must do better to show that it uses shapes."
    )
