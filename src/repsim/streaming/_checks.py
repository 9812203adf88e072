"""Checks of named activations and of accumulators, for the accumulators over batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from repsim._errors import ArrayTypeError, InputError, NonFiniteError, StateError
from repsim._options import got
from repsim._typing import Array
from repsim.arrays import (
    accumulator_dtype,
    array_namespace,
    detached,
    namespace,
    require_square,
    to_numpy,
    unpromoted_samples,
)

__all__ = [
    "Sides",
    "Widths",
    "batch_size",
    "in_double",
    "in_float64",
    "in_reach_of_float64",
    "named_grams",
    "named_samples",
    "not_finite",
    "require_alike",
    "require_features_of_first",
    "require_fourth_powers",
    "require_layers",
    "require_same_columns",
    "require_state",
    "require_sums",
    "summary",
]


def named_samples(operation: str, side: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return activations by layer as (n, p) in their own dtype, or raise an error."""
    _require_one_home(operation, side, arrays)
    return {
        name: unpromoted_samples(operation, x, f"{side}[{name!r}]") for name, x in arrays.items()
    }


def named_grams(operation: str, side: str, arrays: Mapping[str, Array]) -> None:
    """Raise if Grams are not square arrays of one framework and device."""
    _require_one_home(operation, side, arrays)
    for name, k in arrays.items():
        require_square(operation, k, f"{side}[{name!r}]")


def _require_one_home(operation: str, side: str, arrays: Mapping[str, Array]) -> None:
    if not isinstance(arrays, Mapping):
        raise InputError(
            f"{operation}: {side} must map layer names to arrays.\n"
            f"  got {type(arrays).__name__}\n"
            f"  For two arrays use repsim.cka(x, y), or name them: {{'x': x}}, {{'y': y}}."
        )
    first: tuple[str, Array] | None = None
    checked = set()
    for name, x in arrays.items():
        # The check depends only on these, so only one or two of hundreds of layers are checked.
        home = (type(x), *(str(getattr(x, what, "")) for what in ("device", "layout", "is_nested")))
        if home in checked:
            continue
        label = f"{side}[{name!r}]"
        if first is None:
            first = (label, x)
        namespace(operation, **{first[0]: first[1], label: x})
        checked.add(home)


def batch_size(operation: str, xs: Mapping[str, Array], ys: Mapping[str, Array] | None) -> int:
    """Return the common number of samples of all layers of both sides."""
    if not xs or (ys is not None and not ys):
        raise InputError(
            f"{operation}: there are no layers in {'xs' if not xs else 'ys'}.\n"
            f"  Pass at least one named array."
        )
    named = [("xs", *item) for item in xs.items()] + [("ys", *item) for item in (ys or {}).items()]
    side, name, first = named[0]
    if ys is not None:
        namespace(operation, xs=first, ys=next(iter(ys.values())))
    for other_side, other, x in named:
        if x.shape[0] != first.shape[0]:
            raise InputError(
                f"{operation}: all layers must describe the same samples.\n"
                f"  {side}[{name!r}]: {tuple(first.shape)} → n={first.shape[0]}    "
                f"{other_side}[{other!r}]: {tuple(x.shape)} → n={x.shape[0]}\n"
                f"  Is axis 0 the sample axis in both?"
            )
    return first.shape[0]


def require_layers(
    operation: str,
    known: tuple[Sequence[str], Sequence[str] | None],
    xs: Mapping[str, Array],
    ys: Mapping[str, Array] | None,
) -> None:
    """Raise if a batch has other layers than the first one."""
    if (ys is None) != (known[1] is None):
        raise InputError(
            f"{operation}: ys was {'left out' if ys is None else 'given'}, unlike in the first "
            f"batch.\n  Compare one model with itself or two models, in one accumulator."
        )
    for side, layers, arrays in (("xs", known[0], xs), ("ys", known[1] or (), ys or {})):
        if arrays.keys() == set(layers):
            continue
        missing = [name for name in layers if name not in arrays]
        extra = [name for name in arrays if name not in layers]
        raise InputError(
            f"{operation}: {side} must have the layers of the first batch.\n"
            f"  missing: {missing[:8]}    new: {extra[:8]}\n"
            f"  A layer that runs in some batches only cannot be compared over all: leave it out."
        )


