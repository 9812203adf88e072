"""The residual blocks of a model: found in a forward, and watched in others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from repsim._errors import CaptureError
from repsim.capture._containers import tensors_in
from repsim.capture._hooks import eagerly, is_scripted
from repsim.capture.layers._blocks import blocks_of
from repsim.capture.layers._walk import named_layers, unwrap
from repsim.capture.residual._join import Join
from repsim.capture.residual._rule import CONSTANT, Value
from repsim.capture.residual._sites import SiteFinder

__all__ = ["BlockCall", "BlockFinder", "OnStream", "residual_blocks", "watching_blocks"]

Key: TypeAlias = tuple[str, int]
"""A module's name, and which of its calls in a forward."""

OnStream: TypeAlias = Callable[[Key, Tensor], None]
"""Called with a call of a block and its input, or its output."""


@dataclass(frozen=True)
class BlockCall:
    """One call of a module in a forward.

    Attributes
    ----------
    name : str
        The name of the module.
    call : int
        The number of its earlier calls.
    shape : tuple of int
        The shape of what it returned first.
    place : int or None
        Which of the tensors that it was called with is the stream: the first of this shape. After a
        tensor of as many axes and another shape, only a constant or one that the call adds a branch
        to. None if there is none.
    channels : int or None
        The axis of the features of its input or, if the operations before do not show it, of its
        output.
    chain : int
        The number of the chain. A call continues the chain of the call before it if its input has
        the same shape and was computed from the output of that call.
    """

    name: str
    call: int
    shape: tuple[int, ...]
    place: int | None
    channels: int | None
    chain: int = 0

    @property
    def key(self) -> Key:
        """Its name and call."""
        return self.name, self.call


@dataclass
class _Seen:
    """A call, and the origin of its input and output as bits of :class:`Value`."""

    name: str
    call: int
    inputs: list[tuple[tuple[int, ...], Value]]
    shape: tuple[int, ...] | None = None
    made: int = 0
    channels: int | None = None
    skips: int = 0  # the bits of the skips of the additions in the call

    @property
    def place(self) -> int | None:
        fitting = [i for i, (shape, _) in enumerate(self.inputs) if shape == self.shape]
        first = fitting[0] if fitting else 0
        others = [shape for shape, _ in self.inputs[:first] if len(shape) == len(self.shape or ())]
        if others:  # they may be resized, as in feature pyramids, or attended to, as in CaiT
            bits = {i: self.inputs[i][1].bit for i in fitting}
            fitting = [i for i, bit in bits.items() if not bit or bit & self.skips]
        return fitting[0] if fitting else None


class BlockFinder(SiteFinder):
    """Finds residual connections, and the calls of the modules that may be their blocks.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper.
    names : iterable of str, optional
        The modules to watch; by default all that hold other modules.
    """

    def __init__(self, model: nn.Module, names: Iterable[str] | None = None) -> None:
        super().__init__(model)
        modules = named_layers(self._root)
        wanted = [n for n, m in modules.items() if any(m.children())] if names is None else names
        self._watched = {n: modules[n] for n in wanted if not is_scripted(modules[n])}
        self._seen: list[_Seen] = []
        self._open: list[_Seen] = []

    def __enter__(self) -> BlockFinder:
        super().__enter__()
        times: Counter[str] = Counter()

        def began(name: str, inputs: object) -> None:
            found = [(tuple(x.shape), self._mode.origin(x)) for x in _streams(inputs)]
            self._open.append(_Seen(name, times[name], found))
            self._seen.append(self._open[-1])
            times[name] += 1

        def ended(name: str, output: object) -> None:
            while (seen := self._open.pop()).name != name:
                pass  # it raised an error that the model caught
            for tensor in _streams(output):
                origin = self._mode.origin(tensor)
                seen.shape, seen.made = tuple(tensor.shape), origin.bit
                seen.channels = origin.channels
                return

        _hook(self._watched, self._stack, began, ended)
        return self

    def _joined(self, join: Join) -> None:
        super()._joined(join)
        for seen in self._open:
            seen.skips |= join.stream

    def calls(self, wanted: Callable[[str, int], bool]) -> list[BlockCall]:
        """Return the wanted calls in the order in which they began, with their chains."""
        found: list[BlockCall] = []
        chain, before = -1, None
        for seen in self._seen:
            if seen.shape is None or not wanted(seen.name, seen.call):
                continue
            place = seen.place
            origin = CONSTANT if place is None else seen.inputs[place][1]
            follows = before is not None and bool(before.made & origin.ancestors)
            if before is None or not follows or before.shape != seen.shape or place is None:
                chain += 1
            axis = seen.channels if origin.channels is None else origin.channels
            found.append(BlockCall(seen.name, seen.call, seen.shape, place, axis, chain))
            before = seen
        return found


