"""The options that several commands share: each is written once, with its help.

Options of a single command are in the file of that command.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repsim.cli._outcome import UsageError
from repsim.cli.commands._signature import OUTPUT

if TYPE_CHECKING:
    from repsim.cli.data._inputs import Inputs
    from repsim.cli.models._load import ModelRequest
    from repsim.cli.tasks._analyses import Tokens

__all__ = [
    "KERNELS",
    "MEASURE",
    "MODELS",
    "RUN",
    "DataOptions",
    "DataSource",
    "Layers",
    "ModelName",
    "ModelOptions",
    "NoProgress",
    "OnBadImage",
    "Out",
    "Progress",
    "RunOptions",
    "Scale",
    "TokenOptions",
    "published",
]

DATA, MODELS, MEASURE, RUN = "Data", "Models", "Measure", "Run"
"""The panels of the help."""

KERNELS = "linear, rbf, laplacian, polynomial, cosine; with parameters: 'rbf(fraction=0.5)'."


class OnBadImage(StrEnum):
    """What to do with an image that cannot be read."""

    SKIP = "skip"
    ERROR = "error"


class Scale(StrEnum):
    """The scale of pixels for a model."""

    IMAGENET = "imagenet"
    HALF = "half"
    NONE = "none"


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="timm:NAME, torchvision:NAME, transformers:TYPE, or package.module:function.",
    ),
]
DataSource = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        rich_help_panel=DATA,
        help="A folder of images (class sub-folders give labels), an .npz with images or inputs "
        "(and labels, attention_mask), or the word digits.",
    ),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="GLOB",
        rich_help_panel=MODELS,
        help="Names or globs of layers; * also matches dots. May be repeated.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=OUTPUT,
        help="Folder for the state, the results and a page. The same command resumes from it.",
    ),
]
Progress = Annotated[
    bool,
    typer.Option(
        "--progress/--no-progress",
        rich_help_panel=OUTPUT,
        help="Show progress bars on standard error.",
    ),
]
NoProgress = Annotated[bool, typer.Option("--progress/--no-progress", hidden=True)]
"""For commands without a progress bar, so that a script may pass --no-progress to every command."""


@dataclass(frozen=True)
class RunOptions:
    """The device and the seed of a command."""

    device: Annotated[
        str, typer.Option(rich_help_panel=RUN, help="Where models run: cpu, cuda, cuda:1.")
    ] = "cpu"
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            rich_help_panel=RUN,
            help="Seed of random weights and of the order of the samples.",
        ),
    ] = 0


@dataclass(frozen=True)
class ModelOptions:
    """The options of a model."""

    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=MODELS,
            help="A state dict in .safetensors, or saved by torch.save and read without pickles.",
        ),
    ] = None
    pretrained: Annotated[
        bool,
        typer.Option(
            "--pretrained",
            rich_help_panel=MODELS,
            help="Download and use the weights that timm or torchvision publish.",
        ),
    ] = False
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            rich_help_panel=MODELS,
            show_default="the model's own",
            help="Height and width of the images that the model gets.",
        ),
    ] = None
    normalise: Annotated[
        Scale | None,
        typer.Option(
            rich_help_panel=MODELS,
            show_default="the model's own, else imagenet",
            help="Scale of the pixels. imagenet: subtract ImageNet's means and divide by its "
            "deviations; half: from -1 to 1; none: from 0 to 1.",
        ),
    ] = None

    @property
    def scale(self) -> str | None:
        """The name of the requested scale."""
        return None if self.normalise is None else self.normalise.value

    def request(self, spec: str, run: RunOptions) -> ModelRequest:
        """Return the model to load, after checking its name and its weights."""
        from repsim.cli.models._load import ModelRequest

        (has,) = published(self.pretrained, spec)
        request = ModelRequest(spec, run.seed, self.weights, has, self.size, self.scale, run.device)
        request.check()
        return request


@dataclass(frozen=True)
class DataOptions:
    """The samples that models run on."""

    data: DataSource = None
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=DATA,
            show_default="all",
            help="Number of samples to take, chosen at random by the seed.",
        ),
    ] = None
    batch_size: Annotated[
        int, typer.Option(min=1, rich_help_panel=DATA, help="Samples in a batch.")
    ] = 128
    on_bad_image: Annotated[
        OnBadImage,
        typer.Option(
            "--on-bad-image",
            rich_help_panel=DATA,
            help="skip: leave out images that cannot be read, and count them; error: stop at the "
            "first.",
        ),
    ] = OnBadImage.SKIP
    workers: Annotated[
        int, typer.Option(min=1, rich_help_panel=DATA, help="Threads that decode images.")
    ] = 2

    def inputs(self, command: str, run: RunOptions, scale: str | None) -> Inputs:
        """Open the data.

        Raises
        ------
        UsageError
            No data are named, or ``scale`` is given for data without pixels.
        """
        from repsim.cli.data._inputs import Inputs

        if self.data is None:
            raise UsageError(
                f"{command}: models need data to run on.\n"
                "  Name the data: --data FOLDER (of images), --data FILE.npz or --data digits."
            )
        inputs = Inputs(
            self.data,
            self.limit,
            run.seed,
            self.batch_size,
            self.workers,
            self.on_bad_image is OnBadImage.ERROR,
        )
        if scale is not None and not inputs.samples.are_images:
            raise UsageError(
                f"{command}: --normalise is for the pixels of images.\n"
                f"  got --normalise {scale}; {self.data} holds inputs, which are passed "
                "unchanged\n"
                "  Leave it out."
            )
        return inputs


@dataclass(frozen=True)
class TokenOptions:
    """Where the tokens of a model lie, for models that do not show it."""

    grid: Annotated[
        str | None,
        typer.Option(
            metavar="ROWSxCOLUMNS",
            rich_help_panel=MODELS,
            show_default="found",
            help="Rows and columns of patches, if repsim cannot find them; a text needs none.",
        ),
    ] = None
    prefix: Annotated[
        int | None,
        typer.Option(
            min=0,
            rich_help_panel=MODELS,
            show_default="found",
            help="Number of tokens before the patches: CLS, distillation, registers.",
        ),
    ] = None
    patch_size: Annotated[
        float | None,
        typer.Option(
            min=0,
            rich_help_panel=MODELS,
            show_default="found",
            help="Pixels from one patch to the next; distances in texts are in tokens.",
        ),
    ] = None

    def tokens(self) -> Tokens:
        """Return it in the form that the analyses take."""
        from repsim.cli.tasks._analyses import Tokens

        return Tokens(_grid(self.grid), self.prefix, self.patch_size)


def published(pretrained: bool, *specs: str) -> list[bool]:
    """Return for each model whether it gets published weights.

    Raises
    ------
    UsageError
        Published weights are requested, but none of the models has any.
    """
    have = [pretrained and spec.startswith(("timm:", "torchvision:")) for spec in specs]
    if pretrained and not any(have):
        raise UsageError(
            f"--pretrained: is for timm and torchvision.\n  got {' and '.join(specs)}\n"
            f"  Load other weights with --weights FILE, or name a local folder: "
            f"transformers:./folder"
        )
    return have


def _grid(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) * int(columns)):
        raise UsageError(f"--grid: write ROWSxCOLUMNS, for example 14x14.\n  got {text!r}")
    return int(rows), int(columns)
