"""The residual connections of a model: found in a forward and named by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import nn

from repsim._errors import warn
from repsim.capture._containers import tensors_in
from repsim.capture._hooks import eagerly, is_scripted
from repsim.capture.layers._walk import named_layers, unwrap
from repsim.capture.residual._join import Join
from repsim.capture.residual._provenance import Provenance
from repsim.capture.residual._rule import Kind
from repsim.capture.tokens._evidence import ModelInput

__all__ = ["ResidualSite", "ResidualSites", "SiteFinder", "name_modules", "site_of"]


@dataclass(frozen=True)
class ResidualSite:
    """One residual connection.

    Attributes
    ----------
    label : str
        The module, inside the block, in which the branch passed its last weight matrix:
        ``"blocks.0.attn"``; with ``:0``, ``:1``, ... if it recurs in one forward.
    block : str
        The module whose forward holds the addition; ``""`` for the model itself.
    branch : str
        The label inside the block: ``"attn"``.
    kind : {"identity", "projection", "parallel"}
        "identity": the branch was computed from the skip. "projection": the skip is a linear map of
        the tensor from which the branch was computed. "parallel": one of several branches that were
        computed from one skip and not from each other, ``x + f(x) + g(x)`` in any order.
    shape : tuple of int
        Shape of the sum in the model.
    """

    label: str
    block: str
    branch: str
    kind: Kind
    shape: tuple[int, ...]


class ResidualSites(tuple[ResidualSite, ...]):
    """The residual connections of a model in execution order; printing it shows a table."""

    __slots__ = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels; each is unique."""
        return tuple(site.label for site in self)

    def __repr__(self) -> str:
        if not self:
            return "no residual connections"
        rows = [("site", "block", "branch", "kind", "shape")]
        rows += [(s.label, s.block, s.branch, s.kind, str(s.shape)) for s in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    __str__ = __repr__


OnSite: TypeAlias = Callable[[ResidualSite, int, Join], None]
"""Called with a site without call index, the count of its earlier calls, and the addition."""


class SiteFinder:
    """Finds the residual connections in the forwards that run inside its ``with`` block.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper. All hooks are removed afterwards.
    on_site : callable, optional
        Called at every site, before the addition.

    Attributes
    ----------
    batch_size : int or None
        Size of axis 0 of the first tensor argument of the model, or of its first module.
    text_lengths : set of int
        Second axes of the integer tensors among these arguments: numbers of tokens of texts.
    has_images : bool
        Whether there are images or videos among these arguments.
    sequence_first : bool
        Whether a module that declares ``batch_first=False`` ran.
    """

    def __init__(self, model: nn.Module, on_site: OnSite | None = None) -> None:
        self._root = unwrap(model)
        self._on_site = on_site
        self._mode = Provenance(self._joined, self._suspected)
        self._stack = ExitStack()
        self._found: list[tuple[ResidualSite, int]] = []
        self._calls: Counter[str] = Counter()
        self._first: dict[int, int] = {}  # by the bit of a skip: its first site
        self._suspects: dict[str, str] = {}
        self.batch_size: int | None = None
        self.text_lengths: set[int] = set()
        self.has_images = False
        self.sequence_first = False

    def __enter__(self) -> SiteFinder:
        modules = {"": self._root, **named_layers(self._root)}
        with ExitStack() as stack:
            stack.enter_context(eagerly())
            name_modules(self._mode, modules, stack, self._outermost)
            for module in modules.values():
                if getattr(module, "batch_first", None) is False and not is_scripted(module):
                    handle = module.register_forward_pre_hook(self._saw_sequence_first)
                    stack.callback(handle.remove)
            stack.enter_context(self._mode)
            self._stack = stack.pop_all()
        self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._mode.reset()

    def restart(self) -> None:
        """Start another forward."""
        self._mode.reset()
        self._mode.stack.clear()
        self._found.clear()
        self._calls.clear()
        self._first.clear()
        self.batch_size = None
        self.text_lengths = set()
        self.has_images = False

    def sites(self) -> ResidualSites:
        """Return the sites of the forwards since the last restart."""
        return ResidualSites(
            site if self._calls[site.label] == 1 else replace(site, label=f"{site.label}:{call}")
            for site, call in self._found
        )

    def warn(self, operation: str, found: Collection[str] = ()) -> None:
        """Report operations that look like residual connections but could not be followed.

        Parameters
        ----------
        operation : str
            The caller's name, for the message.
        found : collection of str
            Modules whose inside is not reported, because they were found by other connections.
        """
        scripted = [
            name
            for name, module in self._root.named_modules()
            if is_scripted(module) and any(True for _ in module.parameters())
        ]
        for name in scripted:
            if name.rpartition(".")[0] not in scripted or not name:
                self._suspects.setdefault(name, "it is scripted, its inside cannot be seen")
        inside = tuple(f"{name}." for name in found)
        left_out = {
            name: what
            for name, what in self._suspects.items()
            if name not in found and not name.startswith(inside)
        }
        warn_of_suspects(operation, left_out)

    def _joined(self, join: Join) -> None:
        first = self._first.setdefault(join.stream, len(self._found))
        if join.kind == "parallel":  # so is the first branch of the skip
            site, call = self._found[first]
            self._found[first] = replace(site, kind="parallel"), call
        for branch in join.branches():
            site = site_of(branch)
            call = self._calls[site.label]
            self._calls[site.label] += 1
            self._found.append((site, call))
            if self._on_site is not None:
                self._on_site(site, call, branch)

    def _suspected(self, inside: tuple[str, ...], what: str) -> None:
        self._suspects.setdefault(inside[-1] if inside else "", what)

    def _outermost(self, inputs: object) -> None:
        self._mode.begin(inputs)
        given = ModelInput.of(inputs)
        self.text_lengths |= given.lengths
        self.has_images |= given.image is not None or given.video is not None
        if self.batch_size is None:
            sizes = (t.size(0) for t in tensors_in(inputs) if t.dim())
            self.batch_size = next(sizes, None)

    def _saw_sequence_first(self, *_: object) -> None:
        self.sequence_first = True


def warn_of_suspects(operation: str, suspects: Mapping[str, str]) -> None:
    """Warn of modules that may hold residual connections: what was seen in each, by name."""
    if suspects:
        shown = "".join(
            f"  {name or 'the model itself'}: {what}\n" for name, what in list(suspects.items())[:8]
        )
        warn(
            f"{operation}: these look like residual connections, but no addition was seen, "
            f"so they are left out:\n{shown}  Written as skip + branch, such a block counts."
        )


def site_of(join: Join) -> ResidualSite:
    """Name a site by the module in which its branch passed its last weight matrix."""
    depth = 0
    for here, there in zip(join.inside, join.made_in, strict=False):
        if here != there:
            break
        depth += 1
    block = join.inside[-1] if join.inside else ""
    label = join.made_in[depth] if depth < len(join.made_in) else block
    branch = label.removeprefix(f"{block}.") if label != block else ""
    return ResidualSite(label, block, branch, join.kind, tuple(join.skip.shape))


def name_modules(
    mode: Provenance,
    modules: Mapping[str, nn.Module],
    stack: ExitStack,
    outermost: Callable[[object], None] | None = None,
) -> None:
    """Hook modules, so the mode knows which are running, until `stack` is closed.

    With `outermost`, which is called with the inputs, modules that run inside no other module count
    too. Without it, only modules inside a module on the mode's stack count.
    """
    mode.out_of_sight.know(modules.values())
    for name, module in modules.items():
        if is_scripted(module):
            continue  # takes no hooks
        for handle in _hooks(mode, name, module, outermost):
            stack.callback(handle.remove)


def _hooks(
    mode: Provenance,
    name: str,
    module: nn.Module,
    outermost: Callable[[object], None] | None,
) -> Iterable[torch.utils.hooks.RemovableHandle]:
    def enter(_module: nn.Module, args: object, kwargs: object) -> None:
        if not mode.stack and outermost is not None:
            outermost((args, kwargs))
        if mode.stack or outermost is not None:
            mode.stack.append(name)

    def returned(module: nn.Module, args: object, kwargs: object, output: object) -> None:
        if mode.stack:
            mode.returned(module, (args, kwargs), output)

    def leave(*_: object) -> None:
        # If another hook raised before `enter`, this module was never put on the stack.
        if mode.stack and mode.stack[-1] == name:
            mode.stack.pop()

    yield module.register_forward_pre_hook(enter, with_kwargs=True)
    # Each is placed first, so the order is `returned`, `leave`, then all other hooks.
    yield module.register_forward_hook(leave, prepend=True, always_call=True)
    yield module.register_forward_hook(returned, prepend=True, with_kwargs=True)