def residual_blocks(model: nn.Module, holders: Iterable[str]) -> list[str]:
    """Return the blocks of a model by the modules that hold its residual additions.

    >>> from torch import nn
    >>> layers = [nn.TransformerEncoderLayer(4, 2) for _ in range(2)]
    >>> residual_blocks(nn.Sequential(*layers), ["0.self_attn", "0", "1.self_attn", "1"])
    ['0', '1']

    These are the repeated blocks of ``layers="blocks"`` that hold an addition, if no addition is
    outside them. The two differ where not every block has an addition, as in MobileNetV2, and where
    additions are beside the blocks: then a block is a module in a container (``ModuleList``,
    ``Sequential``, ``ModuleDict``) that holds an addition. It counts if the container has two of
    one class; of nested blocks (a stage and its blocks) the inner ones count. Without such blocks,
    these are the outermost modules in a container, and without any, the outermost modules that hold
    an addition.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper.
    holders : iterable of str
        Names of the modules in whose forward residual additions are.

    Returns
    -------
    list of str
        The names, in registration order; empty if only the model itself holds additions.
    """
    root, holders = unwrap(model), [name for name in holders if name]
    named = {"": root, **named_layers(root)}
    held = dict.fromkeys(around for name in holders for around in _upwards(name) if around in named)
    repeated = [name for name in blocks_of(named_layers(root)) if name in held]
    if _holds_all(repeated, holders) and not any(_is_stage(name, named, held) for name in repeated):
        return repeated
    names = [name for name in named if name and name in held]
    return _in_containers(names, named)


@contextmanager
def watching_blocks(
    model: nn.Module, calls: Sequence[BlockCall], entered: OnStream, left: OnStream
) -> Iterator[Callable[[], None]]:
    """Pass on the input and the output of blocks; yield a function that starts another forward.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper.
    calls : sequence of BlockCall
        The calls to watch, as found in a forward.
    entered, left : callable
        Called with the key of a call, and its input or its output.

    Yields
    ------
    callable
        To be called before each forward: it counts calls from 0 again.
    """
    modules = named_layers(model)
    places = {each.key: each.place for each in calls}
    times: Counter[str] = Counter()
    running: list[Key] = []

    def began(name: str, inputs: object) -> None:
        running.append((name, times[name]))
        times[name] += 1
        place = places.get(running[-1])
        if place is not None:
            streams = list(_streams(inputs))
            if place < len(streams):
                entered(running[-1], streams[place])

    def ended(name: str, output: object) -> None:
        while (key := running.pop())[0] != name:
            pass  # it raised an error that the model caught
        stream = next(_streams(output), None)
        if places.get(key) is not None and stream is not None:
            left(key, stream)

    def restart() -> None:
        times.clear()
        running.clear()

    with ExitStack() as stack:
        stack.enter_context(eagerly())
        watched = {each.name: modules[each.name] for each in calls}
        _hook(watched, stack, began, ended)
        yield restart


def _hook(
    modules: Mapping[str, nn.Module],
    stack: ExitStack,
    began: Callable[[str, object], None],
    ended: Callable[[str, object], None],
) -> None:
    """Call functions with what modules are called with and return, until `stack` is closed."""

    def hooks(name: str, module: nn.Module) -> None:
        def before(module: nn.Module, args: object, kwargs: object) -> None:
            if getattr(module, "_is_replica", False):
                raise CaptureError(
                    f"block_influence: block {name!r} runs in a DataParallel replica.\n"
                    "  Pass model.module: its batch is whole, on one device."
                )
            began(name, (args, kwargs))

        stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        after = module.register_forward_hook(lambda _m, _args, output: ended(name, output))
        stack.callback(after.remove)

    for name, module in modules.items():
        hooks(name, module)


def _streams(value: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors with axes."""
    return (t for t in tensors_in(value) if t.is_floating_point() and t.dim() > 0)


def _upwards(name: str) -> Iterator[str]:
    """Yield a name and those of the modules around it."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _holds_all(blocks: Sequence[str], holders: Sequence[str]) -> bool:
    """Whether every addition is in one of these blocks."""
    return all(any(f"{name}.".startswith(f"{block}.") for block in blocks) for name in holders)


def _is_stage(name: str, named: Mapping[str, nn.Module], held: Mapping[str, object]) -> bool:
    """Whether a module is a Sequential of several modules of one class that hold an addition."""
    if type(named[name]) is not nn.Sequential:
        return False
    children = named[name].named_children()
    kinds = Counter(type(child) for own, child in children if f"{name}.{own}" in held)
    return any(times > 1 for times in kinds.values())


def _in_containers(names: Sequence[str], named: Mapping[str, nn.Module]) -> list[str]:
    """Return those of the modules that are repeated in a container, or the outermost of all."""
    parents = {name: name.rpartition(".")[0] for name in names}
    containers = nn.Sequential | nn.ModuleList | nn.ModuleDict
    inside = [name for name in names if isinstance(named.get(parents[name]), containers)]
    # A Sequential may be a stage or a branch, so it counts only if there is no other block.
    for candidates in ([n for n in inside if type(named[n]) is not nn.Sequential], inside):
        beside = Counter((parents[name], type(named[name])) for name in candidates)
        full = {parent for (parent, _), times in beside.items() if times > 1}
        kinds = {kind for (_, kind), times in beside.items() if times > 1}
        chosen = [n for n in candidates if parents[n] in full or type(named[n]) in kinds]
        if chosen:
            return [n for n in chosen if not any(other.startswith(f"{n}.") for other in chosen)]
    return _outermost(inside) or _outermost(names)


def _outermost(names: Sequence[str]) -> list[str]:
    return [n for n in names if not any(n.startswith(f"{other}.") for other in names)]
