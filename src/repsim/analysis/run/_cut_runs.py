"""Ways to run a model on a few samples of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from torch import nn

from repsim._errors import RepsimError
from repsim.analysis._devices import device_of
from repsim.analysis._machine import is_of_the_machine
from repsim.analysis.run._drive import Batch, Forward
from repsim.analysis.run._kept_state import kept_state
from repsim.capture import unwrap
from repsim.capture.samples import ORDERS, SIZES, have_one_size, lengths_in, taken, uncut_indices

__all__ = ["BatchRefusedError", "CutRun", "answers", "input_of", "on_accelerator", "refusing"]

Answer = TypeVar("Answer")


class BatchRefusedError(Exception):
    """A model does not run on a changed batch; the cause is its error."""


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raise a BatchRefusedError where a model raises an error on a changed batch.

    Such an error is an answer too. Errors of ours, of memory, of a device and between ranks are
    none, so they go on.

    Parameters
    ----------
    what : str
        How the batch was changed and why, for a note on an error that goes on.
    """
    try:
        yield
    except RepsimError:
        raise
    except Exception as error:  # a model may refuse with an error of any type
        if is_of_the_machine(error):
            error.add_note(f"repsim: in a forward of {what}")
            raise
        raise BatchRefusedError from error


@dataclass(frozen=True)
class CutRun:
    """One way to run a model on a few samples of a batch.

    Attributes
    ----------
    n : int or None
        How many samples the batch would have; None where ``forward=`` makes them.
    packed : bool
        Whether one axis would hold several rows of each sample.
    run : callable
        Runs the model on this many of them, and leaves it as it was.
    """

    n: int | None
    packed: bool
    run: Callable[[int], None]


def answers(
    batch: Batch,
    model: nn.Module,
    forward: Forward | None,
    n: int | None,
    ask: Callable[[Callable[[int], None]], Answer],
) -> Iterator[tuple[CutRun, Answer | BatchRefusedError]]:
    """Yield what a model answers to each way in which a batch may hold samples.

    The likeliest way comes first.

    Parameters
    ----------
    batch : Batch
        The batch, prepared for the model.
    model : torch.nn.Module
        The model.
    forward : callable, optional
        How it is called.
    n : int, optional
        The number of samples, if it is declared.
    ask : callable
        Calls its argument, which runs the model on a number of samples, and returns the answer.

    Yields
    ------
    tuple
        The way, and the answer: a BatchRefusedError if the model raised an error on the cut batch.
    """
    for way in _cut_runs(batch, model, forward, n):
        try:
            answer = ask(way.run)
        except BatchRefusedError as refusal:
            yield way, refusal
        else:
            yield way, answer


def _cut_runs(
    batch: Batch, model: nn.Module, forward: Forward | None, n: int | None
) -> Iterator[CutRun]:
    """Yield the ways in which a batch may hold samples, the likeliest first."""
    given = input_of(batch.value, forward)
    careful = on_accelerator(model)
    for number, packed in _numbers(given, n):
        # An index beyond what is left would end the process's use of an accelerator.
        if not (careful and uncut_indices(given, number, packed=packed)):
            run = partial(_run_cut, batch, model, forward, number, packed)
            yield CutRun(number, packed, run)
    if forward is not None and n is None:
        yield CutRun(None, False, partial(_run_cut_inside, batch, model, forward))


def input_of(batch: Any, forward: Forward | None) -> Any:
    """Return what the model gets of a batch: the first item of a tuple or list."""
    if forward is None and isinstance(batch, list | tuple) and batch:
        return batch[0]
    return batch


def _numbers(given: Any, n: int | None) -> Iterator[tuple[int, bool]]:
    """Yield the numbers of samples that a batch may have, and whether rows are packed."""
    found = list(lengths_in(given))
    lengths = [length for length, _ in found]
    if n is None:
        # A list of more than three like items is likely to hold one for each sample.
        lists = [length for length, alike in found if alike and length > max(SIZES)]
        numbers: Sequence[int] = [number for number in dict.fromkeys(lists + lengths) if number]
    else:
        numbers = [n] if n else []
    yield from ((number, False) for number in numbers if number in lengths)
    for number in numbers:
        multiples = any(length > number and length % number == 0 for length in lengths)
        if number > max(SIZES) and multiples and have_one_size(given, number):
            yield number, True


def _run_cut(
    batch: Batch, model: nn.Module, forward: Forward | None, n: int, packed: bool, size: int
) -> None:
    with kept_state(model), refusing(_what(size)):
        part = _few(input_of(batch.value, forward), n, size, packed=packed)
        replace(batch, value=part).run(model, forward=forward)


def _few(batch: Any, n: int, size: int, *, packed: bool = False) -> Any:
    return taken(batch, n, [row % n for row in ORDERS[size]], packed=packed)


def _what(size: int) -> str:
    return f"{size} samples, to find which axis holds them; batch_dim= makes it needless"


def _run_cut_inside(batch: Batch, model: nn.Module, forward: Forward, size: int) -> None:
    """Cut what ``forward=`` makes of the batch, where the model gets it."""
    careful = on_accelerator(model)

    def cut_input(_module: object, args: Any, kwargs: Any) -> Any:
        n = next((length for length, _ in lengths_in((args, kwargs))), 0)
        if n == 0 or (careful and uncut_indices((args, kwargs), n, packed=False)):
            raise ValueError("the input of the model cannot be cut")
        return _few((args, kwargs), n, size)

    handle = unwrap(model).register_forward_pre_hook(cut_input, with_kwargs=True, prepend=True)
    try:
        with kept_state(model), refusing(_what(size)):
            batch.run(model, forward=forward)
    finally:
        handle.remove()


def on_accelerator(model: nn.Module) -> bool:
    """Whether an index beyond an array would end the process's use of the model's device."""
    device = device_of(model)
    return device is not None and device.type not in ("cpu", "meta")
