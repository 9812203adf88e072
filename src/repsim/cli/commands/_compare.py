"""``repsim compare MODEL MODEL --data ...``: a map of the layers of two models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsim.cli._outcome import UsageError
from repsim.cli._session import Session
from repsim.cli.commands._options import (
    KERNELS,
    MEASURE,
    MODELS,
    RUN,
    DataOptions,
    Layers,
    ModelOptions,
    Out,
    Progress,
    RunOptions,
    published,
)
from repsim.cli.commands._signature import command

if TYPE_CHECKING:
    from repsim.cli.models._load import ModelRequest

__all__ = ["compare"]


class Transform(StrEnum):
    """Which part of a layer's output is compared."""

    FLATTEN = "flatten"
    CLS = "cls"
    FIRST = "first"
    LAST = "last"
    MEAN = "mean"


LayersY = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        rich_help_panel=MODELS,
        show_default="as --layers",
        help="Layers of the second model. May be repeated.",
    ),
]


@dataclass(frozen=True)
class SecondModel:
    """The options of the second model; the others it shares with the first."""

    weights_y: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", rich_help_panel=MODELS, help="Weights of the second model, a file."
        ),
    ] = None
    size_y: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            rich_help_panel=MODELS,
            show_default="as --size",
            help="Height and width of the images that the second model gets.",
        ),
    ] = None
    seed_y: Annotated[
        int | None,
        typer.Option(
            min=0,
            rich_help_panel=RUN,
            show_default="--seed plus 1",
            help="Seed of the random weights of the second model.",
        ),
    ] = None


@dataclass(frozen=True)
class MapOptions:
    """The options of the map."""

    transform: Annotated[
        Transform,
        typer.Option(
            metavar="PART",
            rich_help_panel=MEASURE,
            help="Compare the whole output (flatten), the class token (cls), the first token "
            "(first), the last (last), or the mean over tokens (mean).",
        ),
    ] = Transform.FLATTEN
    transform_y: Annotated[
        Transform | None,
        typer.Option(
            metavar="PART",
            rich_help_panel=MEASURE,
            show_default="as --transform",
            help="What to compare of the layers of the second model: the class token of a ViT "
            "(--transform cls) with means of a CNN (--transform-y mean).",
        ),
    ] = None
    measure: Annotated[
        str,
        typer.Option(
            rich_help_panel=MEASURE,
            help="The name of a measure of the library. All but cka keep the features of all "
            "samples, in --out if it is given.",
        ),
    ] = "cka"
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            rich_help_panel=MEASURE,
            help="An option of the measure, such as k=5. May be repeated.",
        ),
    ] = None
    permutations: Annotated[
        int,
        typer.Option(
            min=0,
            rich_help_panel=MEASURE,
            help="Compare with chance by this many permutations of the samples. For cka see "
            "--z-scores.",
        ),
    ] = 0
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="KERNEL",
            rich_help_panel=MEASURE,
            show_default="linear",
            help=f"The kernel, for measures that have one: {KERNELS}",
        ),
    ] = None
    passes: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=RUN,
            help="Number of passes over the data, each in another order.",
        ),
    ] = 1
    z_scores: Annotated[
        bool,
        typer.Option(
            "--z-scores",
            rich_help_panel=MEASURE,
            help="Add a z-score to each CKA: how many standard deviations it lies above chance.",
        ),
    ] = False


@command
def compare(
    session: Session,
    x: Annotated[
        str,
        typer.Argument(
            metavar="X",
            help="A model: timm:NAME, torchvision:NAME, transformers:TYPE, or "
            "package.module:function.",
        ),
    ],
    y: Annotated[
        str | None,
        typer.Argument(
            metavar="Y",
            help="A second model; without it, the layers of X are compared with each other.",
        ),
    ] = None,
    *,
    data: DataOptions,
    layers: Layers = None,
    layers_y: LayersY = None,
    first: ModelOptions,
    second: SecondModel,
    chosen: MapOptions,
    run: RunOptions,
    out: Out = None,
    progress: Progress = True,
) -> None:
    """Compare every layer of a model with every layer of another.

    Unbiased minibatch CKA with its standard error over --data, or any other --measure. With --out
    the state is kept in a folder: after Ctrl-C or a crash the same command resumes.
    """
    request_x, request_y = _requests(x, y, first, second, run)
    from repsim.cli.tasks._map import MapRequest, compare_models

    asked = MapRequest(
        tuple(layers or ("*",)),
        None if layers_y is None else tuple(layers_y),
        measure=chosen.measure,
        options=tuple(chosen.option or ()),
        permutations=chosen.permutations,
        kernel=chosen.kernel,
        passes=chosen.passes,
        transform=chosen.transform.value,
        transform_y=None if chosen.transform_y is None else chosen.transform_y.value,
        z_scores=chosen.z_scores,
    )
    asked.check()
    inputs = data.inputs("compare", run, first.scale)
    compare_models(session, request_x, request_y, inputs, asked, out=out, progress=progress)


def _requests(
    x: str, y: str | None, first: ModelOptions, second: SecondModel, run: RunOptions
) -> tuple[ModelRequest, ModelRequest | None]:
    """Return the models to load, once their names and weights are checked."""
    from repsim.cli.models._load import ModelRequest

    seed, device = run.seed, run.device
    has_x, *has_y = published(first.pretrained, *(each for each in (x, y) if each is not None))
    request_x = ModelRequest(x, seed, first.weights, has_x, first.size, first.scale, device)
    request_y = None
    if y is None:
        _need_second_model(second)
    else:
        # Two different draws, because one seed would make the same model twice.
        seed_y = seed + 1 if second.seed_y is None else second.seed_y
        size_y = second.size_y or first.size
        request_y = ModelRequest(y, seed_y, second.weights_y, has_y[0], size_y, first.scale, device)
    for request in (request_x, request_y):
        if request is not None:
            request.check()
    return request_x, request_y


def _need_second_model(second: SecondModel) -> None:
    """Raise on options of a second model if there is none."""
    values = {
        "--weights-y": second.weights_y,
        "--size-y": second.size_y,
        "--seed-y": second.seed_y,
    }
    names = [name for name, value in values.items() if value is not None]
    if names:
        raise UsageError(
            f"{', '.join(names)}: {'is' if len(names) == 1 else 'are'} for two models only.\n"
            f"  Name a second model, or leave {'it' if len(names) == 1 else 'them'} out."
        )
