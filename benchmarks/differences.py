"""How often intervals of the difference of two models contain the true one, and tests reject.

    pip install -e .
    python benchmarks/differences.py                              # print the table
    python benchmarks/differences.py --json found.json --write benchmarks/README.md

The subjects of benchmarks/subjects.py, and two pairs of models: two that are equally close to the
subjects, each with noise of its own, and the causes of the answers beside three of them alone.
For other measures, three representations are linear maps of common causes with noise. Tests reject
that two of them are equally similar to the third one, which is true.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
from scipy.stats import t as student

from _output import hand_out, listed, say
from _simulation import Ends, arguments, cell, setting_of, tally, uncertain
from repsim.inference import SubjectsInterval, bootstrap_rsa, jackknife, subsample
from subjects import LEVEL, Population

START, END = "<!-- differences:start -->", "<!-- differences:end -->"
FEW = 3
ALPHA = 0.05
Array = np.ndarray[Any, np.dtype[np.float64]]

POPULATIONS = (
    Population("8 conditions, 5 subjects", 8, 5),
    Population("20 conditions, 10 subjects", 20, 10),
    Population("40 conditions, 5 subjects", 40, 5),
    Population("30 conditions, 8 subjects, little explained", 30, 8, private=6, noise=6),
    Population("20 conditions, 10 subjects, Pearson", 20, 10, comparison="pearson"),
)

PAIRS = ("equally close", "one closer")
WAYS = ("both", "both, plain variance", "conditions", "t-test of subjects")


def models_of(pair: str, x: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two models of the conditions whose causes are x."""
    if pair == "one closer":
        return x, x[:, :FEW]
    one, other = x + 0.3 * rng.standard_normal((2, *x.shape))
    return one, other


def true_difference(population: Population, pair: str, seed: int) -> float:
    """The mean over many conditions and subjects; two models with equal noise do not differ."""
    if pair == "equally close":
        return 0.0
    rng = np.random.default_rng([seed, 0])
    found = []
    for _ in range(400):
        x = population.model(rng, 150)
        ys = population.answers(rng, x, population.people(rng, 4))
        found.append(population.value(x, ys) - population.value(x[:, :FEW], ys))
    return float(np.mean(found))


def coverage(
    population: Population, pair: str, datasets: int, draws: int, seed: int
) -> dict[str, Any]:
    """Share of data sets whose interval contains the true difference, and the mean width."""
    truth = true_difference(population, pair, seed)

    def data_sets() -> Iterator[dict[str, Ends]]:
        for number in range(datasets):
            rng = np.random.default_rng([seed, 1 + number])
            yield of_one_data_set(population, pair, truth, draws, rng)

    found = tally(data_sets())
    return {"population": population.name, "pair": pair, "difference": truth, **found}


def of_one_data_set(
    population: Population, pair: str, truth: float, draws: int, rng: np.random.Generator
) -> dict[str, Ends]:
    """The interval of each way from one data set, with the true difference."""
    x = population.model(rng, population.conditions)
    ys = population.answers(rng, x, population.people(rng, population.subjects))
    one, other = models_of(pair, x, rng)
    found = bootstrap_rsa(
        one,
        ys,
        minus=other,
        rdm=population.rdm,  # type: ignore[arg-type]
        comparison=population.comparison,  # type: ignore[arg-type]
        draws=draws,
        level=LEVEL,
        seed=rng,
    )
    r, n = len(ys), len(x)
    plain = float(np.std(found.replicates))
    subjects = float(np.std(found.by_subject, ddof=1)) / r**0.5
    return {
        "both": (truth, found.low, found.high),
        "both, plain variance": (truth, *ends(found, plain, min(r, n))),
        "conditions": (truth, *ends(found, found.error_of_conditions, n)),
        "t-test of subjects": (truth, *ends(found, subjects, r)),
    }


def ends(found: SubjectsInterval, error: float, units: int) -> tuple[float, float]:
    step = float(student.ppf((1 + LEVEL) / 2, units - 1)) * error
    return found.value - step, found.value + step


