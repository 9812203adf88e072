"""Recording what the layers of an unmodified torch model return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from repsim._errors import CaptureError, MissingLabelError
from repsim._options import require_bool
from repsim.capture._bound import BoundTransform, bound_in
from repsim.capture._hooks import OneThread, eagerly, in_backward, refuse_replica
from repsim.capture._masks import MaskOption, Masks
from repsim.capture._output import Select, UnusableOutput, pick
from repsim.capture._transform import Applied, Transform
from repsim.capture.layers._left_out import LeftOut
from repsim.capture.layers._missing import require_all_ran, why_missing
from repsim.capture.layers._no_ops import NoOps
from repsim.capture.layers._select import Layer, Layers, select_layers
from repsim.capture.samples._axes import BatchAxis
from repsim.capture.samples._declared import BatchDim

__all__ = ["Recorder"]


@dataclass(frozen=True)
class _Record:
    value: Any
    shape: tuple[int, ...]


class Recorder(Mapping[str, Any]):
    """Record the outputs of a model's layers while a ``with`` block runs.

    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True))
    >>> with Recorder(net, ["1", nn.ReLU]) as rec:
    ...     y = net(torch.ones(3, 4))
    >>> {label: tuple(value.shape) for label, value in rec.items()}
    {'1': (3, 8), '2': (3, 8)}
    >>> torch.equal(rec["2"], y)
    True

    A mapping from label to value in the order in which the calls completed. A label is the name of
    the module, or ``name:0``, ``name:1``, ... if the module ran several times in the forward. The
    recorder holds the latest forward; calling the model again replaces it. If only parts of the
    model are called (``model.forward_features(x)``), it holds everything since the block was
    entered or :meth:`clear` was called. It stays readable after the block.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper. The recorder removes all its hooks, and it does not touch
        train/eval flags, device or random state.
    layers : str, re.Pattern, module type, callable, or a list of these, default ``"*"``
        As in :func:`select_layers`. A layer with an exact name must run and return a batch. A layer
        found by a glob, a type or a callable is left out if it does not.
    transform : {"flatten", "cls", "first", "last", "mean"}, callable or None, optional
        What to keep of an output, batch first. It runs inside the hook, without autocast, on the
        tensor that the model continues to use, so do not modify it. None keeps a copy. A result
        that shares memory with the output is copied because in-place operations overwrite it later.
        A callable whose attribute ``wants_layer`` is true is called with (tensor, layer, call).
    mask
        Which positions are real, as in :func:`repsim.compare`.
    select : callable, int or str, optional
        Which tensor to take from an output that is not a tensor: output -> tensor, an index, a key.
        By default the first floating-point tensor with at least one axis, depth first.
    batch_dim : int, mapping of str to int, or None, optional
        The batch axis of the outputs, moved to the front before the transform; a mapping gives it
        by name or glob. It is trusted. By default axis 0, of the size of the input's axis 0.
    detach : bool, default True
        Whether to cut the values from the autograd graph.
    all_modules : bool, default False
        Whether a glob that ends in ``*`` also takes layers that return their input unchanged, such
        as identities, and dropout in evaluation. A name, a type or another pattern always does.

    Attributes
    ----------
    enabled : bool
        If False, nothing is recorded. For recorders of two models that share modules.
    gathers : bool
        If True, all calls of the model since :meth:`clear` are one forward. By default False.

    Raises
    ------
    LayerNotFoundError
        A layer does not exist (on construction), or a layer with an exact name did not run (when
        the model's forward ends, or on reading or leaving the block if it was not called).
    CaptureError
        A layer cannot be recorded, its output is not a batch, no layer remains to record, or two
        threads call the model at the same time.

    Warns
    -----
    RepsimWarning
        Layers found by a glob, type or callable were left out because axis 0 is not the batch. Each
        is reported once and stays out for the lifetime of the recorder.

    Notes
    -----
    Compiled code runs eagerly inside the block because hooks added after ``torch.compile`` are
    never called. With any hooks, ``nn.TransformerEncoderLayer`` takes its slow path; results agree
    up to rounding. Modules that activation checkpointing runs again in the backward pass are not
    recorded twice. Forwards in several threads are not supported.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers = "*",
        *,
        transform: Transform = None,
        mask: MaskOption = "auto",
        select: Select | None = None,
        batch_dim: BatchDim = None,
        detach: bool = True,
        all_modules: bool = False,
    ) -> None:
        require_bool("Recorder", "all_modules", all_modules)
        self.enabled = True
        self.gathers = False
        self._model = model
        self._layers = select_layers(model, layers)
        self._bound = BoundTransform("Recorder", transform, model, Masks("Recorder", mask))
        self._watched = bound_in(transform) or self._bound
        self._apply = Applied(self._bound if self._bound.needs_batch else transform, detach=detach)
        self._select = select
        self._axis = BatchAxis(batch_dim, self._layers, select)

        # For the recorder's lifetime:
        self._stack: ExitStack | None = None
        self._left_out = LeftOut()
        self._no_ops = NoOps(() if all_modules else self._layers)
        self._ever_settled = False
        self._threads = OneThread()

        # Of the latest forward:
        self._depth = 0
        self._records: dict[tuple[str, int], _Record] = {}
        self._calls: Counter[str] = Counter()
        self._settled_labels: dict[str, tuple[str, int]] | None = None
        self._root_called = False
        self._succeeded = self._failed = self._pending = False

    def __enter__(self) -> Recorder:
        if self._stack is not None:
            raise CaptureError("Recorder: already recording.\n  Make a second Recorder to nest.")
        self._depth = 0
        self._threads.forget()
        self.clear()
        with ExitStack() as stack:
            stack.enter_context(eagerly())
            stack.enter_context(self._watched.watching())
            for handle in self._register():
                stack.callback(handle.remove)
            # Not earlier: if registering a hook raises, the `with` removes the previous hooks.
            self._stack = stack.pop_all()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if self._stack is not None:
            self._stack.close()
            self._stack = None
        self._depth = 0  # always_call hooks are not called on a KeyboardInterrupt
        # After clear() there is nothing to check, unless nothing ever ran.
        unread = self._pending and not self._root_called
        if exc_type is None and unread and (self._calls or not self._ever_settled):
            self._settle()

    def clear(self, batch_size: int | None = None) -> None:
        """Drop the records, before a forward that may not call the model itself.

        Parameters
        ----------
        batch_size : int, optional
            The number of samples that outputs must have, instead of the size of the input's axis 0.
            It holds until the next call of this method. By default the input of the model decides;
            if the model itself is not called, sizes are not checked.
        """
        self._start()
        self._axis.reset(batch_size)
        self._root_called = False

    @property
    def axes(self) -> BatchAxis:
        """Which axes of outputs hold the samples."""
        return self._axis

    @property
    def n_samples(self) -> int | None:
        """The number of samples of the last forward; None where layers disagree."""
        counts = {self._records[key].shape[0] for key in self._labels().values()}
        return counts.pop() if len(counts) == 1 else None

    def leave_out(self, labels: Iterable[str], problem: UnusableOutput) -> None:
        """Leave out layers from now on, with a warning, if no exact name requested them."""
        known = self._labels()
        requested = {layer.name: layer for layer in self._layers}
        for name, call in [known[label] for label in labels]:
            if not requested[name].requires(call):
                self._left_out[name, call] = problem
                del self._records[name, call]
        self._settled_labels = None
        self._left_out.report((), anything_ran=True, recorded=True)

    def __getitem__(self, label: str) -> Any:
        labels = self._labels()
        if label not in labels:
            chosen = (self._model, self._layers)
            known = (list(labels), self._calls, self._left_out)
            raise MissingLabelError(why_missing(label, *known, *chosen, failed=self._failed))
        return self._records[labels[label]].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels())

    def __len__(self) -> int:
        return len(self._labels())

    def __repr__(self) -> str:
        return (
            f"<Recorder of {type(self._layers.root).__name__}: "
            f"{len(self._layers)} layers chosen, {len(self._records)} records>"
        )

    # Compare by identity, because tensors do not compare to a single bool.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def _labels(self) -> dict[str, tuple[str, int]]:
        if self._pending and self._depth == 0:
            self._settle()
        if self._settled_labels is not None:  # reading all values calls this once per value
            return self._settled_labels
        labels = {
            name if self._calls[name] == 1 else f"{name}:{call}": (name, call)
            for name, call in self._records
        }
        if not self._pending:
            self._settled_labels = labels
        return labels

    # -- hooks -----------------------------------------------------------------------------------

    def _register(self) -> Iterator[Any]:
        """Place the hooks one by one, so the caller can remove those that exist."""
        root = self._layers.root
        yield root.register_forward_pre_hook(self._enter_root, with_kwargs=True)
        if self._axis.is_assumed:
            yield from self._axis.watch(self._is_recording)
        yield from self._no_ops.watch(self._is_recording)
        for layer in self._layers:
            yield layer.module.register_forward_hook(self._record_hook(layer))
        yield root.register_forward_hook(self._finish_root)
        yield root.register_forward_hook(self._leave_root, always_call=True)

    def _is_recording(self) -> bool:
        return self.enabled and not in_backward()

    def _enter_root(self, _module: nn.Module, args: tuple[Any, ...], kwargs: object) -> None:
        if in_backward():
            return
        self._threads.check()
        self._depth += 1
        if self._depth == 1 and self.enabled:
            if not (self.gathers and self._root_called):
                self._start()
            self._root_called = True
            self._axis.read_input(args, kwargs)
            self._bound.start(kwargs or (args[0] if args else None), (args, kwargs))

    def _finish_root(self, *_: object) -> None:
        """Runs when the forward succeeded."""
        if self._depth == 1 and self.enabled and not in_backward() and self._threads.is_this:
            self._succeeded = True
            if not self.gathers:
                self._settle()

    def _leave_root(self, *_: object) -> None:
        """Runs in any case."""
        # At depth 0 another pre-hook raised before ours.
        if in_backward() or self._depth == 0 or not self._threads.is_this:
            return
        self._depth -= 1
        if self._depth == 0 and self.enabled and not self._succeeded:
            self._start()  # an incomplete forward is not a recording
            self._failed, self._pending = True, False

    def _record_hook(self, layer: Layer) -> Callable[[nn.Module, object, object], None]:
        def record(module: nn.Module, _args: object, output: object) -> None:
            if not self._is_recording():
                return
            refuse_replica(layer.name, module)
            self._threads.check()
            call = self._calls[layer.name]
            self._calls[layer.name] += 1
            self._pending, self._settled_labels = True, None
            if not layer.wants(call) or (layer.name, call) in self._left_out:
                return
            try:
                taken = pick(output, layer.name, self._select)
                self._no_ops.check(layer, taken)
                tensor = self._axis.first(taken, layer.name, call)
                value = self._apply(tensor, layer.name, call)
            except UnusableOutput as problem:
                if layer.requires(call):
                    raise
                self._left_out[layer.name, call] = problem
                return
            self._records[layer.name, call] = _Record(value, tuple(tensor.shape))

        return record

    def _start(self) -> None:
        self._records = {}
        self._calls = Counter()
        self._settled_labels = None
        self._succeeded = self._failed = False
        self._pending = True

    def _settle(self) -> None:
        """Checks that are possible only after the forward."""
        require_all_ran(self._layers, self._calls)
        self._drop_contradicted()
        idle = [name for name in self._layers.names if not self._calls[name]]
        ran = bool(self._calls)
        self._left_out.report(idle, anything_ran=ran, recorded=bool(self._records))
        if not self._records:
            names, called = self._layers.names, self._root_called
            raise CaptureError(self._left_out.why_empty(names, anything_ran=ran, called=called))
        self._ever_settled = True
        self._pending = False
        self._no_ops.end()

    def _drop_contradicted(self) -> None:
        chosen = {layer.name: layer for layer in self._layers}
        counts = {record.shape[0] for record in self._records.values()}
        for (name, call), record in list(self._records.items()):
            problem = self._axis.contradiction(name, record.shape, counts)
            if problem is None:
                continue
            if chosen[name].requires(call):
                raise problem
            self._left_out[name, call] = problem
            del self._records[name, call]
