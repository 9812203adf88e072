"""Errors of CKA by the precision of its Grams, samples, features and mean.

    python benchmarks/precision.py                              # print the table
    python benchmarks/precision.py --write docs/precision.md

Two representations of p features each, whose means are a multiple of their standard deviations:
independent ones, and ones that share half of their variance. For each, the largest difference
between unbiased CKA and the same in float64 over a few draws. Runs on a processor: factors are
rounded by arithmetic and products are summed in float32. Tensor cores do the same except for the
order of the sums (and, for TF32, the way in which the hardware drops digits).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import repsim
from _output import hand_out, listed, parser_of, versions
from repsim.kernels import Linear

START, END = "<!-- precision:start -->", "<!-- precision:end -->"
SAMPLES = (16, 64, 256)
FEATURES = (512, 10_000)
MEANS = (0, 1, 3, 30)
COLUMNS = ("raw Gram, float32", "highest", "tf32", "bf16", "raw Gram, bf16")
CAUSES = 32


def draw(n: int, p: int, mean: float, *, related: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Two float32 representations (n, p), features of unit variance and mean ±`mean`."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(2, n, p, generator=generator)
    if related:
        causes = torch.randn(n, CAUSES, generator=generator)
        maps = torch.randn(2, CAUSES, p, generator=generator) / CAUSES**0.5
        both = (both + causes @ maps) / 2**0.5
    signs = torch.randn(2, 1, p, generator=generator).sign()
    x, y = both + mean * signs
    return x, y


def exact(x: Tensor) -> np.ndarray:
    wide = x.double()
    wide = wide - wide.mean(0)
    return (wide @ wide.T).numpy()


def gram(x: Tensor, column: str) -> np.ndarray:
    """The Gram of a column of the table, in float32."""
    if column == "raw Gram, float32":  # what every other package does
        out = x @ x.T
    elif column == "raw Gram, bf16":
        half = x.bfloat16().float()
        out = half @ half.T
    else:
        out = Linear(column).gram(x)  # type: ignore[arg-type, assignment]
    return out.double().numpy()


def cka(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    return float(repsim.cka_from_gram(k, l, estimator="unbiased"))


def errors(n: int, p: int, mean: float, *, related: bool, draws: int) -> dict[str, float]:
    worst = dict.fromkeys(COLUMNS, 0.0)
    for seed in range(draws):
        x, y = draw(n, p, mean, related=related, seed=seed)
        truth = cka(exact(x), exact(y))
        for column in COLUMNS:
            error = abs(cka(gram(x, column), gram(y, column)) - truth)
            worst[column] = max(worst[column], error)
    return worst


def table(samples: tuple[int, ...], features: tuple[int, ...], draws: int) -> str:
    lines = [
        f"| data | n | p | mean ÷ σ | {' | '.join(COLUMNS)} |",
        f"|---|--:|--:|--:|{'--:|' * len(COLUMNS)}",
    ]
    for related in (True, False):
        for n in samples:
            for p in features:
                for mean in MEANS:
                    found = errors(n, p, mean, related=related, draws=draws)
                    cells = " | ".join(f"{found[column]:.0e}" for column in COLUMNS)
                    data = "related" if related else "independent"
                    lines.append(f"| {data} | {n} | {p} | {mean} | {cells} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, keeps=False)
    parser.add_argument("--draws", type=int, default=5, help="pairs a row (default 5)")
    parser.add_argument("--samples", type=int, nargs="+", default=SAMPLES)
    parser.add_argument("--features", type=int, nargs="+", default=FEATURES)
    args = parser.parse_args(argv)
    found = table(tuple(args.samples), tuple(args.features), args.draws)
    about = f"{args.draws} draws a row, {listed(versions('torch', 'numpy'))}"
    hand_out(args, f"{about}.\n\n{found}", (START, END))


if __name__ == "__main__":
    main()
