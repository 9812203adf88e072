"""Finding the axis of the samples by evidence: forwards of 2 and of 3 samples.

Sizes alone cannot tell samples from tokens. A position table may have the length of the batch, and
windows multiply the rows of a sample. But only the axis of the samples grows from 2k to 3k.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from repsim._errors import CaptureError
from repsim.capture._containers import tensors_in
from repsim.capture._hooks import is_scripted
from repsim.capture._output import Select, UnusableOutput, pick
from repsim.capture.layers._select import Selection
from repsim.capture.layers._walk import find

__all__ = ["ORDERS", "SIZES", "Evidence", "Probe", "SampleAxis", "ask", "sequence_first_modules"]

SIZES = (2, 3)
"""Samples in the two forwards."""

ORDERS = {2: (0, 1), 3: (1, 0, 2)}
"""Which samples of the batch they are.

The first two change places, and the rows of each do so with it. Tokens of an expert do not if they
are one of the first sample and three of the second, which are two of each on average.
"""


@dataclass(frozen=True)
class SampleAxis:
    """The axis of an output that holds the samples.

    Attributes
    ----------
    axis : int
        Which axis.
    rows : int
        How many of its rows are of one sample: 1, or the number of its windows, crops or patches.
    apart : bool or None
        Whether the rows of a sample are apart (row j of sample i at j·n + i, as in concatenated
        crops) and not together (at i·rows + j). None: the values do not show it.
    """

    axis: int
    rows: int = 1
    apart: bool | None = False

    def first(self, tensor: Tensor, n: int) -> Tensor:
        """Return (n, ...), with the rows of each sample folded into it.

        Rows of vectors (n·k, D) become (n, k, D), those of sequences (n·k, N, D) become
        (n, k·N, D), and those of maps (n·k, C, H, W) become (n, C, k, H, W).
        """
        moved = tensor.movedim(self.axis, 0) if self.axis else tensor
        if self.rows == 1:
            return moved
        rest = moved.shape[1:]
        if self.apart:
            folded = moved.reshape(self.rows, n, *rest).transpose(0, 1)
        else:
            folded = moved.reshape(n, self.rows, *rest)
        if moved.ndim == 3:
            return folded.flatten(1, 2)
        return folded.transpose(1, 2) if moved.ndim > 3 else folded


Evidence = Mapping[tuple[str, int], SampleAxis | None]
"""By layer and call: the axis of the samples, or None where the output follows no sample."""


_Kind: TypeAlias = tuple[str, type | None, str]
"""A list of modules, a class of its elements, and a name inside of them."""


@dataclass
class _Seen:
    """What one forward showed."""

    shapes: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    sketches: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)
    sequence_first: dict[str, tuple[int, ...]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    inputs: list[tuple[int, ...]] = field(default_factory=list)


class Probe:
    """The outputs of the chosen layers in forwards of 2 and of 3 samples.

    Parameters
    ----------
    layers : Selection
        The chosen layers.
    select : callable, int or str, optional
        Which tensor of an output.
    """

    def __init__(self, layers: Selection, select: Select | None) -> None:
        self._layers, self._select = layers, select
        self._seen: dict[int, _Seen] = {}

    @contextmanager
    def watching(self, size: int) -> Iterator[None]:
        """Watch a forward of this many samples."""
        seen = self._seen[size] = _Seen()
        handles: list[RemovableHandle] = []
        try:
            handles.extend(
                layer.module.register_forward_hook(self._hook(layer.name, size))
                for layer in self._layers
            )
            root = self._layers.root
            handles.append(root.register_forward_pre_hook(_note_input(seen), with_kwargs=True))
            for name, module in sequence_first_modules(self._layers.root):
                watch = _watch(name, seen)
                handles.append(module.register_forward_pre_hook(watch, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def was_reached(self) -> bool:
        """Whether the model got another input in the two forwards, or was not called itself."""
        two, three = (self._seen[size].inputs for size in SIZES)
        return two != three or not two

    def evidence(self) -> Evidence:
        """Return what both forwards show; calls that ran in one of them show nothing."""
        two, three = (self._seen[size] for size in SIZES)
        found = {
            key: self._followed(key, shape, three.shapes[key])
            for key, shape in two.shapes.items()
            if key in three.shapes
        }
        # How many rows an expert gets depends on their values. Those of some experts are as many
        # for each sample of the probe by accident, but not those of all experts in a list.
        kinds = self._kinds_of_routed(two, three)
        if kinds:
            routed = {layer.name for layer in self._layers if self._kind(layer.name) in kinds}
            found |= {key: None for key in found if key[0] in routed}
            found |= {(name, 0): None for name in routed}
        return found

    def refuse_sequence_first(self) -> None:
        """Raise a CaptureError if what was cut is the sequence, and not the samples."""
        two, three = (self._seen[size].sequence_first for size in SIZES)
        for name, shape in two.items():
            other = three.get(name, shape)
            if _rows(shape[0], other[0]) and not _rows(shape[1], other[1]):
                raise CaptureError(
                    "Recorder: the model seems to take its input sequence first, so axis 0 is not "
                    "the batch.\n"
                    f"  {name!r} has batch_first=False, and its input is {shape} for 2 samples, "
                    f"{other} for 3: axis 0 holds tokens\n"
                    "  Pass batch_dim=1 if the samples are on axis 1, batch_dim=0 if they really "
                    "are on axis 0."
                )

    def _hook(self, name: str, size: int) -> Callable[[nn.Module, object, object], None]:
        seen = self._seen[size]

        def look(_module: nn.Module, _args: object, output: object) -> None:
            call = seen.calls[name]
            seen.calls[name] += 1
            try:
                tensor = pick(output, name, self._select)
            except UnusableOutput:
                return  # the recorder says so of the whole batch
            seen.shapes[name, call] = tuple(tensor.shape)
            if tensor.shape[0] != size:
                for axis, length in enumerate(tensor.shape):
                    if length > size and length % size == 0:
                        seen.sketches[name, call, axis] = _sketch(tensor, axis)

        return look

    def _kinds_of_routed(self, two: _Seen, three: _Seen) -> set[_Kind]:
        """Return the kinds of layers whose rows grew, but not with the samples."""
        both = two.shapes.keys() & three.shapes.keys()
        routed = {key[0] for key in both if _grew_at_random(two.shapes[key], three.shapes[key])}
        routed |= two.calls.keys() ^ three.calls.keys()
        return {self._kind(name) for name in routed}

    def _kind(self, name: str) -> _Kind:
        """Return what a layer has in common with those at its place in the same list."""
        modules = name.split(".")
        for at in range(len(modules) - 1, -1, -1):
            around = find(self._layers.root, ".".join(modules[:at])) if at else self._layers.root
            if isinstance(around, nn.ModuleList | nn.ModuleDict):
                element = type(find(self._layers.root, ".".join(modules[: at + 1])))
                return ".".join(modules[:at]), element, ".".join(modules[at + 1 :])
        return name, None, ""

    def _followed(
        self, key: tuple[str, int], two: tuple[int, ...], three: tuple[int, ...]
    ) -> SampleAxis | None:
        if len(two) != len(three):
            return None
        rows = [_rows(a, b) for a, b in zip(two, three, strict=True)]
        if 1 in rows:
            return SampleAxis(rows.index(1))
        axis = next((axis for axis, count in enumerate(rows) if count), None)
        if axis is None:
            return None
        return SampleAxis(axis, rows[axis], self._apart((*key, axis), rows[axis]))

    def _apart(self, key: tuple[str, int, int], rows: int) -> bool | None:
        """Tell by values whether the rows of one sample are apart."""
        two, three = (self._seen[size].sketches.get(key) for size in SIZES)
        if two is None or three is None:  # another axis has as many entries as there were samples
            return None
        scale = float(torch.maximum(two.abs().max(), three.abs().max()))
        # The first two samples changed places.
        blocks, places = three.reshape(3, rows)[[1, 0]], three.reshape(rows, 3)[:, [1, 0]]
        together = float((two.reshape(2, rows) - blocks).abs().max())
        apart = float((two.reshape(rows, 2) - places).abs().max())
        less, more = sorted((together, apart))
        # Sums of batches of another size differ by rounding, those of other samples by more.
        if less > 1e-3 * scale and 10 * less > more:
            return None
        return apart < together


def sequence_first_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that declare ``batch_first=False``, with a name for errors."""
    for name, module in root.named_modules():
        if getattr(module, "batch_first", None) is False and not is_scripted(module):
            yield name or type(module).__name__, module