@dataclass(frozen=True)
class Representations:
    """x, y and a third one of n samples: maps of ten causes to p features, and noise."""

    name: str
    n: int
    p: int
    noise: float = 0.3
    noise_of_third: float = 0.3
    per_group: int = 1

    def maps(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(7)
        size = 1 / np.sqrt(np.arange(1, 11))[:, None] / math.sqrt(self.p)
        a, b = size * rng.standard_normal((2, 10, self.p))
        return a, b

    def difference(self) -> float:
        """CKA(x, y) − CKA(third, y) in the population: ‖Σ_xy‖²/(‖Σ_xx‖ ‖Σ_yy‖) each."""
        a, b = self.maps()

        def norm(m: Array, noise: float) -> float:
            return float(np.linalg.norm(m.T @ m + noise**2 / self.p * np.eye(self.p)))

        above = float(np.sum((a.T @ b) ** 2)) / norm(b, self.noise)
        return above / norm(a, self.noise) - above / norm(a, self.noise_of_third)

    def draw(self, rng: np.random.Generator) -> list[Array]:
        """Samples of x, y and the third one, group after group."""
        a, b = self.maps()
        causes = rng.standard_normal((self.n, 10))
        if self.per_group > 1:
            shared = rng.standard_normal((self.n // self.per_group, 10))
            causes = (causes + np.repeat(shared, self.per_group, axis=0)) / math.sqrt(2)
        return [
            causes @ m + s / math.sqrt(self.p) * rng.standard_normal((self.n, self.p))
            for m, s in ((a, self.noise), (b, self.noise), (a, self.noise_of_third))
        ]


REPRESENTATIONS = (
    Representations("n = 50, 20 features", 50, 20),
    Representations("n = 50, 20 features, one closer", 50, 20, noise_of_third=1.0),
    Representations("n = 100, 200 features", 100, 200),
    Representations("n = 100, 200 features, one closer", 100, 200, noise_of_third=2.0),
    Representations("40 groups of 3, 20 features, one closer", 120, 20, 0.3, 1.0, per_group=3),
)

CKA_WAYS = ("jackknife", "two intervals")


def coverage_of_cka(each: Representations, datasets: int, seed: int) -> dict[str, Any]:
    """As :func:`coverage`, of the jackknife of CKA and of two intervals taken as independent."""
    truth = each.difference()
    groups = None if each.per_group == 1 else np.repeat(np.arange(each.n // 3), 3)

    def data_sets() -> Iterator[dict[str, Ends]]:
        for number in range(datasets):
            x, y, third = each.draw(np.random.default_rng([seed, 1 + number]))
            found = jackknife(x, y, minus=third, groups=groups, level=LEVEL)
            apart = [jackknife(z, y, groups=groups).standard_error for z in (x, third)]
            step = 1.959964 * math.hypot(*apart)
            yield {
                "jackknife": (truth, found.low, found.high),
                "two intervals": (truth, found.value - step, found.value + step),
            }

    return {"population": each.name, "difference": truth, **tally(data_sets())}


EQUAL = (
    Representations("n = 50, 20 features", 50, 20),
    Representations("n = 200, 20 features", 200, 20),
)

TESTS = {
    "jackknife, cka": lambda x, y, third, rng: jackknife(x, y, minus=third),
    **{
        f"halves, {measure}": lambda x, y, third, rng, measure=measure: subsample(
            x, y, minus=third, measure=measure, draws=100, seed=rng
        )
        for measure in ("cka", "procrustes", "mutual_knn")
    },
}
"""How the difference of two similarities is tested. Halves are drawn 100 times."""


def rejections(each: Representations, datasets: int, seed: int) -> dict[str, float]:
    """Share of data sets in which two equally similar representations differ with p ≤ .05."""
    assert each.difference() == 0
    rejected: Counter[str] = Counter()
    for number in range(datasets):
        rng = np.random.default_rng([seed, 1 + number])
        x, y, third = each.draw(rng)
        for way, test in TESTS.items():
            rejected[way] += test(x, y, third, rng).p_value <= ALPHA
    return {way: rejected[way] / datasets for way in TESTS}


def level_table(rows: dict[str, dict[str, float]], datasets: int) -> str:
    lines = [f"| representations | {' | '.join(TESTS)} |", "|---|" + "--:|" * len(TESTS)]
    for name, row in rows.items():
        cells = " | ".join(uncertain(row[way], datasets) for way in TESTS)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def cka_table(rows: list[dict[str, Any]], datasets: int) -> str:
    lines = ["| representations | difference | " + " | ".join(CKA_WAYS) + " |", "|---|--:|--:|--:|"]
    for row in rows:
        cells = [row["population"], f"{row['difference']:.3f}"]
        cells += [cell(row, way, datasets) for way in CKA_WAYS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table(rows: list[dict[str, Any]], datasets: int) -> str:
    head = ["subjects", "models", "difference", *WAYS]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "--:|" * (len(WAYS) + 1)]
    for row in rows:
        cells = [row["population"], row["pair"], f"{row['difference']:.2f}"]
        cells += [cell(row, way, datasets) for way in WAYS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> str:
    args = arguments(__doc__, argv, nulls=2000)
    began = time.perf_counter()
    rows = []
    for population in POPULATIONS:
        for pair in PAIRS:
            rows.append(coverage(population, pair, args.datasets, args.draws, args.seed))
            say(f"{time.perf_counter() - began:6.1f} s  {population.name}, {pair}")
    of_cka = [coverage_of_cka(each, args.datasets, args.seed) for each in REPRESENTATIONS]
    of_tests = {}
    for each in EQUAL:
        of_tests[each.name] = rejections(each, args.nulls, args.seed)
        say(f"{time.perf_counter() - began:6.1f} s  {each.name}, tests")
    text = (
        "**Coverage of 95 % intervals of the difference of two models**, percent (mean width)\n\n"
        f"{table(rows, args.datasets)}\n\n"
        "**The same of the difference of two CKAs**\n\n"
        f"{cka_table(of_cka, args.datasets)}\n\n"
        "**Rejections of equal similarity at level .05**, percent\n\n"
        f"{level_table(of_tests, args.nulls)}"
    )
    setting = setting_of(args, "datasets", "draws", "nulls")
    found = {"setting": setting, "coverage": rows, "cka": of_cka, "tests": of_tests}
    return hand_out(args, f"{listed(setting)}.\n\n{text}", (START, END), found)


if __name__ == "__main__":
    main()
