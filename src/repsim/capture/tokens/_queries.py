"""Tokens that are queries that the model learned, so they have no places in an image."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from repsim.capture._containers import tensors_in
from repsim.capture.layers._walk import named_layers, unwrap
from repsim.capture.tokens._evidence import ModelInput

__all__ = ["OTHER_SEQUENCES", "Queries", "SecondSequence"]

OTHER_SEQUENCES = (
    "key_value_states",
    "encoder_hidden_states",
    "cross_attention_states",
    "context",
)
"""The names in transformers of the sequence to which cross-attention attends."""

_NAMES = frozenset({*OTHER_SEQUENCES, "memory"})


class SecondSequence:
    """Finds the sequence (B, M, D) to which the tokens of a module attend, by the names above.

    torch calls it ``memory``. It may be in a list. A module whose second sequence is its first
    argument attends to its own tokens.
    """

    def __init__(self) -> None:
        self._names: dict[type[nn.Module], list[str]] = {}
        self._may: dict[type[nn.Module], bool] = {}

    def may_have(self, module: nn.Module) -> bool:
        """Whether a module has an argument of such a name."""
        kind = type(module)
        if kind not in self._may:
            self._may[kind] = not _NAMES.isdisjoint(self._arguments(module))
        return self._may[kind]

    def shape(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[int, ...] | None:
        """Return the shape of the second sequence of one call; None without one."""
        names = (*OTHER_SEQUENCES, "memory")
        found = self._given(names, module, args, kwargs)
        return next((tuple(x.shape) for x in found if x.ndim == 3 and not x.is_nested), None)

    def is_given(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether the keys of an attention module come from a second sequence of one call.

        A ``memory`` is of a block, whose own tokens may attend to one another too.
        """
        return any(x.ndim > 2 for x in self._given(OTHER_SEQUENCES, module, args, kwargs))

    def _given(
        self,
        of: Sequence[str],
        module: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Iterator[Tensor]:
        """Yield the second sequences of one call of these names, also if passed by position."""
        if not kwargs and not self.may_have(module):  # as a rule
            return
        names = self._arguments(module)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        others = [given[name] for name in of if name in given]
        if others:
            in_order = [given[name] for name in names if name in given]
            own = next(tensors_in((*in_order, args, kwargs)), None)
            yield from (x for x in tensors_in(others) if x is not own)

    def _arguments(self, module: nn.Module) -> list[str]:
        kind = type(module)
        if kind not in self._names:
            self._names[kind] = _argument_names(kind.forward)
        return self._names[kind]


class Queries:
    """Finds the modules whose tokens are learned queries, as in the decoder of DETR.

    Such a module gets a second sequence that the model made of the image, and its own tokens are
    another sequence. If the model was given the second sequence, its own tokens may be the image,
    which attends to a text.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._second = SecondSequence()
        modules = {"": unwrap(model), **named_layers(model)}
        self._modules = {k: m for k, m in modules.items() if self._second.may_have(m)}
        self._seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the modules that may get a second sequence."""
        with ExitStack() as stack:
            for name, module in self._modules.items():
                hook = module.register_forward_pre_hook(self._seeing(name), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def clear(self) -> None:
        """Prepare for the next forward."""
        self._seen.clear()

    def hold(self, layer: str, n: int, given: ModelInput) -> bool:
        """Whether the n tokens of a layer are queries.

        Parameters
        ----------
        layer : str
            Its name.
        n : int
            The number of tokens that it returns.
        given : ModelInput
            What the model got in this forward.
        """
        lengths = given.lengths | given.sequences
        return any(
            n in own[:2] and lengths.isdisjoint(other[:2])
            for name, (own, other) in self._seen.items()
            if not name or f"{layer}.".startswith(f"{name}.")
        )

    def _seeing(self, name: str) -> Callable[..., None]:
        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            own = next(tensors_in((args, kwargs)), None)
            other = self._second.shape(module, args, kwargs)
            if isinstance(own, Tensor) and own.ndim == 3 and not own.is_nested and other:
                self._seen[name] = tuple(own.shape), other

        return see


def _argument_names(forward: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments after self; none of a function written in C."""
    try:
        return list(inspect.signature(forward).parameters)[1:]
    except ValueError:
        return []
