"""The features of several models on paired samples, from arrays, from stores, or recorded now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any

from torch import nn

from repsim._errors import InputError, LayerNotFoundError
from repsim._options import got, require_callable
from repsim._shown import did_you_mean
from repsim.analysis._arguments import shuffles
from repsim.analysis._extract_rows import Seen
from repsim.analysis.features._keepers import SEQUENCE, InMemory
from repsim.analysis.features._record import Outputs, record
from repsim.analysis.features._side import FeatureSide
from repsim.analysis.maps._side import SideOptions
from repsim.analysis.run._drive import Batch, Forward, Prepare, warn_of_ranks
from repsim.analysis.run._sample_finder import BatchSize
from repsim.analysis.run.ranks import SampleIds, check_sample_ids
from repsim.arrays import check_same_samples, labelled_types, row_dtype
from repsim.capture import Layers, MaskOption, Select, Transform
from repsim.storage import open_activations

__all__ = ["POSITION", "ModelFeatures", "ModelOptions", "features_of"]

POSITION = "position"
"""The coordinate of a row with the place of its token in the input."""


@dataclass(frozen=True)
class ModelOptions:
    """How one model is run and what is kept of its outputs, as in :func:`repsim.extract`."""

    layers: Layers = "*"
    transform: Transform = None
    mask: MaskOption = "auto"
    select: Select | None = None
    batch_dim: int | Mapping[str, int] | None = None
    batch_size: BatchSize = None
    prepare: Prepare | None = None
    forward: Forward | None = None
    sample_ids: SampleIds | None = None


@dataclass(frozen=True)
class ModelFeatures:
    """The features of one model.

    Attributes
    ----------
    layers : dict of str to array-like
        By layer, (n, ...).
    ids : list, optional
        The ids of the samples, if they have any.
    labels : dict of str to array
        Every coordinate of the samples, by its name.
    """

    layers: dict[str, Any]
    ids: list[Any] | None
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def sequences(self) -> Any:
        """The input of each sample, if samples are tokens; otherwise None."""
        return self.labels.get(SEQUENCE) if POSITION in self.labels else None

    @property
    def n(self) -> int:
        """The number of samples."""
        return int(next(iter(self.layers.values())).shape[0])


@dataclass(frozen=True)
class _ToRun:
    """A model that is to be run, with its data."""

    model: nn.Module
    data: Iterable[Any]
    options: ModelOptions


def features_of(
    operation: str,
    models: Mapping[str, Any],
    data: Iterable[Any] | None,
    defaults: Mapping[str, Any],
    *,
    memory: int,
    progress: bool,
) -> dict[str, ModelFeatures]:
    """Return the features of each model; those that share their data run in one pass.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    models : mapping of str to object
        As the caller of :func:`repsim.alignment` wrote them.
    data : iterable, optional
        The data of models that come without their own.
    defaults : mapping
        Options of all models, each a value or a mapping from names of models to values.
    memory : int
        The most bytes of features that are kept in memory.
    progress : bool
        Whether to show progress bars.
    """
    found: dict[str, ModelFeatures | _ToRun] = {
        name: _given(operation, name, each, data, _for_model(operation, name, models, defaults))
        for name, each in models.items()
    }
    to_run = {name: each for name, each in found.items() if isinstance(each, _ToRun)}
    _check_order(operation, to_run)
    done = {name: each for name, each in found.items() if isinstance(each, ModelFeatures)}
    together: dict[int, dict[str, _ToRun]] = {}
    for name, each in to_run.items():
        together.setdefault(id(each.data), {})[name] = each
    for group in together.values():
        recorded = _recorded(operation, group, memory, progress)
        memory -= sum(x.nbytes for each in recorded.values() for x in each.layers.values())
        done |= recorded
    return {name: done[name] for name in models}


def _for_model(
    operation: str, name: str, models: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of one model from those that are given for all or by name."""
    own = {}
    for option, value in defaults.items():
        if isinstance(value, Mapping):
            if unknown := [key for key in value if key not in models]:
                raise InputError(
                    f"{operation}: {option} names models that are not there.\n"
                    f"  got {', '.join(map(repr, unknown[:8]))}\n"
                    f"  models: {', '.join(map(repr, models))}"
                )
            if name in value:
                own[option] = value[name]
        elif value is not None:
            own[option] = value
    return own


def _given(
    operation: str, name: str, each: Any, data: Any, own: dict[str, Any]
) -> ModelFeatures | _ToRun:
    """Return the features of one entry, or what has to run for them."""
    if isinstance(each, str | PathLike):
        transform = own.pop("transform", None)
        each = open_activations(each, transform=transform)
    if isinstance(each, Mapping):
        if "transform" in own:
            raise InputError(
                f"{operation}: transform is for models, and models[{name!r}] has features "
                f"already.\n  got transform={got(own['transform'])}\n"
                f"  Name the models that it is for: transform={{name: ...}}."
            )
        return _stored(operation, name, each, own.get("layers", "*"))
    if isinstance(each, nn.Module):
        each = (each, data)
    pair = isinstance(each, tuple) and len(each) in (2, 3) and isinstance(each[0], nn.Module)
    if not pair or (len(each) == 3 and not isinstance(each[2], Mapping)):
        raise InputError(
            f"{operation}: models must map names to stores, to mappings of arrays, or to models "
            f"with data.\n  models[{name!r}]: {got(each) if not pair else got(each[2])}\n"
            f"  Pass (model, data), (model, data, {{'layers': 'blocks.*'}}), a result or path of "
            f"repsim.extract,\n  or {{'layer 1': x1, 'layer 2': x2}}."
        )
    if each[1] is None:
        raise InputError(
            f"{operation}: models[{name!r}] has no data.\n"
            f"  Pass (model, data), or data= for all models."
        )
    return _ToRun(each[0], each[1], _options(operation, name, {**own, **dict(*each[2:])}))


