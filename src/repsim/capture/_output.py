"""Taking one tensor from the output of a module, and copying results that share memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from repsim._errors import CaptureError
from repsim._options import is_whole
from repsim.capture._containers import is_dataclass, rebuilt, tensors_in

__all__ = ["Select", "UnusableOutput", "owned", "pick"]

Select: TypeAlias = Callable[[Any], Tensor] | int | str
"""Types of ``select=``: a function of a module's output, an index, or a key."""


class UnusableOutput(CaptureError):  # noqa: N818 - raised to the user only as a CaptureError
    """The output of a module is not a batch of representations.

    Attributes
    ----------
    brief : str
        What it is instead, for a list of many such layers.
    quiet : bool
        Whether to leave it out without a warning (a loss, a position embedding).
    repair : str
        What to pass, for all layers alike; empty if the list of layers has a general advice.
    """

    def __init__(self, message: str, *, brief: str, quiet: bool = False, repair: str = "") -> None:
        super().__init__(message)
        self.brief = brief
        self.quiet = quiet
        self.repair = repair


def pick(output: object, layer: str, select: Select | None = None) -> Tensor:
    """Take one tensor from a module's output.

    >>> import torch
    >>> pick((None, {"loss": torch.tensor(0.5), "hidden": torch.ones(2)}), "encoder")
    tensor([1., 1.])

    Without `select`, a tensor is returned itself. From any other output it is the first
    floating-point tensor with at least one axis, depth first through tuples, lists, namedtuples and
    mappings (such as Hugging Face's ModelOutput). None, numbers and 0-d losses are skipped.

    Parameters
    ----------
    output : object
        What the module returned.
    layer : str
        The layer's name, for errors.
    select : callable, int or str, optional
        The rule to use instead: output → tensor, an index into a tuple or list, or a key of a
        mapping. A function that returns the output itself leaves the choice to the default.

    Returns
    -------
    torch.Tensor
        The tensor itself, not a copy; strided and real, with at least one axis. Quantised values
        are dequantised.

    Raises
    ------
    UnusableOutput
        There is no such tensor, or it is nested, sparse or complex.
    """
    found = output if select is None else _selected(output, layer, select)
    if found is output:  # as it is, too, if a select returns it: it is about other layers
        found = _first_float(output)
    if not isinstance(found, Tensor):
        raise UnusableOutput(
            f"Recorder: layer {layer!r} gave no tensor to record.\n"
            f"  it returned: {_describe(output)}\n"
            + ("" if select is None else f"  select={select!r} found: {_describe(found)}\n")
            + "  Pass select=: a callable output -> tensor, an index or a key; or leave it out.",
            brief=f"returned {_describe(output)}",
            quiet=True,
        )
    return _plain(found, layer)


def owned(value: Any, source: Tensor) -> Any:
    """Copy tensors and arrays that share memory with `source`, in containers too.

    Later in-place operations of the model would overwrite a view. A view also keeps its whole base
    in memory: a CLS token would keep all tokens.
    """
    if isinstance(value, Tensor):
        return value.clone() if _shares_memory(value, source) else value
    if isinstance(value, np.ndarray):
        storage = source.untyped_storage()
        first = storage.data_ptr()
        shared = first <= value.__array_interface__["data"][0] < first + storage.nbytes()
        return value.copy() if source.device.type == "cpu" and shared else value
    if isinstance(value, dict | list | tuple) or is_dataclass(value):
        return rebuilt(value, lambda part: owned(part, source))
    return value


def _first_float(output: object) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    values = (t for t in tensors_in(output) if t.is_floating_point() or t.is_quantized)
    return next((t for t in values if t.dim() > 0), None)


def _selected(output: object, layer: str, select: Select) -> object:
    if is_whole(select) and isinstance(output, tuple | list):
        return output[select] if -len(output) <= select < len(output) else None
    if isinstance(select, str) and isinstance(output, Mapping):
        return output.get(select)
    if callable(select):
        try:
            return select(output)
        except Exception as error:
            error.add_note(f"repsim: in select= on layer {layer!r}, given {_describe(output)}")
            raise
    return None  # the output has no such index or key


def _plain(tensor: Tensor, layer: str) -> Tensor:
    if tensor.is_nested:
        kind, repair = "nested", "t.to_padded_tensor(0.0) if getattr(t, 'is_nested', False) else t"
    elif tensor.layout != torch.strided:
        kind, repair = "sparse", "t.to_dense() if getattr(t, 'is_sparse', False) else t"
    elif tensor.is_complex():
        kind = "complex"
        repair = "torch.view_as_real(t) if torch.is_tensor(t) and t.is_complex() else t"
    elif tensor.dim() == 0:
        raise UnusableOutput(
            f"Recorder: layer {layer!r} returned a number, a tensor without axes.\n"
            "  Leave it out, or pass select= to take something else from its output.",
            brief="()",
            quiet=True,
        )
    else:
        return tensor.dequantize() if tensor.is_quantized else tensor
    raise UnusableOutput(
        f"Recorder: layer {layer!r} returned a {kind} tensor.\n"
        f"  Pass select=lambda t: {repair}\n"
        "  or leave the layer out.",
        brief=f"a {kind} tensor",
        repair=f"select=lambda t: {repair}",
    )


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        # A nested tensor has no shape to show.
        return "a nested tensor" if output.is_nested else f"Tensor {tuple(output.shape)}"
    name = type(output).__name__
    if isinstance(output, Mapping):
        return f"{name} with keys {[str(key) for key in output]}"
    if isinstance(output, tuple | list):
        return f"{name} of ({', '.join(type(item).__name__ for item in output)})"
    return name


def _shares_memory(a: Tensor, b: Tensor) -> bool:
    if a.layout != torch.strided or a.is_nested or a.device != b.device:
        return False
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
