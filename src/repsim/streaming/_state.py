"""The state of a `MinibatchCKA`: adding two states, and saving one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from repsim import kernels
from repsim._errors import StateError
from repsim._typing import Array
from repsim.arrays import array_namespace, same_home, to_numpy
from repsim.streaming._blocks import BlockSums

__all__ = ["FORMAT", "State", "kernel_from_state", "kernel_state"]

FORMAT = "repsim.MinibatchCKA/2"


@dataclass(frozen=True)
class _Kind:
    """How the values of a field add up, become plain values, and return from them."""

    plus: Callable[[Any, Any], Any]
    as_plain: Callable[[Any], Any]
    from_plain: Callable[[Any], Any]


def _optional(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else function(value)


def _elementwise(function: str) -> Callable[[Array | None, Array | None], Array | None]:
    """Apply a function of the namespace to two arrays, on the CPU if their devices differ."""

    def apply(a: Array | None, b: Array | None) -> Array | None:
        if a is None or b is None:
            return b if a is None else a
        if not same_home(a, b):
            a, b = to_numpy(a), to_numpy(b)
        out: Array = getattr(array_namespace(a), function)(a, b)
        return out

    return apply


def _by_side(function: str) -> Callable[[Any, Any], dict[str, Array | None]]:
    """Apply a function of the namespace to the arrays of each side."""
    apply = _elementwise(function)
    return lambda mine, other: {
        side: apply(mine.get(side), other.get(side)) for side in {**mine, **other}
    }


def _copied(x: Array) -> np.ndarray[Any, Any]:
    return np.array(to_numpy(x))


def _all_copied(xs: Mapping[str, Array]) -> dict[str, np.ndarray[Any, Any]]:
    return {side: _copied(x) for side, x in xs.items()}


_COUNT = {"kind": _Kind(operator.add, int, int)}
_LAYERS = {"kind": _Kind(lambda mine, other: mine or other, _optional(list), _optional(tuple))}
_BLOCKS = {"kind": _Kind(BlockSums.plus, BlockSums.as_plain, BlockSums.from_plain)}
# √(a² + b²): variances of independent sums add up.
_DEVIATION = {"kind": _Kind(_elementwise("hypot"), _optional(_copied), _optional(_copied))}
_FIRST = {"kind": _Kind(_by_side("minimum"), _all_copied, _all_copied)}
_SQUARES = {"kind": _Kind(_by_side("add"), _all_copied, _all_copied)}


@dataclass(frozen=True)
class State:
    """Everything that batches left behind. A new quantity is one more field here.

    Attributes
    ----------
    layers_x, layers_y : tuple of str
        The names in the order of the first batch; no ``layers_y`` where x is compared with itself.
    n_samples, n_batches, n_skipped_batches, n_skipped_samples : int
        As in :class:`repsim.MinibatchCKA`.
    blocks : BlockSums
        The inner products of U-centred Grams.
    null_sd : array, shape (Lx, Ly), optional
        Standard deviation of Σ_b ⟨A_b, B_b⟩ where y's samples are permuted in every batch.
    rounding : mapping of {"x", "y"} to array, shape (L,)
        The squares of the rounding of all Grams, as of :func:`repsim.estimators.rounding_of`.
    first_bad : mapping of {"x", "y"} to array, shape (L,)
        The first batch in which a layer was not finite, infinity for none. It is counted on the
        device: to read it would wait for the accelerator.
    """

    layers_x: tuple[str, ...] = field(default=(), metadata=_LAYERS)
    layers_y: tuple[str, ...] | None = field(default=None, metadata=_LAYERS)
    n_samples: int = field(default=0, metadata=_COUNT)
    n_batches: int = field(default=0, metadata=_COUNT)
    n_skipped_batches: int = field(default=0, metadata=_COUNT)
    n_skipped_samples: int = field(default=0, metadata=_COUNT)
    blocks: BlockSums = field(default=BlockSums(), metadata=_BLOCKS)
    null_sd: Array | None = field(default=None, metadata=_DEVIATION)
    rounding: Mapping[str, Array] = field(default_factory=dict, metadata=_SQUARES)
    first_bad: Mapping[str, Array] = field(default_factory=dict, metadata=_FIRST)

    @property
    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
        """The names of both sides."""
        return self.layers_x, self.layers_y

    @property
    def n_seen(self) -> int:
        """The number of the next batch as the caller counts, short ones included."""
        return self.n_batches + self.n_skipped_batches

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of samples and batches, by name."""
        count = _COUNT["kind"]
        return {name: getattr(self, name) for name, kind in _KINDS.items() if kind is count}

    def plus(self, later: State) -> State:
        """Return what this one and then a later one have seen; of the same layers, or none."""
        numbered = replace(
            later,
            first_bad={side: first + float(self.n_seen) for side, first in later.first_bad.items()},
        )
        return State(
            **{
                name: kind.plus(getattr(self, name), getattr(numbered, name))
                for name, kind in _KINDS.items()
            }
        )

    def as_plain(self) -> dict[str, Any]:
        """Return NumPy arrays, numbers, strings and lists by the name of their field."""
        return {name: kind.as_plain(getattr(self, name)) for name, kind in _KINDS.items()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> State:
        """Return the state that :meth:`as_plain` described."""
        return cls(**{name: kind.from_plain(values[name]) for name, kind in _KINDS.items()})


_KINDS: dict[str, _Kind] = {f.name: f.metadata["kind"] for f in fields(State)}


def kernel_state(kernel: kernels.Kernel) -> dict[str, Any]:
    """Describe a kernel by its class name and its parameters."""
    parameters: dict[str, Any] = asdict(kernel) if is_dataclass(kernel) else {}
    if parameters.get("sigma") is not None:
        parameters["sigma"] = float(to_numpy(parameters["sigma"]))
    if parameters.get("precision") == "highest":  # as in older states, without precision
        del parameters["precision"]
    return {"name": type(kernel).__name__, "parameters": parameters}


def kernel_from_state(state: Mapping[str, Any]) -> kernels.Kernel:
    """Rebuild one of the kernels of the library."""
    known = {type(make()).__name__: type(make()) for make in kernels.KERNELS.values()}
    if state["name"] not in known:
        raise StateError(
            f"MinibatchCKA.from_state_dict: the kernel {state['name']!r} is not one of "
            f"repsim.kernels.\n  Pass it again: from_state_dict(state, kernel=...)."
        )
    kernel: kernels.Kernel = known[state["name"]](**state["parameters"])
    return kernel
