"""The work of ``repsim compare``: a map of layers, resumable after an interrupt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repsim.cli._literals import read_kernel, read_measure
from repsim.cli._needs import need
from repsim.cli._outcome import Interrupted, UsageError
from repsim.cli._run_folder import RunFolder
from repsim.cli._session import Session
from repsim.cli._tables import dataset_json, show_result
from repsim.cli.data._inputs import Inputs
from repsim.cli.models._load import LoadedModel, ModelRequest, chosen_layers, load_model
from repsim.cli.tasks._provenance import model_provenance, with_provenance
from repsim.kernels import Kernel

__all__ = ["MapRequest", "compare_models"]

NAME = "compare"


@dataclass(frozen=True)
class MapRequest:
    """The requested map."""

    layers: tuple[str, ...]
    layers_y: tuple[str, ...] | None
    measure: str
    options: tuple[str, ...]
    permutations: int
    kernel: str | None
    passes: int
    transform: str
    transform_y: str | None
    z_scores: bool

    def arguments(self) -> dict[str, Any]:
        """Return all options in JSON types."""
        return {
            "layers": list(self.layers),
            "layers_y": None if self.layers_y is None else list(self.layers_y),
            "measure": self.measure,
            "options": list(self.options),
            "permutations": self.permutations,
            "kernel": repr(self.read_kernel()),
            "passes": self.passes,
            "transform": self.transform,
            "transform_y": self.transform_y,
            "z_scores": self.z_scores,
        }

    def read_kernel(self) -> Kernel | None:
        """Return the kernel; None if none is given."""
        return None if self.kernel is None else read_kernel(self.kernel)

    def read_measure(self) -> tuple[str, dict[str, Any]]:
        """Return the name of the measure and its options, without the kernel."""
        measure, given = read_measure(self.measure, self.options, kernel=self.read_kernel())
        return measure.name, {name: value for name, value in given.items() if name != "kernel"}

    def transforms(self) -> dict[str, Any]:
        """Return the transform of each side that has one of its own, as `repsim.compare` takes."""
        given = {"transform": self.transform, "transform_y": self.transform_y}
        whole = {name: None if each == "flatten" else each for name, each in given.items()}
        return whole if self.transform_y is not None else {"transform": whole["transform"]}

    def check(self) -> None:
        """Raise a UsageError before anything is loaded if measure and options do not fit."""
        _, given = self.read_measure()
        streams = self.measure == "cka"
        others = [each for each in given.items() if each != ("estimator", "unbiased")]
        if streams and others:
            name, value = others[0]
            raise UsageError(
                f"--option: CKA of a stream of batches is unbiased and has no {name}.\n"
                f"  got {name}={value!r}\n"
                f"  Store the layers by repsim.extract, and name the stores to repsim measure."
            )
        wrong = {
            "--permutations": streams and self.permutations > 0,
            "--passes": not streams and self.passes > 1,
            "--z-scores": not streams and self.z_scores,
        }
        for option, is_wrong in wrong.items():
            if is_wrong:
                repair = "--z-scores" if streams else "--permutations"
                raise UsageError(
                    f"{option}: not with --measure {self.measure}.\n"
                    f"  Leave it out; for chance use {repair}."
                )


def compare_models(
    session: Session,
    x: ModelRequest,
    y: ModelRequest | None,
    inputs: Inputs,
    options: MapRequest,
    *,
    out: Path | None,
    progress: bool,
) -> None:
    """Compare all layers of two models, or of one model with itself."""
    for request in (x, y):
        if request is not None:
            request.check()
    folder = None
    if out is not None:
        arguments = {
            "model_x": x.arguments(),
            "model_y": None if y is None else y.arguments(),
            **inputs.arguments(),
            **options.arguments(),
        }
        folder = RunFolder(session, out, "compare", arguments, data=inputs.data)
    if folder is not None and folder.has(NAME):
        session.note(f"note: {folder.path} is finished; nothing is computed again.")
        result = folder.load(NAME)
    else:
        result = _computed(session, x, y, inputs, options, folder, progress)
    page = None
    if folder is not None:
        folder.discard_state()
        page = folder.write_page()
    if session.as_json:
        files = None if page is None else {"folder": str(out), "report": str(page)}
        session.emit({"command": "compare", "files": files, **dataset_json(result)})
        return
    show_result(session, result)
    if page is not None:
        session.line(f"saved in {out}; the page is {page}")


def _computed(
    session: Session,
    x: ModelRequest,
    y: ModelRequest | None,
    inputs: Inputs,
    options: MapRequest,
    folder: RunFolder | None,
    progress: bool,
) -> Any:
    need("torch", "comparing models")
    from repsim.analysis import compare

    model_x = load_model(session, x)
    model_y = None if y is None else load_model(session, y)
    chosen_layers(model_x, options.layers, "--layers")
    layers_y = options.layers if options.layers_y is None else options.layers_y
    if options.layers_y is not None:
        chosen_layers(model_y or model_x, layers_y, "--layers-y")
    elif model_y is not None:
        more = "\n  These are the layers of the second model: choose them with --layers-y."
        chosen_layers(model_y, layers_y, "--layers", more)
    models = [model_x] if model_y is None else [model_x, model_y]
    data = inputs.batches(models)
    if folder is not None:
        sides = ("model_x", "model_y")
        folder.begin({side: model.digest() for side, model in zip(sides, models, strict=False)})
    measure, given = options.read_measure()
    state = None
    if folder is not None:
        state = folder.state if measure == "cka" else folder.features
    result = compare(
        model_x.module,
        None if model_y is None else model_y.module,
        data,
        layers=options.layers,
        layers_y=options.layers_y,
        measure=measure,
        kernel=options.read_kernel(),
        permutations=options.permutations,
        passes=options.passes,
        **options.transforms(),
        z_scores=options.z_scores,
        prepare_x=data.sides[0],
        prepare_y=data.sides[-1],
        names=_names(models, x, y),
        progress=progress,
        checkpoint=state,
        **given,
    )
    inputs.bad.tell(session)
    if "interrupted" in result.attrs:
        raise Interrupted(str(result.attrs["interrupted"]))
    described = [model_provenance(x, model_x, "_x")]
    if y is not None and model_y is not None:
        described.append(model_provenance(y, model_y, "_y"))
    result = with_provenance(session, result, inputs, *described)
    if folder is not None:
        folder.save(NAME, result)
    return result


def _names(models: list[LoadedModel], x: ModelRequest, y: ModelRequest | None) -> tuple[str, str]:
    """Return two names, which differ if the models do."""
    if y is None:
        return models[0].name, models[0].name
    a, b = models[0].name, models[1].name
    if a != b:
        return a, b
    source = (x.spec, y.spec)
    if source[0] != source[1]:
        return source
    if models[0].weights == models[1].weights:
        return f"{a} (seed {x.seed})", f"{b} (seed {y.seed})"
    return f"{a}, {models[0].weights}", f"{b}, {models[1].weights}"
