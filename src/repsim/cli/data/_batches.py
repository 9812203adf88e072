"""Batches of a data set, in a seeded order, decoded once for all models."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.cli._outcome import DataError
from repsim.cli._session import Session
from repsim.cli.data._samples import Samples
from repsim.cli.models._preparation import Preparation

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BadSamples", "Batches", "Side", "chosen_samples"]


class _Unreadable(Exception):  # noqa: N818 - never seen outside
    """A sample that cannot be read, and why."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass
class BadSamples:
    """The samples that could not be read, each named once.

    Attributes
    ----------
    stop : bool
        Whether the first one raises.
    reasons : dict of str to str
        The reasons, by sample.
    """

    stop: bool = False
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, error: Exception) -> None:
        """Record a sample, or raise."""
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        if self.stop:
            raise DataError(
                f"an image cannot be read.\n  {key}: {reason}\n"
                f"  Remove it, or leave such images out with --on-bad-image skip."
            ) from error
        self.reasons[key] = reason

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of a result about them."""
        return {"n_bad_images": len(self.reasons), "bad_images": json.dumps(sorted(self.reasons))}

    def tell(self, session: Session) -> None:
        """Report them at the end."""
        if not self.reasons:
            return
        some = sorted(self.reasons.items())[:10]
        listed = "".join(f"\n  {key}: {reason}" for key, reason in some)
        more = len(self.reasons) - len(some)
        session.note(
            f"note: {len(self.reasons)} image{'s' if len(self.reasons) > 1 else ''} could not be "
            f"read and {'were' if len(self.reasons) > 1 else 'was'} left out:{listed}"
            + (f"\n  and {more} more" if more else "")
        )


@dataclass(frozen=True)
class Side:
    """The input of one model from a batch: its ``prepare=``.

    Attributes
    ----------
    name : str
        The key in the batch, also used in checkpoints.
    """

    name: str

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Return the input of this model."""
        return batch[self.name]


def chosen_samples(samples: Samples, limit: int | None, seed: int) -> np.ndarray[Any, Any]:
    """Return the numbers of the samples in a random order, at most ``limit`` of them.

    The order matters because the files of a class are adjacent in a folder, and batches of one
    class would not show the differences between classes.
    """
    return np.random.default_rng(seed).permutation(len(samples))[:limit]


class Batches:
    """Batches of prepared samples; each pass has a different order.

    Parameters
    ----------
    samples : Samples
        The data set.
    order : array of int
        Which samples; the order of the first pass.
    preparations : sequence of Preparation or None
        How each model gets its images; None if samples are passed unchanged.
    batch_size : int
        Samples in a batch. Bad ones are replaced by the next, so only the last is short.
    seed : int
        Seed of the orders of later passes.
    bad : BadSamples
        Records samples that cannot be read.
    workers : int
        Threads that decode.
    alone : bool
        Whether a batch is the input of one model; otherwise a mapping with the input of each model
        under the name of its side, and the names of the samples. The input is a tensor, or keywords
        if the samples have a mask.
    labelled : bool
        Whether a batch of one model has its labels, too.
    """

    def __init__(
        self,
        samples: Samples,
        order: np.ndarray[Any, Any],
        preparations: Sequence[Preparation | None],
        *,
        batch_size: int,
        seed: int,
        bad: BadSamples,
        workers: int,
        alone: bool = False,
        labelled: bool = False,
    ) -> None:
        self.samples, self.order, self.batch_size = samples, order, batch_size
        self.bad, self.workers = bad, workers
        self.alone, self.labelled = alone, labelled
        self._seed, self._passes = seed, 0
        # One tensor for models that prepare images in the same way.
        self._kinds: dict[str, Preparation | None] = {}
        names: list[str] = []
        for each in preparations:
            label = "" if each is None else each.label
            self._kinds.setdefault(label, each)
            names.append(f"input {list(self._kinds).index(label)}")
        sides = {name: Side(name) for name in names}
        self.sides = [sides[name] for name in names]

    def __len__(self) -> int:
        """Return the number of batches of a pass, if all samples can be read."""
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the next pass."""
        order = self.order
        if self._passes:
            order = np.random.default_rng((self._seed, self._passes)).permutation(order)
        self._passes += 1
        waiting: list[tuple[int, list[Tensor]]] = []
        seen = False
        for at, tensors in self._read(order):
            waiting.append((at, tensors))
            if len(waiting) == self.batch_size:
                seen = True
                yield self._batch(waiting)
                waiting = []
        if waiting:
            yield self._batch(waiting)
        elif not seen and len(order):
            raise DataError(
                f"no sample of {self.samples.name} can be read.\n"
                f"  {next(iter(self.bad.reasons.items()), ('', ''))[1]}"
            )

    def _read(self, order: np.ndarray[Any, Any]) -> Iterator[tuple[int, list[Tensor]]]:
        """Decode ahead in threads; yield the readable samples in order."""
        ahead: deque[tuple[int, Future[list[Tensor]]]] = deque()
        pool = ThreadPoolExecutor(self.workers)
        try:
            for at in map(int, order):
                ahead.append((at, pool.submit(self._prepared, at)))
                if len(ahead) > self.batch_size + self.workers:
                    yield from self._finished(*ahead.popleft())
            while ahead:
                yield from self._finished(*ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _finished(
        self, at: int, future: Future[list[Tensor]]
    ) -> Iterator[tuple[int, list[Tensor]]]:
        try:
            tensors = future.result()
        except _Unreadable as error:
            self.bad.add(self.samples.key(at), error.reason)
            return
        yield at, tensors

    def _prepared(self, at: int) -> list[Tensor]:
        import torch

        try:
            sample = self.samples.read(at)
        except MemoryError:
            raise
        # Decoders raise many errors for damaged files: report the file, or stop the run.
        except Exception as error:
            raise _Unreadable(error) from error
        if not self.samples.are_images:
            return [torch.from_numpy(np.array(sample))]
        return [each(sample) for each in self._kinds.values() if each is not None]

    def _batch(self, waiting: list[tuple[int, list[Tensor]]]) -> Any:
        import torch

        inputs: list[Any] = [
            torch.stack(column) for column in zip(*(t for _, t in waiting), strict=True)
        ]
        numbers = [at for at, _ in waiting]
        if self.samples.mask is not None:
            mask = torch.from_numpy(self.samples.mask[numbers])
            inputs = [{"input_ids": each, "attention_mask": mask} for each in inputs]
        if self.alone:
            if not self.labelled or self.samples.labels is None:
                return inputs[0]
            labels = torch.from_numpy(self.samples.labels[numbers].astype(np.int64))
            if self.samples.mask is not None:
                return {**inputs[0], "labels": labels}
            return inputs[0], labels
        return {
            **{f"input {k}": each for k, each in enumerate(inputs)},
            "samples": [self.samples.key(at) for at in numbers],
        }