def _grew_at_random(two: tuple[int, ...], three: tuple[int, ...]) -> bool:
    """Whether an axis has other lengths for 2 and 3 samples, but not as many rows for each."""
    lengths = zip(two, three, strict=False)
    return len(two) == len(three) and any(a != b and not _rows(a, b) for a, b in lengths)


def _rows(two: int, three: int) -> int:
    """Rows of a sample on an axis that has these lengths for 2 and 3 samples; 0 if it has none."""
    return two // 2 if two and 3 * two == 2 * three else 0


def _sketch(tensor: Tensor, axis: int) -> Tensor:
    """Return one number for each row: a projection, since norms and sums are often equal."""
    rows = tensor.detach().movedim(axis, 0).flatten(1).to(torch.float32)
    weights = torch.cos(torch.arange(rows.shape[1], device=rows.device, dtype=torch.float32))
    return (rows.nan_to_num() * weights).sum(1)


def _watch(name: str, seen: _Seen) -> Callable[..., None]:
    def watch(_module: Any, args: object, kwargs: object) -> None:
        first = next(tensors_in((args, kwargs)), None)
        if first is not None and not first.is_nested and first.dim() == 3:
            seen.sequence_first.setdefault(name, tuple(first.shape))

    return watch


def _note_input(seen: _Seen) -> Callable[..., None]:
    def note(_module: Any, args: object, kwargs: object) -> None:
        tensors = (t for t in tensors_in((args, kwargs)) if not t.is_nested)
        seen.inputs.extend(tuple(tensor.shape) for tensor in tensors)

    return note


def ask(probes: Sequence[Probe], run: Callable[[int], object]) -> list[Evidence] | None:
    """Run a forward of each size under the watch of probes, and return what each probe shows.

    The result is None if the model got the same input both times, which shows nothing.
    """
    for size in SIZES:
        with ExitStack() as stack:
            for probe in probes:
                stack.enter_context(probe.watching(size))
            run(size)
    if not all(probe.was_reached for probe in probes):
        return None
    for probe in probes:
        probe.refuse_sequence_first()
    return [probe.evidence() for probe in probes]
