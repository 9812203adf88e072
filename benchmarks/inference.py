"""How often intervals contain the true value, and how often tests reject a true null hypothesis.

    pip install -e .
    python benchmarks/inference.py                               # print the tables
    python benchmarks/inference.py --json inference.json --write benchmarks/README.md

Simulated data whose population CKA is known. Coverage of 95 % intervals: the jackknife, random
halves, and the naive bootstrap, which repsim does not have. Type-I error at level .05: permutation
tests of independent data. benchmarks/README.md says what each row is.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np

import repsim
from _output import hand_out, listed, parser_of, say
from _simulation import Ends, cell, setting_of, tally, uncertain
from repsim.inference import subsample

START, END = "<!-- inference:start -->", "<!-- inference:end -->"
LEVEL = 0.95
ALPHA = 0.05
Array = np.ndarray[Any, np.dtype[np.float64]]


# Populations


@dataclass(frozen=True)
class Population:
    """x = c A + e, y = c B + f: causes c in common, with variances that fall off as in networks.

    Samples may come in groups: each cause is then half that of the group, half the sample's own.
    """

    name: str
    n: int
    p: int
    q: int
    noise: float
    tails: str = "normal"
    per_group: int = 1

    def covariances(self) -> tuple[Array, Array, Array]:
        """Σ_xx, Σ_xy, Σ_yy, up to the factor that heavy tails give all three."""
        a, b = self._maps()
        noise = self.noise**2
        return (
            a.T @ a + noise * np.eye(self.p),
            a.T @ b,
            b.T @ b + noise * np.eye(self.q),
        )

    def cka(self) -> float:
        """Linear CKA in the population: ‖Σ_xy‖²/(‖Σ_xx‖ ‖Σ_yy‖)."""
        xx, xy, yy = self.covariances()
        return float((xy**2).sum() / (np.linalg.norm(xx) * np.linalg.norm(yy)))

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """n samples of x and y, group after group."""
        a, b = self._maps()
        groups = self.n // self.per_group
        causes = rng.standard_normal((self.n, len(a)))
        if self.per_group > 1:
            shared = np.repeat(rng.standard_normal((groups, len(a))), self.per_group, axis=0)
            causes = (causes + shared) / math.sqrt(2)
        x = causes @ a + self.noise * rng.standard_normal((self.n, self.p))
        y = causes @ b + self.noise * rng.standard_normal((self.n, self.q))
        if self.tails == "t":  # multivariate t with 6 degrees of freedom: some samples are far off
            size = np.sqrt(6 / rng.chisquare(6, (self.n, 1)))
            return x * size, y * size
        return x, y

    def labels(self) -> Array | None:
        """The group of each sample, if there are groups."""
        if self.per_group == 1:
            return None
        return np.repeat(np.arange(self.n // self.per_group), self.per_group)

    def _maps(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(7)
        causes = min(self.p, self.q)
        size = 1 / np.sqrt(np.arange(1, causes + 1))[:, None]
        return (
            size * rng.standard_normal((causes, self.p)) / math.sqrt(self.p),
            size * rng.standard_normal((causes, self.q)) / math.sqrt(self.q),
        )


COVERAGE = (
    Population("n = 50, 10 and 10 features", 50, 10, 10, 0.25),
    Population("n = 100, 20 and 20 features", 100, 20, 20, 0.2),
    Population("n = 50, 200 and 20 features", 50, 200, 20, 0.1),
    Population("n = 100, 200 and 200 features", 100, 200, 200, 0.1),
    Population("n = 100, 20 and 20 features, heavy tails", 100, 20, 20, 0.2, tails="t"),
    Population("40 groups of 3, 20 and 20 features", 120, 20, 20, 0.2, per_group=3),
)


# Intervals

Interval = tuple[float, float]


def jackknife(x: Array, y: Array, groups: Any, rng: np.random.Generator) -> Interval:
    found = repsim.jackknife(x, y, groups=groups, level=LEVEL)
    return found.low, found.high


def jackknife_of_samples(x: Array, y: Array, groups: Any, rng: np.random.Generator) -> Interval:
    return jackknife(x, y, None, rng)


def halves(x: Array, y: Array, groups: Any, rng: np.random.Generator) -> Interval:
    found = subsample(x, y, groups=groups, draws=100, level=LEVEL, seed=rng)
    return found.low, found.high


def resampled(x: Array, y: Array, groups: Any, rng: np.random.Generator, draws: int) -> Array:
    """Unbiased and biased CKA of rows (of groups) drawn with replacement, (draws, 2)."""
    n = len(x)
    rows = np.arange(n)[:, None] if groups is None else np.arange(n).reshape(len(set(groups)), -1)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    out = []
    for _ in range(draws):
        drawn = rows[rng.integers(0, len(rows), len(rows))].ravel()
        pair = [gram[np.ix_(drawn, drawn)] for gram in (k, l)]
        out.append([cosine(*map(centre, pair)) for centre in (u_centred, doubly_centred)])
    return np.array(out)


def u_centred(k: Array) -> Array:
    n = len(k)
    k = k - np.diag(np.diag(k))
    rows = k.sum(0) / (n - 2)
    a = k - rows - rows[:, None] + rows.sum() / (n - 1)
    np.fill_diagonal(a, 0)
    return a


def doubly_centred(k: Array) -> Array:
    rows = k.mean(0)
    return k - rows - rows[:, None] + rows.mean()


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


def bootstrap(column: int) -> Callable[..., Interval]:
    """Percentiles of CKA over rows drawn with replacement, which repsim does not offer."""

    def interval(x: Array, y: Array, groups: Any, rng: np.random.Generator) -> Interval:
        values = resampled(x, y, groups, rng, draws=200)[:, column]
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)

    return interval


INTERVALS: dict[str, Callable[[Array, Array, Any, np.random.Generator], Interval]] = {
    "jackknife": jackknife,
    "random halves": halves,
    "bootstrap, unbiased CKA": bootstrap(0),
    "bootstrap, biased CKA": bootstrap(1),
}


def coverage(population: Population, datasets: int, seed: int) -> dict[str, Any]:
    """Share of data sets whose interval contains the population's CKA, and the mean width."""
    ways = dict(INTERVALS)
    if population.per_group > 1:
        ways["jackknife without groups="] = jackknife_of_samples
    truth = population.cka()

    def data_sets() -> Iterator[dict[str, Ends]]:
        for number in range(datasets):
            rng = np.random.default_rng([seed, number])
            x, y = population.draw(rng)
            yield {
                way: (truth, *interval(x, y, population.labels(), rng))
                for way, interval in ways.items()
            }

    return {"population": population.name, "cka": truth, **tally(data_sets())}


