"""The commands and their arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from repsim._version import __version__
from repsim.cli import _options as option
from repsim.cli._outcome import UsageError, reporting
from repsim.cli._session import Session
from repsim.cli.data._array_files import is_array_file

__all__ = ["app"]


class _Commands(TyperGroup):
    """The group, whose commands end with a message and an exit code, whatever happens."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = Session(list(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        session: Session = ctx.obj
        try:
            with reporting(session):
                return super().invoke(ctx)
        finally:
            session.close()


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"repsim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Do these two networks see alike: measures of representations, on arrays and on models.

    Models are timm:NAME, torchvision:NAME, transformers:TYPE (or a local folder), or
    package.module:function. They have random weights unless --weights or --pretrained is given.
    """


@app.command()
def compare(
    context: typer.Context,
    x: Annotated[str, typer.Argument(metavar="X", help="A model, or a file .npy or .npz.")],
    y: Annotated[
        str | None,
        typer.Argument(metavar="Y", help="Another of the kind; without it, X with itself."),
    ] = None,
    data: option.DataSource = None,
    limit: option.Limit = None,
    batch_size: option.BatchSize = None,
    on_bad_image: option.BadImages = None,
    workers: option.Workers = None,
    layers: option.LayersX = None,
    layers_y: option.LayersY = None,
    transform: option.TransformOption = None,
    weights: option.Weights = None,
    weights_y: option.WeightsY = None,
    pretrained: option.Pretrained = False,
    size: option.Size = None,
    size_y: option.SizeY = None,
    normalise: option.Normalise = None,
    kernel: option.Kernel = None,
    passes: option.Passes = None,
    z_scores: option.ZScores = False,
    device: option.Device = None,
    seed: option.Seed = None,
    seed_y: option.SeedY = None,
    measure: option.MeasureOption = None,
    estimator: option.EstimatorOption = None,
    measure_options: option.MeasureOptions = None,
    test: option.Test = False,
    permutations: option.Permutations = None,
    out: option.Out = None,
    progress: option.ProgressBars = True,
    as_json: option.Json = False,
    debug: option.Debug = False,
) -> None:
    """Compare two arrays, all layers of two files of arrays, or all layers of two models.

    Arrays, (n, ...) for the same n samples: one number, or from .npz with several arrays a matrix.
    The estimator of CKA is the unbiased one unless --estimator says otherwise.

    Models: unbiased minibatch CKA of every layer of X with every layer of Y over --data. With
    --out the state is kept in a folder: after Ctrl-C or a crash the same command goes on.
    """
    session: Session = context.obj
    arrays = [is_array_file(each) for each in (x, y) if each is not None]
    if any(arrays) and not all(arrays):
        raise UsageError(
            f"compare: a file of arrays and a model cannot be compared.\n  got {x} and {y}\n"
            f"  Name two files (.npy, .npz) or two models (timm:NAME, ...)."
        )
    if all(arrays):
        _only_for(
            "models",
            **{
                "--data": data, "--limit": limit, "--batch-size": batch_size,
                "--on-bad-image": on_bad_image, "--workers": workers, "--layers": layers,
                "--layers-y": layers_y, "--transform": transform, "--weights": weights,
                "--weights-y": weights_y, "--pretrained": pretrained, "--size": size,
                "--size-y": size_y, "--normalise": normalise, "--passes": passes,
                "--z-scores": z_scores, "--device": device, "--seed-y": seed_y, "--out": out,
            },
        )  # fmt: skip
        if permutations is not None and not test:
            raise UsageError("--permutations: are those of --test.\n  Add --test.")
        from repsim.cli.commands._measure import ArrayOptions, compare_arrays

        asked = ArrayOptions(
            measure,
            kernel,
            estimator,
            tuple(measure_options or ()),
            test,
            permutations,
            seed or 0,
            progress,
        )
        compare_arrays(session, x, y, asked)
        return
    _only_for(
        "arrays",
        **{
            "--measure": measure, "--estimator": estimator, "--option": measure_options,
            "--test": test, "--permutations": permutations,
        },
    )  # fmt: skip
    if y is None:
        _only_for(
            "two models",
            **{"--weights-y": weights_y, "--size-y": size_y, "--seed-y": seed_y},
        )
    from repsim.cli.commands._compare import MapOptions, compare_models
    from repsim.cli.data._inputs import Inputs
    from repsim.cli.models._load import ModelRequest

    scale = None if normalise is None else normalise.value
    seed_x = seed or 0
    have = _published(pretrained, *(each for each in (x, y) if each is not None))
    request_x = ModelRequest(x, seed_x, weights, have[0], size, scale, device or "cpu")
    request_y = None
    if y is not None:
        # Two draws, as of two models built one after the other: the same would be one model.
        request_y = ModelRequest(
            y,
            seed_x + 1 if seed_y is None else seed_y,
            weights_y,
            have[1],
            size_y or size,
            scale,
            device or "cpu",
        )
    for request in (request_x, request_y):
        if request is not None:
            request.check()
    compare_models(
        session,
        request_x,
        request_y,
        Inputs.asked("compare", data, limit, seed, batch_size, workers, on_bad_image, scale),
        MapOptions(
            tuple(layers or ("*",)),
            None if layers_y is None else tuple(layers_y),
            kernel or "linear",
            passes or 1,
            None if transform is None else transform.value,
            z_scores,
        ),
        out=out,
        progress=progress,
    )


@app.command()
def attention(
    context: typer.Context,
    model: option.ModelName,
    data: option.DataSource = None,
    limit: option.Limit = None,
    batch_size: option.BatchSize = None,
    on_bad_image: option.BadImages = None,
    workers: option.Workers = None,
    layers: option.LayersX = None,
    grid: option.Grid = None,
    prefix: option.Prefix = None,
    patch_size: option.PatchSize = None,
    weights: option.Weights = None,
    pretrained: option.Pretrained = False,
    size: option.Size = None,
    normalise: option.Normalise = None,
    device: option.Device = None,
    seed: option.Seed = None,
    out: option.Out = None,
    progress: option.ProgressBars = True,
    as_json: option.Json = False,
    debug: option.Debug = False,
) -> None:
    """Measure how far each attention head of a model looks: mean distance in pixels, by layer."""
    from repsim.cli.commands._analyse import measure_one
    from repsim.cli.commands._analyses import Tokens
    from repsim.cli.data._inputs import Inputs
    from repsim.cli.models._load import ModelRequest

    scale = None if normalise is None else normalise.value
    (has,) = _published(pretrained, model)
    request = ModelRequest(model, seed or 0, weights, has, size, scale, device or "cpu")
    request.check()
    tokens = Tokens.asked(grid, prefix, patch_size)
    measure_one(
        context.obj,
        "attention",
        "attention_distance",
        request,
        Inputs.asked("attention", data, limit, seed, batch_size, workers, on_bad_image, scale),
        layers,
        tokens,
        out=out,
        progress=progress,
    )


@app.command()
def analyse(
    context: typer.Context,
    model: option.ModelName,
    data: option.DataSource = None,
    limit: option.Limit = None,
    batch_size: option.BatchSize = None,
    on_bad_image: option.BadImages = None,
    workers: option.Workers = None,
    layers: option.LayersX = None,
    grid: option.Grid = None,
    prefix: option.Prefix = None,
    patch_size: option.PatchSize = None,
    weights: option.Weights = None,
    pretrained: option.Pretrained = False,
    size: option.Size = None,
    normalise: option.Normalise = None,
    device: option.Device = None,
    seed: option.Seed = None,
    only: option.Only = None,
    out: option.Out = None,
    progress: option.ProgressBars = True,
    as_json: option.Json = False,
    debug: option.Debug = False,
) -> None:
    """Run every analysis that a model supports, into a run folder with a page.

    layer_map, attention_distance, residual_ratios, receptive_field, localization, and linear_probe
    where the data have labels. What a model has not (attention, a grid, skips) is skipped, with the
    reason. Each is kept when it is finished: the same command goes on with the next.
    """
    from repsim.cli.commands._analyse import analyse as run_all
    from repsim.cli.commands._analyse import check_names
    from repsim.cli.commands._analyses import Tokens
    from repsim.cli.data._inputs import Inputs
    from repsim.cli.models._load import ModelRequest

    names = check_names(only or [])
    if out is None:
        last = model.rpartition(":")[2].rstrip("/").rpartition("/")[2]
        out = Path("repsim-" + re.sub(r"[^\w.-]+", "-", last))
    scale = None if normalise is None else normalise.value
    (has,) = _published(pretrained, model)
    request = ModelRequest(model, seed or 0, weights, has, size, scale, device or "cpu")
    request.check()
    tokens = Tokens.asked(grid, prefix, patch_size)
    code = run_all(
        context.obj,
        request,
        Inputs.asked("analyse", data, limit, seed, batch_size, workers, on_bad_image, scale),
        names,
        layers,
        tokens,
        out=out,
        progress=progress,
    )
    raise typer.Exit(code)


@app.command()
def layers(
    context: typer.Context,
    model: option.ModelName,
    layers: option.LayersX = None,
    data: option.DataSource = None,
    weights: option.Weights = None,
    pretrained: option.Pretrained = False,
    size: option.Size = None,
    normalise: option.Normalise = None,
    device: option.Device = None,
    seed: option.Seed = None,
    as_json: option.Json = False,
    debug: option.Debug = False,
) -> None:
    """List the layers of a model: name, type and output shape, in the order in which they run.

    The model runs once, on noise of its size or on two samples of --data.
    """
    from repsim.cli.commands._layers import list_layers
    from repsim.cli.models._load import ModelRequest

    scale = None if normalise is None else normalise.value
    (has,) = _published(pretrained, model)
    request = ModelRequest(model, seed or 0, weights, has, size, scale, device or "cpu")
    list_layers(context.obj, request, layers or ["*"], data)


@app.command()
def report(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    as_json: option.Json = False,
    debug: option.Debug = False,
) -> None:
    """Write the page of a run folder anew, report.html, of all results in it."""
    if not folder.is_dir():
        raise UsageError(
            f"report: there is no such folder.\n  got {folder}\n  Name the folder that --out named."
        )
    from repsim.cli._run_folder import command_of, write_page

    session: Session = context.obj
    page = write_page(folder, command_of(folder))
    if session.as_json:
        session.emit({"command": "report", "files": {"folder": str(folder), "report": str(page)}})
    else:
        session.line(f"the page is {page}")


def _published(pretrained: bool, *specs: str) -> list[bool]:
    """Return for each model whether it gets published weights; refuse it where none has any."""
    have = [pretrained and spec.startswith(("timm:", "torchvision:")) for spec in specs]
    if pretrained and not any(have):
        raise UsageError(
            f"--pretrained: is for timm and torchvision.\n  got {' and '.join(specs)}\n"
            f"  Load other weights with --weights FILE, or name a local folder: "
            f"transformers:./folder"
        )
    return have


def _only_for(what: str, **given: object) -> None:
    """Refuse options that mean nothing here, rather than ignore them."""
    names = [name for name, value in given.items() if value not in (None, False)]
    if names:
        raise UsageError(
            f"{', '.join(names)}: {'is' if len(names) == 1 else 'are'} for {what} only.\n"
            f"  Leave {'it' if len(names) == 1 else 'them'} out."
        )
