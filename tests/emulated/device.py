"""An accelerator played by the CPU, which notes everything that the host waits for.

:func:`install` gives torch a backend of the name "sim". torch can have one such backend, and cannot
forget it: ``torch.accelerator`` then says that there is an accelerator. Therefore only a process of
its own installs it. ``test_emulated.py`` starts that process, and pytest runs the files ``on_*.py``
there, with this module as a plugin.

A tensor on ``sim:0`` holds a tensor in main memory. Every operation on it arrives in :func:`_run`,
through ``__torch_dispatch__`` or through the fallback of the backend's dispatch key. Factory
functions with ``device="sim"`` do too, so no function of torch is replaced. Nested tensors,
autocast and generators cannot be on it.
"""

from __future__ import annotations

import functools
import linecache
import sys
from collections.abc import Callable, Iterator, ValuesView
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat
import numpy
import torch
from torch.utils import _mode_utils, backend_registration
from torch.utils._pytree import tree_map

import repsim

NAME, KEY = "sim", "PrivateUse1"

WAITS = frozenset(
    "aten::" + name
    for name in (
        "_local_scalar_dense",
        "is_nonzero",
        "equal",
        # The size of the result depends on values.
        "nonzero",
        "masked_select",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "unique_dim_consecutive",
        "bincount",
        # CUDA looks whether they converged, or whether the matrix is singular.
        "_linalg_check_errors",
        "_linalg_eigh",
        "_linalg_eigvals",
        "_linalg_svd",
        "linalg_eig",
        "linalg_lstsq",
    )
)
"""Operations during which the host waits for a value of CUDA."""

BY_INDEX = frozenset(
    "aten::" + name for name in ("index", "index_put", "index_put_", "_index_put_impl_")
)

PASSED = (
    *(str(Path(each.__file__).parent) for each in (torch, numpy, array_api_compat)),
    __file__,
)
"""Files that are not the place of a read."""

SOURCE, TESTS = str(Path(repsim.__file__).parent), str(Path(__file__).parents[1])


class Wait(NamedTuple):
    """One place at which the host waited for the device.

    Attributes
    ----------
    operation : str
        What torch did.
    place : str
        The innermost line of repsim.
    of_model : bool
        Whether a line of another package read the value: the forward of a model does so on its own
        account.
    """

    operation: str
    place: str
    of_model: bool

    def __str__(self) -> str:
        return f"{self.operation} at {self.place}"


class Waited:
    """What the host waited for since the start, or since :meth:`clear`.

    Attributes
    ----------
    reads : list of Wait
        Values that the host read.
    uploads : list of Wait
        Copies from main memory without ``non_blocking=True``: CUDA returns when they are done.
    """

    def __init__(self) -> None:
        self.reads: list[Wait] = []
        self.uploads: list[Wait] = []

    def clear(self) -> None:
        self.reads.clear()
        self.uploads.clear()

    def ours(self) -> list[str]:
        """Return what was not the account of a model."""
        return [str(each) for each in (*self.reads, *self.uploads) if not each.of_model]


WAITED = Waited()


class Emulated(torch.Tensor):
    """A tensor on the device; ``near`` is the tensor in main memory."""

    near: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> Emulated:
        out = torch.Tensor._make_wrapper_subclass(
            cls,
            near.shape,
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=torch.device(NAME, 0),
        )
        out.near = near
        return out

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, *args, **(kwargs or {}))

    def __repr__(self) -> str:  # torch's own would read values
        return f"Emulated({tuple(self.shape)}, {self.dtype})"

    # What torch refuses, or answers without a value, for every tensor of another class.

    def tolist(self):
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.near.data_ptr()

    def untyped_storage(self):
        return self.near.untyped_storage()

    def __deepcopy__(self, memo):
        return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))


