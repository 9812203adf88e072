"""A picture of how a measure responds to noise and to changes of the features."""

from __future__ import annotations

import warnings

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import repsim
from repsim.measures import MEASURES, Measure

__all__ = ["draw"]

N, P = 100, 10
NOISE = np.linspace(0, 4, 17)
DRAWS = 20
COLOURS = ("#8a2b68", "#d98a1f", "#3a7ca5", "#5b8c3a", "#6b6b6b")


def draw(measures: list[Measure]) -> Figure:
    """Draw the rows of one function: its value by noise, and after changes of features."""
    warnings.simplefilter("ignore", repsim.ChanceWarning)  # the dashed line shows it
    rng = np.random.default_rng(0)
    # Unequal variances and a mean, as in activations; without them some changes have no effect.
    x = rng.standard_normal((N, P)) * np.geomspace(1, 0.3, P) + rng.standard_normal(P)
    noise = rng.standard_normal((N, P)) * x.std(axis=0)
    others = rng.standard_normal((DRAWS, N, P)) * np.geomspace(1, 0.3, P)
    changed = changes(x, rng)

    figure = Figure(figsize=(8.2, 3.1), layout="constrained")
    curve, dots = figure.subplots(1, 2)
    places = np.arange(len(changed) + 1)[::-1]
    for number, m in enumerate(measures):
        colour = COLOURS[number]
        label = ", ".join(f"{key}={value!r}" for key, value in m.preset.items()) or m.name
        values = [value(m, x, x + scale * noise) for scale in NOISE]
        floor = float(np.mean([value(m, x, other) for other in others]))
        curve.plot(NOISE, values, color=colour, label=label)
        curve.axhline(floor, color=colour, linestyle="--", linewidth=1)
        shift = 0.16 * (number - (len(measures) - 1) / 2)
        seen = [*(value(m, x, y) for y in changed.values()), floor]
        dots.plot(seen, places - shift, "o", color=colour, markersize=6)
    if len(measures) > 1:
        curve.legend(frameon=False, fontsize=8)
    curve.set_xlabel("noise ÷ standard deviation of each feature")
    curve.set_ylabel(measures[0].function.__name__)
    dots.set_yticks(places, [*changed, "independent data"])
    dots.set_xlabel(measures[0].function.__name__)
    dots.grid(axis="x", color="0.92")
    for ax in (curve, dots):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def changes(x: NDArray[np.float64], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return x, and x after each change of the registry."""
    turn, _ = np.linalg.qr(rng.standard_normal((P, P)))
    other, _ = np.linalg.qr(rng.standard_normal((P, P)))
    return {
        "itself": x,
        "features reordered": x[:, rng.permutation(P)],
        "rotated": x @ turn,
        "times 3": 3 * x,
        "plus a constant": x + 2 * rng.standard_normal(P),
        "invertible map": x @ turn * np.geomspace(0.2, 5, P) @ other,
    }


def value(measure: Measure, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(measure.function(x, y, **measure.preset))


assert all(m.minimum_samples <= N for m in MEASURES.values())
