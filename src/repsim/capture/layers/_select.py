"""Choice of modules by names, globs, regular expressions, types and predicates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import nn

from repsim._errors import CaptureError, InputError, LayerNotFoundError, warn
from repsim._shown import did_you_mean
from repsim.capture.layers._blocks import BLOCKS, blocks_of
from repsim.capture.layers._walk import find, kind_of, named_layers, unwrap

__all__ = ["Layer", "LayerSpec", "Layers", "Selection", "select_layers"]

LayerSpec: TypeAlias = str | re.Pattern[str] | type[nn.Module] | Callable[[str, nn.Module], bool]
"""One way of naming layers."""

Layers: TypeAlias = LayerSpec | list[LayerSpec] | tuple[LayerSpec, ...]
"""Types of every argument ``layers``."""

INSTEAD: dict[type, str] = {
    nn.Module: "Pass the module's name, or its type.",
    torch.Tensor: "The data come before the layers.",
}
"""What to pass in the place of what names no layer."""


@dataclass(frozen=True)
class Layer:
    """A chosen module, and the calls that were requested.

    Attributes
    ----------
    name : str
        Its first name in the model, without wrappers.
    module : torch.nn.Module
        The module itself.
    calls : frozenset of int, or None
        Which of its calls in a forward to record; None for all of them.
    required : frozenset of (int or None)
        Requests by exact name: None stands for the module, k for its k-th call. These must run and
        be usable; others are left out if they are not.
    swept : bool
        Whether it was chosen only by globs that end in ``*``, together with everything below.
    """

    name: str
    module: nn.Module = field(repr=False)
    calls: frozenset[int] | None
    required: frozenset[int | None]
    swept: bool = False

    def wants(self, call: int) -> bool:
        """Whether this call is to be recorded."""
        return self.calls is None or call in self.calls

    def requires(self, call: int) -> bool:
        """Whether this call was requested by exact name."""
        return None in self.required or call in self.required

    def absent(self, n_calls: int) -> list[str]:
        """Return the required calls that did not run in a forward with n calls of the module."""
        return [
            self.name if call is None else f"{self.name}:{call}"
            for call in sorted(self.required, key=lambda call: -1 if call is None else call)
            if n_calls <= (call or 0)
        ]


@dataclass(frozen=True)
class Selection:
    """The modules chosen from a model, in registration order.

    Attributes
    ----------
    root : torch.nn.Module
        The model without its wrappers.
    layers : tuple of Layer
        The chosen layers; never empty.
    """

    root: nn.Module = field(repr=False)
    layers: tuple[Layer, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The first name of every chosen module."""
        return tuple(layer.name for layer in self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def select_layers(model: nn.Module, layers: Layers) -> Selection:
    r"""Choose modules of a model.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> select_layers(net, nn.Linear).names
    ('0', '2')
    >>> select_layers(net, ["2", "1*"]).names
    ('1', '2')
    >>> select_layers(net, "3")
    Traceback (most recent call last):
        ...
    repsim._errors.LayerNotFoundError: select_layers: no layer is called '3'.
      Sequential has 3 layers: '0', '1', '2'
      Pass "blocks", a name of model.named_modules(), a glob like "*", a type or a callable.

    Parameters
    ----------
    model : torch.nn.Module
        The model; wrappers (DataParallel, DDP, FSDP, ``torch.compile``, ``AveragedModel``,
        checkpointing) are looked through, and their names are not part of any layer's name.
    layers : str, re.Pattern, module type, callable, or a list or tuple of these
        - ``"blocks"``: the repeated blocks of the model, whatever their names are: ``blocks.0``,
          ``encoder.layer.3``, ``layer1.0``. The module that holds them is ``re.compile("blocks")``.
        - ``"blocks.3"``: the module of exactly this name. It has to exist, run, and return a batch.
        - ``"blocks.*"``: a glob, in which ``*`` crosses dots too: ``"*"`` is every submodule. The
          root itself is never chosen.
        - ``re.compile(r"blocks\.\d+")``: the whole name must match.
        - ``nn.Linear``: every instance.
        - ``lambda name, module: ...``: where it returns true.

        A name or a glob may end in ``:k``: only the k-th call (from 0) of a module that runs
        several times in one forward.

    Returns
    -------
    Selection
        The modules in registration order, each once. A module registered under several names has
        the first name. You can request its other names exactly, but globs and the like match only
        first names.

    Raises
    ------
    LayerNotFoundError
        An exact name does not exist, or nothing matches at all.
    CaptureError
        A chosen module is a ScriptModule, which takes no hooks.
    InputError
        `layers` is empty or of another type.

    Warns
    -----
    RepsimWarning
        A glob with ``?`` or ``[0-9]`` leaves out layers from 10 on, because each of these matches
        one digit.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"select_layers: model must be a torch.nn.Module, got {kind_of(model)}.")
    named = named_layers(model)
    specs = list(layers) if isinstance(layers, list | tuple) else [layers]
    if not specs:
        raise InputError('select_layers: layers is empty.\n  Pass "*" for every submodule.')

    calls: dict[str, set[int | None]] = {}
    required: dict[str, set[int | None]] = {}
    meant: set[str] = set()
    for spec in specs:
        names, call, exact = _match(model, named, spec)
        if exact or not isinstance(spec, str) or not spec.endswith("*"):
            meant.update(names)
        for name in names:
            calls.setdefault(name, set()).add(call)
            if exact:
                required.setdefault(name, set()).add(call)
    if not calls:
        raise _not_found(model, named, specs)

    chosen = tuple(
        Layer(
            name,
            module,
            _call_set(calls[name]),
            frozenset(required.get(name, ())),
            swept=name not in meant,
        )
        for name, module in named.items()
        if name in calls
    )
    _refuse_scripted(chosen)
    return Selection(unwrap(model), chosen)


def listing(names: Sequence[str], most: int = 8) -> str:
    """Join the first names, and count the others.

    Parameters
    ----------
    names : list of str
        The names to list.
    most : int, default 8
        How many to write out.

    Returns
    -------
    str
        The quoted names, separated by commas.
    """
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _match(
    model: nn.Module, named: dict[str, nn.Module], spec: LayerSpec
) -> tuple[list[str], int | None, bool]:
    """Find the names that a spec matches, its call number, and whether it is exact."""
    if isinstance(spec, str):
        if spec == BLOCKS and (blocks := blocks_of(named)):
            return blocks, None, False
        # Try the literal name first, because a module may be called "a:0" or "a*".
        stem, colon, index = spec.rpartition(":")
        with_call = bool(colon) and index.isdecimal()
        readings = [(spec, None), (stem, int(index))] if with_call else [(spec, None)]
        for name, call in readings:
            if (first := _first_name(model, named, name)) is not None:
                return [first], call, True
        pattern, call = readings[-1]
        if not any(character in pattern for character in "*?["):
            raise _not_found(model, named, [spec])
        names = [name for name in named if fnmatchcase(name, pattern)]
        _warn_of_longer_numbers(pattern, names, list(named))
        return names, call, False
    if isinstance(spec, re.Pattern):
        return [name for name in named if spec.fullmatch(name)], None, False
    if isinstance(spec, type) and issubclass(spec, nn.Module):
        return [name for name, module in named.items() if isinstance(module, spec)], None, False
    # A module and a type are callable too, but not as predicates.
    if callable(spec) and not isinstance(spec, type | nn.Module):
        return [name for name, module in named.items() if spec(name, module)], None, False
    raise InputError(
        "select_layers: layers must be a name, a glob, a re.Pattern, a module type, a callable "
        "(name, module) -> bool, or a list of these.\n"
        f"  got {type(spec).__name__}\n  "
        + next(
            (repair for kind, repair in INSTEAD.items() if isinstance(spec, kind)),
            'model.named_modules() lists the names. "blocks" takes the repeated blocks.',
        )
    )


def _warn_of_longer_numbers(pattern: str, names: Sequence[str], every: Sequence[str]) -> None:
    """Warn if ``?`` or ``[0-9]`` took all layers of one digit, and the run has more of them."""
    parts = re.split(r"(\?|\[[^]]*\])", pattern)
    if len(parts) == 1 or not names:
        return
    any_number = "".join(
        r"(\d+)" if at % 2 else re.escape(part).replace(r"\*", ".*")
        for at, part in enumerate(parts)
    )
    found = [(name, re.fullmatch(any_number, name)) for name in every if name not in names]
    missed = {name: numbers.groups() for name, numbers in found if numbers is not None}
    # If layers of one digit were left out too, the pattern means a part of the run.
    if missed and all(max(map(len, numbers)) > 1 for numbers in missed.values()):
        warn(
            f"select_layers: {pattern!r} leaves out {listing(list(missed), 4)}, because ? and "
            f"[...] match one character.\n  It takes {listing(names, 2)}\n"
            f'  Pass "blocks" for the repeated blocks of a model, or a regular expression: '
            f"re.compile(...)."
        )


def _first_name(model: nn.Module, named: dict[str, nn.Module], name: str) -> str | None:
    if name in named:
        return name
    if not name or (module := find(model, name)) is None:
        return None
    # An alias: the walk listed the same module earlier under another name.
    return next((first for first, other in named.items() if other is module), None)


def _call_set(calls: set[int | None]) -> frozenset[int] | None:
    return None if None in calls else frozenset(call for call in calls if call is not None)


def _not_found(
    model: nn.Module, named: dict[str, nn.Module], specs: list[LayerSpec]
) -> LayerNotFoundError:
    names = list(named)
    if len(specs) == 1 and isinstance(spec := specs[0], str):
        glob = any(character in spec for character in "*?[")
        problem = f"no layer matches {spec!r}" if glob else f"no layer is called {spec!r}"
        hint = did_you_mean(spec, names)
    else:
        shown = ", ".join(getattr(spec, "__name__", repr(spec)) for spec in specs)
        problem, hint = f"no layer matches {shown}", ""
    kind = type(unwrap(model)).__name__
    has = (
        f"{kind} has {len(names)} layers: {listing(names)}"
        if names
        else (
            f"{kind} has no layers: a layer is a module inside the model.\n"
            "  Pass nn.Sequential(model), in which the model is the layer '0'"
        )
    )
    return LayerNotFoundError(
        f"select_layers: {problem}.{hint}\n  {has}\n"
        '  Pass "blocks", a name of model.named_modules(), a glob like "*", a type or a callable.'
    )


def _refuse_scripted(chosen: tuple[Layer, ...]) -> None:
    scripted = [layer.name for layer in chosen if isinstance(layer.module, torch.jit.ScriptModule)]
    if scripted:
        raise CaptureError(
            f"select_layers: a scripted or traced module takes no hooks: {listing(scripted)}.\n"
            "  Record the model as it was before torch.jit.script or torch.jit.trace, or leave "
            "these out:\n"
            "  layers=lambda name, module: not isinstance(module, torch.jit.ScriptModule)"
        )