def _run(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute on the tensors in main memory, and note for what CUDA would have waited."""
    name = function._schema.name
    tensors = list(_tensors((args, kwargs.values())))
    given = [x for x in tensors if isinstance(x, Emulated)]
    copied = name == "aten::copy_"
    others = [x for x in tensors if not isinstance(x, Emulated) and (x.ndim or copied)]
    asked = kwargs.get("device")
    to_host = asked is not None and torch.device(asked).type != NAME
    down = (given and to_host) or (copied and not isinstance(args[0], Emulated))
    if down or name in WAITS or _by_mask(name, args):
        WAITED.reads.append(_wait(name))
    elif given and others:
        if not copied and name not in BY_INDEX:
            raise RuntimeError(f"Expected all tensors on one device: {name} got {tensors}")
        if not (kwargs.get("non_blocking") or args[2:3] == (True,)):
            WAITED.uploads.append(_wait(name))
    near_args = [_mapped(_near, x) for x in args]
    near_kwargs = {key: _mapped(_near, x) for key, x in kwargs.items()}
    if asked is not None and not to_host:
        near_kwargs["device"] = "cpu"
    out = function(*near_args, **near_kwargs)
    if torch.Tag.inplace_view in function.tags:  # squeeze_() inside a product, for example
        _change_shape(function, args, kwargs)
    for each in given:
        assert each.shape == each.near.shape, f"{name} changes the shape of a tensor in place"
    if to_host or not (given or asked is not None):
        return out
    mine = {id(x.near): x for x in given}  # an operation in place returns its argument

    def far(x: Any) -> Any:
        if type(x) is not torch.Tensor:
            return x
        return mine[id(x)] if id(x) in mine else Emulated(x)

    return far(out) if isinstance(out, torch.Tensor) else tree_map(far, out)


def _tensors(x: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors among arguments, which may be in lists."""
    for each in x:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, tuple | list | ValuesView):
            yield from _tensors(each)


def _mapped(function: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, tuple | list):
        return [_mapped(function, each) for each in x]
    return function(x)


def _near(x: Any) -> Any:
    return x.near if isinstance(x, Emulated) else x


def _by_mask(name: str, args: Any) -> bool:
    """Whether an index is a mask, whose true entries CUDA counts first."""
    return name in BY_INDEX and any(
        x.dtype in (torch.bool, torch.uint8) for x in args[1] if x is not None
    )


def _change_shape(function: Any, args: Any, kwargs: Any) -> None:
    """Give the tensor on the device its new shape, without computing anything."""
    before = torch._C._meta_in_tls_dispatch_include()
    with _mode_utils.no_dispatch():
        torch._C._set_meta_in_tls_dispatch_include(True)
        try:
            function(*args, **kwargs)
        finally:
            torch._C._set_meta_in_tls_dispatch_include(before)


def _wait(operation: str) -> Wait:
    """Find the innermost line of repsim, or else of a test, and who is inside it."""
    frame: Any = sys._getframe(2)
    of_model: bool | None = None
    shown = ""
    while frame is not None:
        path, function = frame.f_code.co_filename, frame.f_code.co_name
        # A mode of repsim passes every operation of a forward on.
        if not path.startswith(PASSED) and function != "__torch_function__":
            in_repsim = path.startswith(SOURCE)
            ours = in_repsim or path.startswith(TESTS)
            of_model = not ours if of_model is None else of_model
            if in_repsim or (ours and not shown):
                line = linecache.getline(path, frame.f_lineno).strip()
                shown = f"{Path(path).name}:{frame.f_lineno}, {function}: {line}"
            if in_repsim:
                break
        frame = frame.f_back
    return Wait(operation, shown, bool(of_model))


class _Backend:
    """What torch asks of a backend."""

    def is_initialized(self):
        return True

    def is_available(self):
        return True

    def current_device(self):
        return 0

    def device_count(self):
        return 1

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        """Random numbers come from the generator of the CPU."""

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]


def _copy_from(source: torch.Tensor, destination: torch.Tensor, non_blocking: bool = False):
    _run(torch.ops.aten.copy_.default, destination, source, non_blocking)
    return destination


_LIBRARIES: list[torch.library.Library] = []


def install() -> None:
    """Make the device known to torch, once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    everything, aten = (torch.library.Library(name, "IMPL") for name in ("_", "aten"))
    everything.fallback(_run, KEY)
    # torch.tensor() copies while subclasses are switched off, where torch 2.14 finds no fallback.
    aten.impl("_copy_from", _copy_from, KEY)
    # torch makes these by a resize in place, which a tensor of another class cannot follow.
    for packet in (torch.ops.aten.arange, torch.ops.aten.eye):
        for overload in packet.overloads():
            if "out" not in overload:
                operation = getattr(packet, overload)
                name = operation._schema.name + f".{overload}".removesuffix(".default")
                aten.impl(name, functools.partial(_run, operation), KEY)
    _LIBRARIES.extend((everything, aten))


def pytest_configure() -> None:
    """Install the device where this module is a plugin of pytest."""
    install()
