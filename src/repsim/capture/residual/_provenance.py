"""The origin of tensors, as far as needed to recognise residual connections."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from repsim.capture._containers import tensors_in
from repsim.capture.residual._arguments import (
    attribute_of,
    placed,
    summands,
    tensors_among,
    trains,
)
from repsim.capture.residual._join import Join, Part
from repsim.capture.residual._ops import (
    ADDS,
    CHANNELS_FIRST,
    CHANNELS_LAST,
    DIFFERENCES,
    DROPOUTS,
    INPLACE_ADDS,
    INPLACE_OPERATORS,
    JOINS,
    MATRIX_PRODUCTS,
    MAXIMA,
    NONLINEAR,
    READS,
    SAME,
    SCALES,
    VIEWS,
    WEIGHTS,
)
from repsim.capture.residual._out_of_sight import OutOfSight
from repsim.capture.residual._rule import (
    CONSTANT,
    Value,
    are_parallel,
    axis_after,
    looks_residual,
    relation,
    union,
)
from repsim.capture.tokens._rules import Size

__all__ = ["OnJoin", "Provenance"]


OnJoin: TypeAlias = Callable[[Join], Tensor | None]
"""Called before each residual addition: None lets it happen, a tensor replaces its result."""

OnSuspect: TypeAlias = Callable[[tuple[str, ...], str], None]
"""Called with the running modules and a description."""


class _Ref(weakref.ref[Tensor]):
    __slots__ = ("key",)
    key: int


class Provenance(TorchFunctionMode):
    """Follows values through torch functions while it is the active mode.

    On an addition of equal shapes, :func:`repsim.capture.residual._rule.relation` says whether the
    summands are a skip and its branch.

    Parameters
    ----------
    on_join : callable
        Called with a :class:`Join` at every residual addition.
    on_suspect : callable, optional
        Called with the running modules and a description if something other than an addition joins
        a skip and its branch, or if a module computed invisibly.
    """

    def __init__(self, on_join: OnJoin, on_suspect: OnSuspect | None = None) -> None:
        super().__init__()
        self.stack: list[str] = []  # names of the running modules, maintained by the hooks
        self._on_join = on_join
        self._on_suspect = on_suspect or (lambda inside, what: None)
        # Weak references by identity, because following a tensor must not keep it alive or modify
        # it.
        self._values: dict[int, tuple[_Ref, Value]] = {}
        self.out_of_sight = OutOfSight()
        self.reset()

    def reset(self) -> None:
        """Forget everything before another forward."""
        self._values.clear()
        self.out_of_sight.forget()
        self._n_bits = 0
        self._n_marks = 0
        self._weights = 0  # which marks are weight matrices
        self._made_in: dict[int, tuple[str, ...]] = {}
        self._maps: list[Size] = []

    # -- what the hooks call ---------------------------------------------------------------------

    def begin(self, inputs: object) -> None:
        """Treat every tensor among `inputs` that is not followed yet as an input."""
        for tensor in tensors_in(inputs):
            if not isinstance(tensor, nn.Parameter) and not self._value(tensor).bit:
                bit = self._bit()
                self._set(tensor, Value(bit, bit))

    def returned(self, module: nn.Module, inputs: object, output: object) -> None:
        """Connect the output of a module that computed invisibly (custom kernel, scripted code)."""
        unseen = [t for t in tensors_in(output) if self._find(t) is None]
        if not unseen:
            return
        own = {id(t) for t in (*module.parameters(), *module.buffers())}
        unseen = [t for t in unseen if id(t) not in own]
        given = [t for t in tensors_in(inputs) if self._value(t).bit]
        if not given or not unseen:
            return
        heavy = any(p.dim() > 1 for p in module.parameters())
        merged = union([self._value(t) for t in given])
        merged.passed |= self._mark(weight=heavy)
        for tensor in unseen:
            bit = self._bit()
            self._set(tensor, Value(bit, merged.ancestors | bit, merged.passed))
        if heavy and unseen[0].shape == given[0].shape:
            self._on_suspect(tuple(self.stack), "its output was computed out of sight")

    def origin(self, tensor: Tensor) -> Value:
        """Return the origin of a tensor's contents; its bit is 0 if it is not followed."""
        return self._value(tensor)

    # -- the mode --------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one torch function, and record the origin of its result."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0]  # torch.ops: "add.Tensor"
        if name in READS or (name == "__get__" and attribute_of(func) not in VIEWS):
            return func(*args, **kwargs)
        if name in ADDS and (found := self._join(args, kwargs)) is not None:
            join, value = found
            stand_in = self._on_join(join)
            if stand_in is None:
                out = func(*args, **kwargs)
            else:
                out = placed(stand_in, name, args, kwargs)
            self._set(out, value)
            return out
        if name in DROPOUTS and not trains(args, kwargs):
            name = "alias"
        inputs = list(tensors_among(args, kwargs))
        parts = self._parts(name, args, kwargs) if name in ADDS else ()
        joins = name in JOINS and looks_residual(
            name, [(tensor.shape, self._value(tensor)) for tensor in inputs], self._weights
        )
        out = func(*args, **kwargs)
        if isinstance(out, Tensor):
            self._note(name, inputs, (out,))
        elif name == "__setitem__":
            self._note(name, inputs, (inputs[0],))
        elif isinstance(out, tuple | list) and not isinstance(out, torch.Size):
            self._note(name, inputs, tuple(tensors_in(out)))
        if name in DIFFERENCES and len(inputs) == 2 and kwargs.get("alpha", 1) == 1:
            less = self._value(inputs[DIFFERENCES[name]])
            self._set(out, replace(self._value(out), minus=0 if less.scaled else less.bit))
        if parts:
            self._set(out, replace(self._value(out), parts=parts))
        elif name in DROPOUTS and (parts := self._value(inputs[0]).parts):
            # Training changes the values of the sum, but not what it is a sum of.
            parts = tuple(replace(part, tensor=None) for part in parts)
            self._set(out, replace(self._value(out), parts=parts))
        if joins and name == "stack":
            self._set(out, replace(self._value(out), joined=True))
        elif joins:
            self._on_suspect(tuple(self.stack), f"{name.strip('_')} in place of an addition")
        return out

    def _note(self, name: str, inputs: list[Tensor], outs: tuple[Tensor, ...]) -> None:
        """Record the origin of a function's results."""
        values = [value for tensor in inputs if (value := self._met(tensor)).bit]
        if not values:
            for out in outs:
                self._set(out, CONSTANT)  # visible, unlike computations inside a kernel
            return
        if name in SAME:
            value = self._value(inputs[0])
            for out in outs:
                axis = axis_after(name, inputs[0], value.channels, out)
                self._set(out, value if axis == value.channels else replace(value, channels=axis))
            return
        if name in SCALES and len(inputs) == 1:
            self._set(outs[0], replace(values[0], minus=0, scaled=True))
            return
        merged = union(values)
        if name in WEIGHTS or (name in MATRIX_PRODUCTS and len(values) < len(inputs)):
            merged.passed |= self._mark(weight=True)
            if name == "conv2d":
                height, width = outs[0].shape[-2:]
                if (height, width) != (1, 1):  # a gate on pooled channels lays no patches
                    self._maps.append((height, width))
        if name in NONLINEAR:
            merged.passed |= self._mark(weight=False)
        if name in ("sum", "mean") and values[0].joined:
            self._on_suspect(tuple(self.stack), f"{name} of a stack")
        in_place = name in INPLACE_OPERATORS or (name[-1:] == "_" and name[-2:] != "__")
        for out in outs:
            bit = self._bit()
            axis = self._feature_axis(name, inputs, out)
            value = Value(bit, merged.ancestors | bit, merged.passed, axis)
            value.is_maximum = name in MAXIMA
            self._set(out, value)
            self.out_of_sight.saw(out, value)
            if in_place and (base := out._base) is not None:
                self._set(base, value)  # writing to a view changes its base

    def _feature_axis(self, name: str, inputs: list[Tensor], out: Tensor) -> int | None:
        if name in CHANNELS_FIRST:
            return 1
        if name in CHANNELS_LAST:
            return out.dim() - 1
        for tensor in inputs:
            axis = self._value(tensor).channels
            if axis is not None and tensor.dim() == out.dim():
                return axis if out.shape[axis] == tensor.shape[axis] else None
        return None

    # -- the rule --------------------------------------------------------------------------------

    def _join(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Join, Value] | None:
        pair = summands(args, kwargs)
        if pair is None or pair[0].shape != pair[1].shape or not pair[0].dim():
            return None
        values = self._met(pair[0]), self._met(pair[1])
        related = relation(*values, self._weights)
        if related is None:
            return None
        kind, first = related  # first: the index of the skip
        skip, branch = pair[first], pair[1 - first]
        a, b = values[first], values[1 - first]
        if (alpha := kwargs.get("alpha", 1)) != 1:  # input + alpha · other
            skip, branch = (alpha * skip, branch) if first else (skip, alpha * branch)
        new = ~a.passed & self._weights
        value = union([a, b])
        value.bit = self._bit()
        value.ancestors |= value.bit
        # Prefer the axis of the skip, because a branch may mix tokens as if they were features.
        value.channels = b.channels if a.channels is None else a.channels
        value.skip = a.skip if kind == "parallel" else a.bit
        value.source = a.source if kind == "parallel" else weakref.ref(pair[first])
        join = Join(
            kind=kind,
            skip=skip,
            branch=branch,
            inside=tuple(self.stack),
            made_in=self._made_in[(b.passed & new).bit_length() - 1],
            channels=value.channels,
            maps=tuple(self._maps),
            stream=value.skip,
            source=self._source(a) if kind == "parallel" else None,
            parts=self._parts_of(a, b) if kind == "identity" and alpha == 1 else (),
        )
        return join, value

    def _source(self, a: Value) -> Tensor | None:
        """Return the skip of all branches in a sum, if it still exists with the same contents."""
        source = None if a.source is None else a.source()
        return source if source is not None and self._value(source).bit == a.skip else None

    def _parts(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Part, ...]:
        """Return the parallel branches that a sum adds; none if it is a residual connection."""
        pair = summands(args, kwargs)
        if pair is None or pair[0].shape != pair[1].shape or kwargs.get("alpha", 1) != 1:
            return ()
        values, inside = (self._value(pair[0]), self._value(pair[1])), tuple(self.stack)
        if not are_parallel(*values, self._weights):
            return ()
        parts: list[Part] = []
        for tensor, value in zip(pair, values, strict=True):
            if value.parts and value.parts[0].inside == inside:
                parts += value.parts
                continue
            # An addition in place overwrites its first summand.
            kept = tensor.detach().clone() if name in INPLACE_ADDS else tensor.detach()
            parts.append(Part(kept, value.ancestors, value.passed, inside))
        return tuple(parts)

    def _parts_of(self, a: Value, b: Value) -> tuple[tuple[Tensor | None, tuple[str, ...]], ...]:
        """Return the parallel branches of a skip in their order, if the branch is their sum."""
        new, inside = ~a.passed & self._weights, tuple(self.stack)
        if not all(p.inside == inside and a.bit & p.ancestors and p.passed & new for p in b.parts):
            return ()
        last = [(part.passed & new).bit_length() - 1 for part in b.parts]
        order = sorted(range(len(last)), key=last.__getitem__)
        return tuple((b.parts[i].tensor, self._made_in[last[i]]) for i in order)

    # -- the records -----------------------------------------------------------------------------

    def _value(self, tensor: Tensor) -> Value:
        return self._find(tensor) or CONSTANT

    def _met(self, tensor: Tensor) -> Value:
        """Return the value of an argument; report one that may have been computed out of sight."""
        value = self._find(tensor)
        # Outside of the model's modules, tensors are those of its batches.
        if value is None and self.stack and self.out_of_sight.may_follow(tensor, self._weights):
            what = "its input was computed out of sight, so nothing after it is followed"
            self._on_suspect(tuple(self.stack), what)
        return value or CONSTANT

    def _find(self, tensor: Tensor) -> Value | None:
        entry = self._values.get(id(tensor))
        if entry is not None and entry[0]() is tensor:
            return entry[1]
        return None

    def _set(self, tensor: Tensor, value: Value) -> None:
        ref = _Ref(tensor, self._drop)
        ref.key = id(tensor)
        self._values[ref.key] = (ref, value)

    def _drop(self, ref: weakref.ref[Tensor]) -> None:
        key = ref.key  # type: ignore[attr-defined]
        entry = self._values.get(key)
        if entry is not None and entry[0] is ref:
            del self._values[key]

    def _bit(self) -> int:
        self._n_bits += 1
        return 1 << self._n_bits

    def _mark(self, *, weight: bool) -> int:
        index = self._n_marks
        self._n_marks += 1
        if weight:
            self._weights |= 1 << index
            self._made_in[index] = tuple(self.stack)
        return 1 << index
