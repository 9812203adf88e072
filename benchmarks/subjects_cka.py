"""How often intervals of CKA contain the true value, over other conditions and other subjects.

    pip install -e .
    python benchmarks/subjects_cka.py                              # print the table
    python benchmarks/subjects_cka.py --json found.json --write benchmarks/README.md

The subjects of benchmarks/subjects.py. Their population CKA with a model follows from covariances.
The difference is that between the model and three of its ten causes alone. benchmarks/README.md
says what each column is.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
from scipy.stats import t as student

import repsim
from _output import hand_out, listed, say
from _simulation import Ends, arguments, cell, setting_of, tally
from repsim.inference import SubjectsInterval, jackknife_subjects
from subjects import LEVEL, MANY_SUBJECTS, Population
from subjects import POPULATIONS as OF_RSA

START, END = "<!-- subjects-cka:start -->", "<!-- subjects-cka:end -->"
FEW, PEOPLE = 3, 20_000
Array = np.ndarray[Any, np.dtype[np.float64]]
Person = tuple[Array, Array]
WAYS = ("both", "both, plain sum", "conditions", "subjects", "difference")


@dataclass(frozen=True)
class Seen(Population):
    """Conditions may come in groups: half of each cause is then that of the group."""

    per_group: int = 1

    def model(self, rng: np.random.Generator, n: int) -> Array:
        """The causes of n conditions, group after group."""
        own = super().model(rng, n)
        if self.per_group == 1:
            return own
        shared = np.repeat(super().model(rng, n // self.per_group), self.per_group, axis=0)
        return (own + shared) / math.sqrt(2)

    @property
    def groups(self) -> Array | None:
        """The labels of the groups."""
        return None if self.per_group == 1 else np.arange(self.conditions) // self.per_group

    def cka(self, person: Person, few: int = 10) -> float:
        """‖Σ_xy‖²/(‖Σ_xx‖ ‖Σ_yy‖) of the first causes and a subject."""
        a, b = person
        variances = 1 / np.arange(1.0, 11.0)
        own = b.T @ b + (0.1 * self.noise) ** 2 * np.eye(a.shape[1])
        cross = variances[:few, None] * a[:few]
        yy = a.T @ (variances[:, None] * a) + own
        return float(np.sum(cross**2) / np.linalg.norm(variances[:few]) / np.linalg.norm(yy))


POPULATIONS = (
    *(Seen(**vars(each)) for each in OF_RSA if each.comparison == "spearman"),
    Seen("80 conditions in groups of 4, 8 subjects", 80, 8, per_group=4),
)


def coverage(population: Seen, datasets: int, seed: int) -> dict[str, Any]:
    """Share of data sets whose interval contains the value of its target, and the mean width."""
    people = population.people(np.random.default_rng([seed, 0]), PEOPLE)
    truth = float(np.mean([population.cka(person) for person in people]))
    few = float(np.mean([population.cka(person, FEW) for person in people]))

    def data_sets() -> Iterator[dict[str, Ends]]:
        for number in range(datasets):
            rng = np.random.default_rng([seed, 1 + number])
            yield of_one_data_set(population, truth, truth - few, rng)

    return {"population": population.name, "cka": truth, **tally(data_sets())}


def of_one_data_set(
    population: Seen, truth: float, difference: float, rng: np.random.Generator
) -> dict[str, Ends]:
    """The interval of each way from one data set, with the value that it should contain."""
    x = population.model(rng, population.conditions)
    people = population.people(rng, population.subjects)
    ys = population.answers(rng, x, people)
    options: Any = {"groups": population.groups, "level": LEVEL}
    ends = {}
    targets = {"conditions": float(np.mean([population.cka(person) for person in people]))}
    if len(ys) > 1:
        found = jackknife_subjects(x, ys, **options)
        ends["both"] = truth, found.low, found.high
        ends["both, plain sum"] = truth, *plain(found)
        apart = jackknife_subjects(x, ys, minus=x[:, :FEW], **options)
        ends["difference"] = difference, apart.low, apart.high
        others = population.answers(rng, x, population.people(rng, MANY_SUBJECTS))
        values = [repsim.cka(x, y, estimator="unbiased") for y in others]
        targets["subjects"] = float(np.mean(values))
    for way, target in targets.items():
        found = jackknife_subjects(x, ys, resample=way, **options)  # type: ignore[arg-type]
        ends[way] = target, found.low, found.high
    return ends


def plain(found: SubjectsInterval) -> tuple[float, float]:
    """The ends from the sum of both variances, which counts the noise of single answers twice."""
    units = min(found.n_subjects, found.n_groups or found.n_samples)
    error = math.hypot(found.error_of_conditions, found.error_of_subjects)
    step = student.ppf((1 + LEVEL) / 2, units - 1) * error / (1 - found.value**2)
    z = math.atanh(found.value)
    return math.tanh(z - step), math.tanh(z + step)


def table(rows: list[dict[str, Any]], datasets: int) -> str:
    lines = ["| subjects | CKA | " + " | ".join(WAYS) + " |", "|---|--:|" + "--:|" * len(WAYS)]
    for row in rows:
        cells = [cell(row, way, datasets) for way in WAYS]
        lines.append(f"| {row['population']} | {row['cka']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> str:
    args = arguments(__doc__, argv, draws=False)
    began = time.perf_counter()
    rows = []
    for population in POPULATIONS:
        rows.append(coverage(population, args.datasets, args.seed))
        say(f"{time.perf_counter() - began:6.1f} s  {population.name}")
    setting = setting_of(args, "datasets")
    text = "**Coverage of 95 % intervals of CKA**, percent (mean width)\n\n"
    text += table(rows, args.datasets)
    found = {"setting": setting, "coverage": rows}
    return hand_out(args, f"{listed(setting)}.\n\n{text}", (START, END), found)


if __name__ == "__main__":
    main()