def _options(operation: str, name: str, given: Mapping[str, Any]) -> ModelOptions:
    known = [field.name for field in fields(ModelOptions)]
    if unknown := sorted(set(given) - set(known)):
        raise InputError(
            f"{operation}: unknown options of models[{name!r}].\n"
            f"  expected some of {', '.join(known)}\n  got {', '.join(unknown)}"
            f"{did_you_mean(unknown[0], known)}"
        )
    options = ModelOptions(**given)
    require_callable(operation, prepare=options.prepare, forward=options.forward)
    check_sample_ids(operation, options.sample_ids)
    return options


def _stored(operation: str, name: str, arrays: Mapping[str, Any], layers: Any) -> ModelFeatures:
    """Return the chosen arrays of a store or a mapping, which are not read here."""
    if not arrays:
        raise InputError(
            f"{operation}: models[{name!r}] is empty.\n  Pass at least one named array."
        )
    if strange := [key for key in arrays if not isinstance(key, str)]:
        raise InputError(
            f"{operation}: the names of layers must be strings.\n"
            f"  models[{name!r}]: got {got(strange[0])}"
        )
    wanted = [layers] if isinstance(layers, str) else layers
    listed = isinstance(wanted, Sequence) and len(wanted)
    if not listed or not all(isinstance(each, str) for each in wanted):
        raise InputError(
            f"{operation}: layers of stored features must be names or globs.\n"
            f"  models[{name!r}]: got {got(layers)}"
        )
    names = [str(each) for each in (getattr(arrays, "data_vars", None) or arrays)]
    for each in wanted:
        if not any(each == layer or fnmatchcase(layer, each) for layer in names):
            raise LayerNotFoundError(
                f"{operation}: models[{name!r}] has no layer {each!r}.\n"
                f"  layers: {', '.join(map(repr, names[:12]))}{', ...' if len(names) > 12 else ''}"
            )
    chosen = [layer for layer in names if any(layer == w or fnmatchcase(layer, w) for w in wanted)]
    found = {layer: arrays[layer] for layer in chosen}
    for layer, x in found.items():
        row_dtype(operation, x, f"layer {layer!r} of {name!r}")
    sizes = {layer: x.shape[:1] for layer, x in found.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"{operation}: all layers of models[{name!r}] must describe the same samples.\n"
            f"  samples by layer: {dict(list(sizes.items())[:8])}"
        )
    ids, labels = _labels(operation, name, found)
    return ModelFeatures(
        {layer: getattr(x, "variable", x) for layer, x in found.items()}, ids, labels
    )


def _labels(
    operation: str, name: str, layers: Mapping[str, Any]
) -> tuple[list[Any] | None, dict[str, Any]]:
    """Return the ids of the samples, if there are any, and every coordinate of the samples."""
    check_same_samples(operation, {f"models[{name!r}][{k!r}]": x for k, x in layers.items()})
    ids, labels = None, {}
    for x in layers.values():
        if isinstance(x, labelled_types()):
            for label, coordinate in getattr(x, "coords", {}).items():
                if coordinate.dims == x.dims[:1]:
                    labels[str(label)] = coordinate.values
                    ids = coordinate.values.tolist() if label == x.dims[0] else ids
    return ids, labels


def _check_order(operation: str, to_run: Mapping[str, _ToRun]) -> None:
    """Raise if models run on loaders that shuffle, each in an order of its own."""
    if len({id(each.data) for each in to_run.values()}) < 2:
        return
    for name, each in to_run.items():
        if shuffles(each.data) and each.options.sample_ids is None:
            raise InputError(
                f"{operation}: samples must be paired, and the loader of models[{name!r}] "
                f"shuffles them.\n"
                f"  Pass shuffle=False, one loader for all models, or sample_ids=."
            )


def _recorded(
    operation: str, group: Mapping[str, _ToRun], memory: int, progress: bool
) -> dict[str, ModelFeatures]:
    """Run models that share their data, in one pass."""
    ids = {each.options.sample_ids for each in group.values()}
    if len(ids) > 1:
        raise InputError(
            f"{operation}: models that share their data must share sample_ids.\n"
            f"  models: {', '.join(map(repr, group))}"
        )
    sides = {name: _side(operation, each) for name, each in group.items()}
    # Numbers, because names may contain a slash.
    keys = {name: str(number) for number, name in enumerate(sides)}
    seen = Seen(operation, ids.pop())
    data = next(iter(group.values())).data
    keeper = InMemory(
        operation, seen, None, memory, data, "repsim.extract, and pass what it returns"
    )

    def run(batch: Batch) -> Outputs:
        return {keys[name]: (side.run_recorded(batch), side.rows) for name, side in sides.items()}

    models = [each.model for each in group.values()]
    with ExitStack() as active:
        for side in sides.values():
            active.enter_context(side)
        warn_of_ranks(operation, "Run it on one rank, with all of the data.")
        record(operation, data, models, active, run, keeper, seen, progress=progress)
    for side in sides.values():
        side.check_used()
    kept = keeper.end({})
    return {
        name: ModelFeatures(
            {
                layer.removeprefix(f"{key}/"): x
                for layer, x in kept.layers.items()
                if layer.startswith(f"{key}/")
            },
            kept.ids,
        )
        for name, key in keys.items()
    }


def _side(operation: str, each: _ToRun) -> FeatureSide:
    options = each.options
    return FeatureSide(
        operation,
        each.model,
        options.layers,
        SideOptions(options.transform, options.mask, options.select, options.batch_dim),
        prepare=options.prepare,
        forward=options.forward,
        batch_size=options.batch_size,
    )
