"""How often intervals of the difference of two models' RSA contain the true difference.

    pip install -e .
    python benchmarks/differences.py                              # print the table
    python benchmarks/differences.py --json found.json --write benchmarks/README.md

The subjects of benchmarks/subjects.py, and two pairs of models: two that are equally close to the
subjects, each with noise of its own, and the causes of the answers beside three of them alone.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
from scipy.stats import t as student

from _output import hand_out, listed, parser_of, say
from _simulation import Ends, cell, setting_of, tally
from repsim.inference import RsaInterval, bootstrap_rsa
from subjects import LEVEL, Population

START, END = "<!-- differences:start -->", "<!-- differences:end -->"
FEW = 3
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


def ends(found: RsaInterval, error: float, units: int) -> tuple[float, float]:
    step = float(student.ppf((1 + LEVEL) / 2, units - 1)) * error
    return found.value - step, found.value + step


def table(rows: list[dict[str, Any]], datasets: int) -> str:
    head = ["subjects", "models", "difference", *WAYS]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "--:|" * (len(WAYS) + 1)]
    for row in rows:
        cells = [row["population"], row["pair"], f"{row['difference']:.2f}"]
        cells += [cell(row, way, datasets) for way in WAYS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--datasets", type=int, default=300, help="for each row (default 300)")
    parser.add_argument("--draws", type=int, default=200, help="of the bootstrap (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> str:
    args = arguments(argv)
    began = time.perf_counter()
    rows = []
    for population in POPULATIONS:
        for pair in PAIRS:
            rows.append(coverage(population, pair, args.datasets, args.draws, args.seed))
            say(f"{time.perf_counter() - began:6.1f} s  {population.name}, {pair}")
    text = (
        "**Coverage of 95 % intervals of the difference of two models**, percent (mean width)\n\n"
        f"{table(rows, args.datasets)}"
    )
    setting = setting_of(args, "datasets", "draws")
    found = {"setting": setting, "coverage": rows}
    return hand_out(args, f"{listed(setting)}.\n\n{text}", (START, END), found)


if __name__ == "__main__":
    main()
