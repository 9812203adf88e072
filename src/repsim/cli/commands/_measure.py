"""``repsim measure X.npy Y.npy``: how similar arrays are, or the layers in files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from repsim.cli._outcome import UsageError
from repsim.cli._session import Session
from repsim.cli.commands._options import KERNELS, MEASURE, Progress
from repsim.cli.commands._signature import command

__all__ = ["measure"]

TEST = "Test"
"""The panel of the help for tests."""


class Estimator(StrEnum):
    """The estimators of HSIC."""

    UNBIASED = "unbiased"
    BIASED = "biased"


@dataclass(frozen=True)
class MeasureOptions:
    """The options of the measure."""

    measure: Annotated[
        str, typer.Option(rich_help_panel=MEASURE, help="The name of a measure of the library.")
    ] = "cka"
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="KERNEL",
            rich_help_panel=MEASURE,
            show_default="linear",
            help=f"The kernel, for measures that have one: {KERNELS}",
        ),
    ] = None
    estimator: Annotated[
        Estimator | None,
        typer.Option(
            "--estimator",
            rich_help_panel=MEASURE,
            show_default="unbiased",
            help="The estimator, for measures that have one.",
        ),
    ] = None
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            rich_help_panel=MEASURE,
            help="Another option of the measure, such as k=5. May be repeated.",
        ),
    ] = None


@dataclass(frozen=True)
class TestOptions:
    """The options of the test."""

    test: Annotated[
        bool,
        typer.Option(
            "--test",
            rich_help_panel=TEST,
            help="Add a permutation test, and for unbiased CKA the jackknife interval.",
        ),
    ] = False
    permutations: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=TEST,
            show_default="999",
            help="Number of permutations that --test draws.",
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(min=0, rich_help_panel=TEST, help="Seed of the permutations.")
    ] = 0


@command
def measure(
    session: Session,
    x: Annotated[
        str,
        typer.Argument(
            metavar="X",
            help="A file .npy, or an .npz or a store of repsim.extract with named layers.",
        ),
    ],
    y: Annotated[
        str | None,
        typer.Argument(
            metavar="Y",
            help="A second file; without it, the layers of X are compared with each other.",
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MORE",
            help="Further files .npy: each file, X and Y too, is a row of the matrix.",
        ),
    ] = None,
    *,
    asked: MeasureOptions,
    chance: TestOptions,
    progress: Progress = True,
) -> None:
    """Measure how similar two arrays are, or all layers of files of arrays.

    Arrays are (n, ...), with the same n samples in the same order. Two arrays give a number. More
    files, or several arrays in an .npz or a store, give a matrix. CKA and HSIC are unbiased unless
    --estimator says otherwise. The functions of Python, such as repsim.cka, are biased by default.
    """
    if chance.permutations is not None and not chance.test:
        raise UsageError(
            "--permutations: needs --test.\n  Add --test, or leave --permutations out."
        )
    from repsim.cli.tasks._arrays import measure_arrays

    files = [x, *([] if y is None else [y]), *(more or ())]
    measure_arrays(session, files, asked, chance, progress=progress)
