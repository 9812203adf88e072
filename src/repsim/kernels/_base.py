"""The protocol of kernels, and the resolution of names and instances to kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from repsim._errors import InputError
from repsim._shown import did_you_mean
from repsim._typing import Array
from repsim.kernels._dot import Cosine, Linear, Polynomial
from repsim.kernels._radial import RBF, Laplacian

__all__ = ["KERNELS", "Kernel", "resolve_kernel"]


@runtime_checkable
class Kernel(Protocol):
    """A positive semi-definite function of two samples.

    Any object with these two methods is a kernel, so users can write their own.
    """

    def gram(self, x: Array) -> Array:
        """Return the Gram matrix (n, n) of the rows of ``x`` (n, p), up to what HSIC ignores.

        A kernel whose HSIC does not depend on the mean of the features may centre them first.
        """
        ...

    def fit(self, x: Array) -> Kernel:
        """Return this kernel with all parameters that depend on data computed from ``x`` (n, p)."""
        ...


KERNELS: dict[str, Callable[[], Kernel]] = {
    "linear": Linear,
    "rbf": RBF,
    "laplacian": Laplacian,
    "polynomial": Polynomial,
    "cosine": Cosine,
}
"""The kernels that have a name, with their default parameters."""


def resolve_kernel(operation: str, kernel: str | Kernel) -> Kernel:
    """Return the kernel of a name, or the kernel itself; raise on anything else.

    Parameters
    ----------
    operation : str
        The first word of the error message.
    kernel : str or Kernel
        A key of :data:`KERNELS`, which gives the kernel with its defaults, or an instance.

    Returns
    -------
    Kernel
        An instance.

    Raises
    ------
    InputError
        It is neither; the message lists the names.
    """
    if isinstance(kernel, str) and kernel in KERNELS:
        return KERNELS[kernel]()
    if isinstance(kernel, Kernel) and not isinstance(kernel, type):
        return kernel
    got = (
        f"the class {kernel.__name__}: write {kernel.__name__}()"
        if isinstance(kernel, type)
        else repr(kernel)
    )
    raise InputError(
        f"{operation}: unknown kernel.\n"
        f"  expected one of {', '.join(map(repr, KERNELS))}, or a kernel such as "
        f"repsim.kernels.RBF(fraction=0.5)\n"
        f"  got {got}{did_you_mean(kernel, KERNELS)}"
    )
