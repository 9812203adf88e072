"""The options of the commands: each written once, with its help."""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from repsim.cli._session import Session

__all__ = [
    "BadImages",
    "BatchSize",
    "DataSource",
    "Debug",
    "Device",
    "EstimatorOption",
    "Json",
    "Kernel",
    "LayersX",
    "LayersY",
    "Limit",
    "MeasureOption",
    "MeasureOptions",
    "ModelName",
    "Normalise",
    "OnBadImage",
    "Only",
    "Out",
    "Passes",
    "Permutations",
    "Pretrained",
    "ProgressBars",
    "Scale",
    "Seed",
    "SeedY",
    "Size",
    "SizeY",
    "Test",
    "Transform",
    "TransformOption",
    "Weights",
    "WeightsY",
    "Workers",
    "ZScores",
]


class OnBadImage(StrEnum):
    """What to do about an image that cannot be read."""

    SKIP = "skip"
    ERROR = "error"


class Scale(StrEnum):
    """What pixels between 0 and 1 become before a model sees them."""

    IMAGENET = "imagenet"
    HALF = "half"
    NONE = "none"


class Transform(StrEnum):
    """What of a layer's output is compared."""

    FLATTEN = "flatten"
    CLS = "cls"
    MEAN = "mean"


def _session(context: typer.Context) -> Session:
    session = context.find_root().obj
    assert isinstance(session, Session), "made before any option is read"
    return session


def _debug(context: typer.Context, value: bool) -> None:
    if value:
        _session(context).debug = True
        warnings.simplefilter("default")


def _json(context: typer.Context, value: bool) -> None:
    if value:
        _session(context).only_json()


_DATA, _MODEL, _RUN, _ARRAYS, _OUTPUT = "Data", "Models", "Run", "Arrays", "Output"

Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        callback=_debug,
        rich_help_panel=_OUTPUT,
        help="Show tracebacks, and the warnings of other libraries.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=_json,
        is_eager=True,
        rich_help_panel=_OUTPUT,
        help="Write the result as JSON to standard output, and nothing else there.",
    ),
]
ProgressBars = Annotated[
    bool,
    typer.Option(
        "--progress/--no-progress",
        rich_help_panel=_OUTPUT,
        help="Show progress bars on standard error.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=_OUTPUT,
        help="Run folder: state, results and a page. The same command goes on from it.",
    ),
]
DataSource = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        rich_help_panel=_DATA,
        help="A folder of images (class sub-folders give labels), an .npz with images or inputs "
        "(and labels), or the word digits.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=_DATA, help="Take so many samples, chosen at random by the seed."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, rich_help_panel=_DATA, show_default="128", help="Samples in a batch."),
]
BadImages = Annotated[
    OnBadImage | None,
    typer.Option(
        "--on-bad-image",
        rich_help_panel=_DATA,
        show_default="skip",
        help="Leave images that cannot be read out and count them, or stop at the first.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=_DATA, show_default="2", help="Threads that decode images."
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=_RUN,
        show_default="0",
        help="Of random weights, of the order of the samples, of permutations.",
    ),
]
LayersX = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="GLOB",
        rich_help_panel=_MODEL,
        help="Names or globs of layers, in which * crosses dots too; may be repeated.",
    ),
]
LayersY = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB",
        rich_help_panel=_MODEL,
        help="Those of the second model.",
        show_default="as --layers",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=_MODEL,
        help="A state dict in .safetensors, or saved by torch.save and read without pickles.",
    ),
]
WeightsY = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=_MODEL, help="Those of the second model."),
]
Pretrained = Annotated[
    bool,
    typer.Option(
        "--pretrained",
        rich_help_panel=_MODEL,
        help="The weights that timm or torchvision publish; they download them.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        rich_help_panel=_MODEL,
        show_default="the model's own",
        help="Height and width of the images that the model gets.",
    ),
]
SizeY = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        rich_help_panel=_MODEL,
        show_default="as --size",
        help="Those of the second model.",
    ),
]
Normalise = Annotated[
    Scale | None,
    typer.Option(
        rich_help_panel=_MODEL,
        show_default="the model's own, else imagenet",
        help="What pixels in [0, 1] become: less ImageNet's means and over its deviations; "
        "[-1, 1]; as they are.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_RUN, show_default="cpu", help="Where the models run: cpu, cuda, cuda:1."
    ),
]
Kernel = Annotated[
    str | None,
    typer.Option(
        metavar="KERNEL",
        rich_help_panel=_RUN,
        show_default="linear",
        help="linear, rbf, laplacian, polynomial, cosine; with parameters: 'rbf(fraction=0.5)'.",
    ),
]
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="timm:NAME, torchvision:NAME, transformers:TYPE, or package.module:function.",
    ),
]
TransformOption = Annotated[
    Transform | None,
    typer.Option(
        "--transform",
        rich_help_panel=_MODEL,
        show_default="flatten",
        help="What of an output is compared: all of it, the first token, the mean over tokens.",
    ),
]
Passes = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=_RUN,
        show_default="1",
        help="How many times to go over the data, each time in another order.",
    ),
]
ZScores = Annotated[
    bool,
    typer.Option(
        "--z-scores", rich_help_panel=_RUN, help="Also say how far above chance each CKA lies."
    ),
]
SeedY = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=_RUN,
        show_default="the seed and 1",
        help="Of the random weights of the second model.",
    ),
]
MeasureOption = Annotated[
    str | None,
    typer.Option(
        "--measure",
        rich_help_panel=_ARRAYS,
        show_default="cka",
        help="Of arrays: any measure of the library.",
    ),
]
EstimatorOption = Annotated[
    str | None,
    typer.Option(
        "--estimator",
        metavar="unbiased|biased",
        rich_help_panel=_ARRAYS,
        show_default="unbiased",
        help="Of measures that have one.",
    ),
]
MeasureOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        rich_help_panel=_ARRAYS,
        help="An option of the measure, such as k=5; may be repeated.",
    ),
]
Test = Annotated[
    bool,
    typer.Option(
        "--test",
        rich_help_panel=_ARRAYS,
        help="Permutation test, and for unbiased CKA the jackknife interval.",
    ),
]
Permutations = Annotated[
    int | None,
    typer.Option(min=1, rich_help_panel=_ARRAYS, show_default="999", help="How many --test draws."),
]
Grid = Annotated[
    str | None,
    typer.Option(
        metavar="ROWSxCOLUMNS",
        rich_help_panel=_MODEL,
        show_default="found",
        help="Patches of the image, where they cannot be found; of text 1xTOKENS.",
    ),
]
Prefix = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=_MODEL,
        show_default="found",
        help="Tokens before the patches: CLS, distillation, registers.",
    ),
]
PatchSize = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=_MODEL,
        show_default="found",
        help="Pixels from a patch to the next; of text 1, for distances in tokens.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ANALYSIS", rich_help_panel=_RUN, help="Run this analysis only; may be repeated."
    ),
]
