"""Tensors that no torch function was seen to return: results of scripted functions and kernels."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Size, Tensor, nn

from repsim.capture._containers import tensors_in
from repsim.capture.residual._rule import CONSTANT, Value

__all__ = ["OutOfSight"]


class OutOfSight:
    """Tells tensors that may be computed from the input, out of sight, from constants.

    A scripted function, a kernel and a detour through NumPy are invisible. The result of most of
    them has the shape of their argument, and that is what was computed last.
    """

    def __init__(self) -> None:
        self._constant: set[int] = set()
        self.forget()

    def know(self, modules: Iterable[nn.Module]) -> None:
        """Take the tensors that modules hold for constants: buffers, and tables in attributes."""
        for module in modules:
            held = (*module.buffers(recurse=False), *tensors_in(tuple(vars(module).values())))
            self._constant.update(map(id, held))

    def forget(self) -> None:
        """Start another forward."""
        self._shape: Size | None = None
        self._latest = CONSTANT

    def saw(self, result: Tensor, value: Value) -> None:
        """Note what a torch function has computed from the input."""
        self._shape, self._latest = result.shape, value

    def may_follow(self, tensor: Tensor, weights: int) -> bool:
        """Whether a tensor of unknown origin may follow from what passed weight matrices.

        Parameters
        ----------
        tensor : torch.Tensor
            No torch function was seen to return it.
        weights : int
            Which marks in ``passed`` are weight matrices.
        """
        if tensor.shape != self._shape or not self._latest.passed & weights:
            return False
        return not isinstance(tensor, nn.Parameter) and id(tensor) not in self._constant
