"""How often intervals of RSA contain the true value, over other conditions and other subjects.

    pip install -e .
    python benchmarks/subjects.py                              # print the table
    python benchmarks/subjects.py --json subjects.json --write benchmarks/README.md

Simulated subjects who see the same conditions as a model, each through its own random features,
with responses of its own and noise. The true value is that of many conditions, or many subjects.
benchmarks/README.md says what each column is.
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
from scipy.spatial.distance import pdist
from scipy.stats import rankdata
from scipy.stats import t as student

from _output import hand_out, listed, say
from _simulation import Ends, arguments, cell, setting_of, tally
from repsim.inference import SubjectsInterval, bootstrap_rsa, noise_ceiling

START, END = "<!-- subjects:start -->", "<!-- subjects:end -->"
LEVEL = 0.95
MANY_CONDITIONS, PARTS, MANY_SUBJECTS = 1200, 8, 200
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Population:
    """A model x of ten causes; a subject answers x A + own B + noise, A and B its own features."""

    name: str
    conditions: int
    subjects: int
    private: float = 1.0
    noise: float = 1.0
    spread: float = 0.5
    rdm: str = "euclidean"
    comparison: str = "spearman"

    def model(self, rng: np.random.Generator, n: int) -> Array:
        """The causes of n conditions, with variances that fall off."""
        return rng.standard_normal((n, 10)) / np.sqrt(np.arange(1, 11))

    def people(self, rng: np.random.Generator, r: int) -> list[tuple[Array, Array]]:
        """A and B of r subjects; some answer more on their own than others."""
        out = []
        for _ in range(r):
            a, b = rng.standard_normal((2, 10, 20)) / math.sqrt(20)
            out.append((a, 0.3 * self.private * math.exp(self.spread * rng.standard_normal()) * b))
        return out

    def answers(
        self, rng: np.random.Generator, x: Array, people: list[tuple[Array, Array]]
    ) -> list[Array]:
        """The responses of subjects to the conditions of x."""
        n = len(x)
        return [
            x @ a
            + rng.standard_normal((n, 10)) @ b
            + 0.1 * self.noise * rng.standard_normal((n, 20))
            for a, b in people
        ]

    def value(self, x: Array, ys: list[Array]) -> float:
        """The mean RSA over subjects, by SciPy."""
        u, *others = (self.entries(z) for z in (x, *ys))
        return float(np.mean([u @ v / math.sqrt((u @ u) * (v @ v)) for v in others]))

    def entries(self, z: Array) -> Array:
        """The RDM above its diagonal, ready for a cosine."""
        d: Array = pdist(z, self.rdm)
        if self.comparison == "cosine":
            return d
        ranked: Array = rankdata(d) if self.comparison == "spearman" else d
        return ranked - ranked.mean()

    def of_conditions(self, rng: np.random.Generator, people: list[tuple[Array, Array]]) -> float:
        """The value of these subjects for many conditions, in parts that are drawn apart."""
        parts = []
        for _ in range(PARTS):
            x = self.model(rng, MANY_CONDITIONS // PARTS)
            parts.append(self.value(x, self.answers(rng, x, people)))
        return float(np.mean(parts))


POPULATIONS = (
    Population("8 conditions, 5 subjects", 8, 5),
    Population("20 conditions, 3 subjects", 20, 3),
    Population("20 conditions, 10 subjects", 20, 10),
    Population("the same, all alike", 20, 10, spread=0.0),
    Population("50 conditions, 10 subjects", 50, 10),
    Population("100 conditions, 5 subjects", 100, 5),
    Population("30 conditions, 1 subject", 30, 1),
    Population("30 conditions, 10 noisy subjects", 30, 10, private=0.3, noise=5),
    Population("30 conditions, 8 subjects, little explained", 30, 8, private=6, noise=6),
    Population("30 conditions, 8 subjects, nearly all explained", 30, 8, private=0.05, noise=0.1),
    Population("20 conditions, 10 subjects, Pearson", 20, 10, comparison="pearson"),
    Population(
        "20 conditions, 10 subjects, cosine of squares",
        20,
        10,
        rdm="sqeuclidean",
        comparison="cosine",
    ),
)

WAYS = ("both", "both, plain variance", "conditions", "subjects")


def coverage(population: Population, datasets: int, draws: int, seed: int) -> dict[str, Any]:
    """Share of data sets whose interval contains the value of its target, and the mean width."""
    rng = np.random.default_rng([seed, 0])
    many = [population.people(rng, 12) for _ in range(60)]
    truth = float(np.mean([population.of_conditions(rng, people) for people in many]))

    def data_sets() -> Iterator[dict[str, Ends]]:
        for number in range(datasets):
            rng = np.random.default_rng([seed, 1 + number])
            yield of_one_data_set(population, truth, draws, rng)

    return {"population": population.name, "rsa": truth, **tally(data_sets())}


def of_one_data_set(
    population: Population, truth: float, draws: int, rng: np.random.Generator
) -> dict[str, Ends]:
    """The interval of each way from one data set, with the value that it should contain."""
    x = population.model(rng, population.conditions)
    people = population.people(rng, population.subjects)
    ys = population.answers(rng, x, people)
    options: Any = {
        "rdm": population.rdm,
        "comparison": population.comparison,
        "draws": draws,
        "level": LEVEL,
    }
    others = population.answers(rng, x, population.people(rng, MANY_SUBJECTS))
    ends, targets = {}, {"conditions": population.of_conditions(rng, people)}
    if len(ys) > 1:
        found = bootstrap_rsa(x, ys, seed=rng, **options)
        ends["both"] = truth, found.low, found.high
        ends["both, plain variance"] = truth, *plain(found, min(len(ys), len(x)) - 1)
        targets["subjects"] = population.value(x, others)
    for way, target in targets.items():
        found = bootstrap_rsa(x, ys, resample=way, seed=rng, **options)
        ends[way] = target, found.low, found.high
    return ends


def plain(found: SubjectsInterval, freedom: int) -> tuple[float, float]:
    """The ends from the variance over draws of both, without the correction."""
    q = student.ppf((1 + LEVEL) / 2, freedom)
    step = q * float(np.std(found.replicates)) / (1 - found.value**2)
    z = math.atanh(found.value)
    return math.tanh(z - step), math.tanh(z + step)


def ceilings(population: Population, datasets: int, seed: int) -> dict[str, Any]:
    """The means over data sets of both bounds of the noise ceiling, and of the true model."""
    found = []
    for number in range(datasets):
        rng = np.random.default_rng([seed, 1 + number])
        x = population.model(rng, population.conditions)
        ys = population.answers(rng, x, population.people(rng, population.subjects))
        options: Any = {"rdm": population.rdm, "comparison": population.comparison}
        ceiling = noise_ceiling(ys, measure="rsa", **options)
        found.append((ceiling.lower, population.value(x, ys), ceiling.upper))
    lower, model, upper = np.mean(found, axis=0).tolist()
    return {"population": population.name, "lower": lower, "model": model, "upper": upper}


def table(rows: list[dict[str, Any]], datasets: int) -> str:
    lines = ["| subjects | RSA | " + " | ".join(WAYS) + " |", "|---|--:|" + "--:|" * len(WAYS)]
    for row in rows:
        cells = [cell(row, way, datasets) for way in WAYS]
        lines.append(f"| {row['population']} | {row['rsa']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ceiling_table(rows: list[dict[str, Any]]) -> str:
    lines = ["| subjects | lower | true model | upper |", "|---|--:|--:|--:|"]
    for row in rows:
        cells = " | ".join(f"{row[key]:.3f}" for key in ("lower", "model", "upper"))
        lines.append(f"| {row['population']} | {cells} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> str:
    args = arguments(__doc__, argv)
    began = time.perf_counter()
    rows = []
    for population in POPULATIONS:
        rows.append(coverage(population, args.datasets, args.draws, args.seed))
        spent = time.perf_counter() - began
        say(f"{spent:6.1f} s  {population.name}")
    several = [population for population in POPULATIONS if population.subjects > 1]
    bounds = [ceilings(population, args.datasets, args.seed) for population in several]
    tables = (
        f"**Coverage of 95 % intervals of RSA**, percent (mean width)\n\n"
        f"{table(rows, args.datasets)}\n\n"
        f"**Noise ceilings of RSA**, means over data sets\n\n{ceiling_table(bounds)}"
    )
    setting = setting_of(args, "datasets", "draws")
    found = {"setting": setting, "coverage": rows, "ceilings": bounds}
    return hand_out(args, f"{listed(setting)}.\n\n{tables}", (START, END), found)


if __name__ == "__main__":
    main()
