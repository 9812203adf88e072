"""An addition of a skip and its branch, as the mode passes it on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from repsim.capture.residual._rule import Kind
from repsim.capture.tokens._rules import Size

__all__ = ["Join", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parallel branches in a sum.

    Attributes
    ----------
    tensor : torch.Tensor or None
        The branch; None if it is not the summand itself, for example because dropout came after.
    ancestors, passed : int
        As of :class:`Value`.
    inside : tuple of str
        The modules whose forwards were running at the sum, outermost first.
    """

    tensor: Tensor | None
    ancestors: int
    passed: int
    inside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """An addition of a skip and its branch.

    Attributes
    ----------
    kind : {"identity", "projection", "parallel"}
        "identity": the branch was computed from the skip itself. "projection": the skip is a linear
        map of the tensor from which the branch was computed. "parallel": another branch of a skip
        that is already in the sum.
    skip, branch : torch.Tensor
        The summands, of the same shape.
    inside : tuple of str
        The modules whose forwards were running, outermost first.
    made_in : tuple of str
        The modules that were running when the branch last passed a weight matrix.
    channels : int or None
        The axis of the features of the skip, else of the branch, if known.
    maps : tuple of (int, int)
        Heights and widths of what two-dimensional convolutions put out before, in their order.
    stream : int
        The bit of the value that is the skip of all branches of one sum.
    source : torch.Tensor or None
        That value, if the skip of a parallel branch is the sum with the others.
    parts : tuple of (tensor or None, tuple of str)
        If the branch is a sum of parallel branches, each with its modules as in ``made_in``.
    whole : tuple of two tensors, or None
        Of one of several branches, the summands of the addition.
    """

    kind: Kind
    skip: Tensor
    branch: Tensor
    inside: tuple[str, ...]
    made_in: tuple[str, ...]
    channels: int | None
    maps: tuple[Size, ...]
    stream: int
    source: Tensor | None = None
    parts: tuple[tuple[Tensor | None, tuple[str, ...]], ...] = ()
    whole: tuple[Tensor, Tensor] | None = None

    @property
    def summands(self) -> tuple[Tensor, Tensor]:
        """What the addition adds: the skip and the branch, with those parallel to them."""
        return (self.skip, self.branch) if self.whole is None else self.whole

    def branches(self) -> list[Join]:
        """Return one addition for each branch, of the value that is the skip of all of them."""
        skip = self.skip if self.source is None else self.source
        if not self.parts:
            return [replace(self, skip=skip, whole=self.summands)]
        return [
            replace(
                self,
                kind="parallel",
                skip=skip,
                branch=self.branch if tensor is None else tensor,
                made_in=made_in,
                parts=(),
                whole=self.summands,
            )
            for tensor, made_in in self.parts
        ]
