"""Driving a model over data, and restoring both afterwards."""

from __future__ import annotations

import logging
import operator
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm.auto import tqdm

from repsim._errors import InputError, warn
from repsim._options import require_bool
from repsim.analysis._call import Forward, Prepare, call_model, keywords_in, prepared_for
from repsim.analysis._devices import kept_random_state
from repsim.analysis.run._local_forwards import local_forwards
from repsim.capture import evaluating, refuse_meta
from repsim.capture.samples import own_copy

logger = logging.getLogger("repsim")

__all__ = [
    "Batch",
    "Forward",
    "Prepare",
    "as_found",
    "each_batch",
    "each_pass",
    "warn_of_ranks",
]


@contextmanager
def as_found(operation: str, *models: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Run models in evaluation mode; restore their modes and the random state afterwards.

    Without ``gradients`` no graph is recorded. Wrappers of torch.distributed exchange no buffers. A
    module whose weights hold no values raises an error when it runs.
    """
    with (
        kept_random_state(*models),
        torch.set_grad_enabled(gradients),
        local_forwards(*models),
        evaluating(*models),
        ExitStack() as stack,
    ):
        for model in models:
            stack.enter_context(refuse_meta(operation, model))
        yield


@dataclass(frozen=True)
class Batch:
    """One batch of the data of an analysis.

    Attributes
    ----------
    operation : str
        The analysis, for errors.
    value : object
        The batch of the data.
    number : int
        Its place in its pass over the data, counted from 0.
    is_first : bool
        Whether it is the first that the models get in its pass: batches of repeated samples are
        left out.
    ids : sequence or None
        The ids of its samples, if the caller gives them.
    """

    operation: str
    value: Any
    number: int
    is_first: bool = False
    ids: Sequence[Any] | None = None

    def n_samples(self, *seen: int) -> int:
        """Return the number of samples: of the ids, or the first of the numbers that were seen.

        Raises
        ------
        InputError
            The caller gave another number of ids than was seen.
        """
        if self.ids is None:
            return seen[0]
        if len(self.ids) not in seen:
            raise InputError(
                f"{self.operation}: sample_ids must give one id for each sample.\n"
                f"  got {len(self.ids)} ids for a batch of {seen[0]}"
            )
        return len(self.ids)

    def prepared(self, model: nn.Module, prepare: Prepare | None, forward: Forward | None) -> Batch:
        """Return the batch as prepared for a model, on the model's device.

        Functions of the caller get a copy, because they may change it. Without them
        ``call_model`` makes one for each forward, on the device of the model.
        """
        careful = prepare is not None or forward is not None
        value = own_copy(self.value) if careful else self.value
        value = prepared_for(self.operation, model, value, prepare)
        return replace(self, value=value if forward is not None else keywords_in(value))

    def own(self) -> Batch:
        """Return a copy, for a forward that must leave no change in the batch."""
        return replace(self, value=own_copy(self.value))

    def run(
        self, model: nn.Module, prepare: Prepare | None = None, forward: Forward | None = None
    ) -> object:
        """Call a model on the batch after preparing it."""
        return call_model(self.operation, model, self.value, prepare, forward)


@contextmanager
def each_batch(
    operation: str,
    data: Iterable[Any] | None,
    *models: nn.Module,
    progress: bool,
    gradients: bool = False,
    warn_of_others: bool = True,
) -> Iterator[Iterator[Batch]]:
    """Yield the batches of one pass over the data, with the models in evaluation mode.

    >>> model = nn.Linear(2, 1)
    >>> with each_batch("sizes", [torch.ones(3, 2)], model, progress=False) as batches:
    ...     [tuple(batch.run(model).shape) for batch in batches], model.training
    ([(3, 1)], False)
    >>> model.training
    True

    The models are restored afterwards (:func:`as_found`; without models this is up to the caller).
    However the pass ends, the progress bar and the iterator of the data are closed. It warns of
    other ranks unless the caller has.
    """
    if warn_of_others:
        warn_of_ranks(operation, "Run it on one rank, with all of the data.")
    with (
        as_found(operation, *models, gradients=gradients) if models else nullcontext(),
        closing(each_pass(operation, data, passes=1, progress=progress)) as passes,
    ):
        yield chain.from_iterable(passes)


def warn_of_ranks(operation: str, repair: str) -> None:
    """Warn that a result is of one rank, if torch.distributed has several."""
    ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if ranks > 1:
        warn(
            f"{operation}: the result is of the data of this rank alone.\n"
            f"  torch.distributed has {ranks} ranks, and this call does not combine them\n"
            f"  {repair}"
        )


def each_pass(
    operation: str,
    data: Iterable[Any] | None,
    *,
    passes: int,
    progress: bool,
    may_be_empty: bool = False,
) -> Generator[Iterator[Batch]]:
    """Yield one iterator over the batches for every pass, under one progress bar.

    Raises
    ------
    InputError
        If ``data`` is a single tensor or mapping, is empty, has a batch without samples, or can be
        iterated only once although several passes are requested.
    """
    require_bool(operation, "progress", progress)
    no_batches = isinstance(data, Tensor | Mapping | str) or getattr(data, "ndim", 1) == 0
    if no_batches or not isinstance(data, Iterable):
        raise InputError(
            f"{operation}: data must be an iterable of batches.\n  got {type(data).__name__}\n"
            f"  Pass a DataLoader, or a list: data=[batch] for a single batch."
        )
    if passes > 1 and isinstance(data, Iterator):
        raise InputError(
            f"{operation}: data can be iterated only once, and passes={passes}.\n"
            f"  got {type(data).__name__}\n"
            f"  Pass a DataLoader with shuffle=True, or any iterable that starts afresh."
        )
    total = operator.length_hint(data) * passes or None  # a streaming loader has no length
    with tqdm(total=total, unit="batch", desc=operation, disable=not progress) as bar:
        for each in range(passes):
            seen = 0

            def one_pass() -> Generator[Batch]:
                nonlocal seen
                for value in data:
                    _require_samples(operation, value, seen)
                    yield Batch(operation, value, seen, is_first=not seen)
                    seen += 1
                    bar.update()

            began = monotonic()
            logger.info("%s: pass %d of %d over the data", operation, each + 1, passes)
            with closing(one_pass()) as batches:
                yield batches
            logger.info("%s: %d batches in %.1f s", operation, seen, monotonic() - began)
            if not seen and not may_be_empty:
                raise InputError(
                    f"{operation}: data gave no batch in pass {each + 1}.\n"
                    f"  Is the folder empty, or drop_last=True with fewer samples than a batch?"
                )


def _require_samples(operation: str, batch: object, number: int) -> None:
    """Raise if a batch has no samples, as a filter of samples may leave it."""
    batch = keywords_in(batch)
    tensors: list[Any] = [batch]
    if isinstance(batch, Mapping):
        tensors = list(batch.values())
    elif isinstance(batch, list | tuple):
        tensors = list(batch[:1])
    whole = [each for each in tensors if isinstance(each, Tensor) and not each.is_nested]
    shapes = [each.shape for each in whole if each.ndim]
    if shapes and all(0 in shape for shape in shapes):
        raise InputError(
            f"{operation}: every batch must have samples.\n"
            f"  batch {number} (counted from 0): {tuple(shapes[0])}\n"
            f"  Leave it out of the data."
        )