def in_double(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays in float64, on the CPU if their device has no float64, without derivatives."""
    return {name: detached(in_float64(in_reach_of_float64(x))) for name, x in arrays.items()}


def in_reach_of_float64(x: Array) -> Array:
    """Copy to the CPU if the device has no float64 (jax by default, Apple's GPUs)."""
    xp = array_namespace(x)
    return x if accumulator_dtype(xp, x) == xp.float64 else to_numpy(x)


def in_float64(x: Array) -> Array:
    """Return an array in float64, without a copy if it is."""
    out: Array = array_namespace(x).astype(x, array_namespace(x).float64, copy=False)
    return out


Widths: TypeAlias = tuple[Mapping[str, int], Mapping[str, int] | None]
"""The layers of both sides and their features."""


def require_features_of_first(operation: str, first: Widths, now: Widths) -> None:
    """Raise if a batch has other layers, or other features, than the first one."""
    if now != first:
        raise InputError(
            f"{operation}: every batch must have the layers and features of the first.\n"
            f"  first: {_described(*first)}\n"
            f"  now: {_described(*now)}\n"
            f"  A layer that runs in some batches only cannot be compared over all: leave it out."
        )


def require_same_columns(operation: str, this: Widths, other: Widths) -> None:
    """Raise if two accumulators differ in layers, their order, or their features."""
    mine, theirs = ([list((side or {}).items()) for side in sides] for sides in (this, other))
    if mine != theirs:
        raise StateError(
            f"{operation}: both must have the same layers and features.\n"
            f"  this: {_described(*this)}\n"
            f"  other: {_described(*other)}\n"
            f"  Accumulate the same layers in both, in one order."
        )


def _described(x: Mapping[str, int], y: Mapping[str, int] | None) -> str:
    """Return the first layers of both sides, with their features, for a message."""
    return " × ".join(str(dict(list(side.items())[:4])) for side in (x, y) if side is not None)


LARGEST = 2.0**200
"""The largest entry whose products of four factors can be summed in float64."""


LARGEST_TERM = 2.0**1000
"""The largest entry that can be summed in float64."""


Sides: TypeAlias = Mapping[str, Mapping[str, Array] | None]
"""The arrays of a batch: by the name of the argument, then by layer; of one dtype and device."""


def require_fourth_powers(operation: str, sides: Sides, batch: int) -> None:
    """Raise if sums of products of four entries of an array may not be finite."""
    _require_within(operation, sides, batch, LARGEST, "the sums of products of four of them")


def require_sums(operation: str, sides: Sides, batch: int) -> None:
    """Raise if sums of entries of an array may not be finite."""
    _require_within(operation, sides, batch, LARGEST_TERM, "their sums")


def _require_within(operation: str, sides: Sides, batch: int, largest: float, what: str) -> None:
    """Raise if an entry exceeds a size; wait for a device once for all layers."""
    arrays = {
        f"{side}[{name!r}]": x
        for side, layers in sides.items()
        for name, x in (layers or {}).items()
    }
    xp = array_namespace(*arrays.values())
    limits = to_numpy(xp.stack([f(x) for x in arrays.values() for f in (xp.min, xp.max)]))
    for label, (low, high) in zip(arrays, limits.reshape(-1, 2), strict=True):
        if not (low >= -largest and high <= largest):  # NaN is neither
            raise NonFiniteError(
                f"{operation}: activations must be finite, and so must {what}.\n"
                f"  {label}, batch {batch} (counted from 0): entries from {low:.3g} to "
                f"{high:.3g}\n"
                f"  Half precision overflows at 65504. The batches before are kept."
            )


def not_finite(operation: str, side: str, names: Sequence[str], batch: int) -> NonFiniteError:
    """Return the error that names the layers with NaN or infinity in a batch."""
    listed = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
    return NonFiniteError(
        f"{operation}: activations must be finite, and so must their Gram.\n"
        f"  {side}, batch {batch} (counted from 0), {len(names)} layer(s): {listed}\n"
        f"  Look at the first of them: half precision overflows at 65504, and features above "
        f"1e17 overflow a float32 Gram; a row of zeros has no cosine. The batches before are kept."
    )


def summary(held: Any) -> str:
    """Return what an accumulator holds: <MinibatchCKA of 2 × 3 layers: 64 samples in 4 batches>."""
    name = type(held).__name__
    if not held.layers_x:
        return f"<{name}: empty>"
    sides = len(held.layers_x), len(held.layers_x if held.layers_y is None else held.layers_y)
    batches = f"{held.n_batches:,} batch{'es' * (held.n_batches != 1)}"
    return f"<{name} of {sides[0]} × {sides[1]} layers: {held.n_samples:,} samples in {batches}>"


def require_alike(accumulator: object, other: object) -> None:
    """Raise if the accumulator to merge is of another class, or the same one."""
    name = type(accumulator).__name__
    if type(other) is not type(accumulator):
        raise ArrayTypeError(f"{name}.merge: other must be a {name}.\n  got {got(other)}")
    if other is accumulator:
        raise StateError(
            f"{name}.merge: other must hold other samples.\n"
            f"  got this accumulator itself, whose samples would count twice\n"
            f"  Merge each accumulator once."
        )


def require_state(accumulator: str, state: Any, layout: str, keys: set[str]) -> None:
    """Raise if this is not the complete state of an accumulator in this layout."""
    if not isinstance(state, Mapping) or state.get("format") != layout:
        got = state.get("format") if isinstance(state, Mapping) else type(state).__name__
        raise StateError(
            f"{accumulator}.from_state_dict: not a state of this accumulator.\n"
            f"  expected format {layout!r}, got {got!r}"
        )
    if missing := sorted(keys - state.keys()):
        raise StateError(
            f"{accumulator}.from_state_dict: the state is incomplete.\n  missing: {missing}\n"
            f"  Was it cut off while it was saved? Go back to an earlier one."
        )