# Tests of independent data


def white(rng: np.random.Generator, n: int, p: int, q: int) -> tuple[Array, Array]:
    return rng.standard_normal((n, p)), rng.standard_normal((n, q))


def heavy(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_cauchy((40, 20)), rng.standard_exponential((40, 30))


def tokens(rng: np.random.Generator) -> tuple[Array, Array]:
    """16 images of 5 tokens: x and y are unrelated, but the tokens of an image are alike."""

    def side() -> Array:
        image = np.repeat(rng.standard_normal((16, 10)), 5, axis=0)
        return image + rng.standard_normal((80, 10))

    return side(), side()


TOKENS = np.repeat(np.arange(16), 5)

Pair = Callable[[np.random.Generator], tuple[Array, Array]]
NULLS: dict[str, tuple[Pair, dict[str, Any]]] = {
    "n = 40, 1 and 1 features": (lambda rng: white(rng, 40, 1, 1), {}),
    "n = 40, 20 and 30 features": (lambda rng: white(rng, 40, 20, 30), {}),
    "the same, biased CKA": (lambda rng: white(rng, 40, 20, 30), {"estimator": "biased"}),
    "n = 20, 300 and 500 features": (lambda rng: white(rng, 20, 300, 500), {}),
    "n = 40, Cauchy and exponential": (heavy, {}),
    "the same, RBF kernel": (heavy, {"kernel": "rbf"}),
    "16 groups of 5": (tokens, {"groups": TOKENS}),
    "the same, without groups=": (tokens, {}),
}


def rejections(draw: Pair, options: dict[str, Any], datasets: int, seed: int) -> dict[str, float]:
    """Share of data sets with p ≤ α, and with z above the normal quantile."""
    by_p = by_z = 0
    for number in range(datasets):
        rng = np.random.default_rng([seed, number])
        x, y = draw(rng)
        found = repsim.permutation_test(x, y, permutations=99, seed=rng, **options)
        by_p += found.p_value <= ALPHA
        by_z += found.z > 1.6448536269514722
    return {"p": by_p / datasets, "z": by_z / datasets}


def family(datasets: int, seed: int) -> dict[str, float]:
    """Share of maps of 8 × 8 independent layers with any p ≤ α, for each pair alone and max-T."""
    alone = together = 0
    for number in range(datasets):
        rng = np.random.default_rng([seed, number])
        xs, ys = ({str(i): side for i, side in enumerate(layers(rng))} for _ in range(2))
        found = repsim.max_t(xs, ys, permutations=99, seed=rng)
        alone += bool((found.p_value <= ALPHA).any())
        together += bool((found.p_adjusted <= ALPHA).any())
    return {"alone": alone / datasets, "max_t": together / datasets}


def layers(rng: np.random.Generator) -> Iterator[Array]:
    """Eight layers of a network; each adds something new to the one before."""
    x = rng.standard_normal((30, 10))
    for _ in range(8):
        x = 0.8 * x + 0.6 * rng.standard_normal((30, 10))
        yield x


# Tables


def coverage_table(rows: list[dict[str, Any]], datasets: int) -> str:
    ways = list(INTERVALS)
    lines = [
        "| population | CKA | " + " | ".join(ways) + " |",
        "|---|--:|" + "--:|" * len(ways),
    ]
    extra = "jackknife without groups="
    for row in rows:
        cells = [cell(row, way, datasets) for way in ways]
        lines.append(f"| {row['population']} | {row['cka']:.2f} | {' | '.join(cells)} |")
        if extra in row["coverage"]:
            blank = " – |" * (len(ways) - 1)
            own = cell(row, extra, datasets)
            lines.append(f"| the same, without `groups=` | {row['cka']:.2f} | {own} |{blank}")
    return "\n".join(lines)


def null_table(rows: dict[str, dict[str, float]], maps: dict[str, float], datasets: int) -> str:
    lines = ["| independent data | p ≤ .05 | z > 1.645 |", "|---|--:|--:|"]
    for name, row in rows.items():
        cells = " | ".join(uncertain(row[key], datasets) for key in ("p", "z"))
        lines.append(f"| {name.replace('groups=', '`groups=`')} | {cells} |")
    lines += [
        "",
        "**Maps of 8 × 8 independent pairs of layers with a rejection**, n = 30, percent",
        "",
        "| a rejection is | maps |",
        "|---|--:|",
        f"| `p_value` ≤ .05 | {uncertain(maps['alone'], datasets)} |",
        f"| `p_adjusted` ≤ .05 | {uncertain(maps['max_t'], datasets)} |",
    ]
    return "\n".join(lines)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = parser_of(__doc__, tables="tables")
    parser.add_argument("--datasets", type=int, default=300, help="for coverage (default 300)")
    parser.add_argument("--nulls", type=int, default=3000, help="for the tests (default 3000)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> str:
    args = arguments(argv)
    began = time.perf_counter()

    def done(what: str) -> None:
        say(f"{time.perf_counter() - began:6.1f} s  {what}")

    rows, nulls = [], {}
    for population in COVERAGE:
        rows.append(coverage(population, args.datasets, args.seed))
        done(population.name)
    for name, (draw, options) in NULLS.items():
        nulls[name] = rejections(draw, options, args.nulls, args.seed)
        done(name)
    maps = family(args.nulls, args.seed)
    done("maps")
    tables = (
        f"**Coverage of 95 % intervals**, percent (mean width)\n\n"
        f"{coverage_table(rows, args.datasets)}\n\n"
        f"**Rejections of independent data at level .05**, percent\n\n"
        f"{null_table(nulls, maps, args.nulls)}"
    )
    setting = setting_of(args, "datasets", "nulls")
    found = {"setting": setting, "coverage": rows, "nulls": nulls, "maps": maps}
    return hand_out(args, f"{listed(setting)}.\n\n{tables}", (START, END), found)


if __name__ == "__main__":
    main()
