"""Passes over the data that compare the same layers of several models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from torch import nn

from repsim._errors import InputError
from repsim._typing import KernelName
from repsim.analysis.maps._rank_grams import check_one_bandwidth
from repsim.analysis.maps._side import GramSide, RecordedSide
from repsim.analysis.run._provenance import model_label
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import Ranks
from repsim.analysis.training._checkpoints import of_steps
from repsim.analysis.training._same_layers import SameLayers, of_all_ranks, values_of_layers
from repsim.kernels import Kernel, resolve_kernel
from repsim.results import BETWEEN_STEPS, TRAJECTORY, step_label

if TYPE_CHECKING:
    import xarray

__all__ = ["GramPasses", "Passes", "Round"]

Side = TypeVar("Side", bound=RecordedSide)


class Round(NamedTuple):
    """The models of one pass.

    Attributes
    ----------
    models : dict of number to torch.nn.Module
        By step.
    reference : torch.nn.Module
        The model with which each is compared; it may be one of them. Without a label it is the
        first of them.
    label : str or None
        The name of the reference; None: the models are compared with each other.
    """

    models: Mapping[float, nn.Module]
    reference: nn.Module
    label: str | None

    @property
    def names(self) -> list[str]:
        """The models, for errors."""
        return [f"step {step_label(step)}" for step in self.models]


class Passes(ABC, Generic[Side]):
    """Passes over the data, each with its models, and what they found.

    Parameters
    ----------
    side : callable
        Returns the recorded side of a model; it takes ``tokens=``.
    tokens : callable
        Returns the token samples of a pass; None if inputs are the samples.

    Attributes
    ----------
    described : dict
        The kernel and the estimator, if there are any.
    counts : dict
        Samples and batches, the same in every pass.
    duplicates : int
        The samples of one pass that were left out because they came before.
    report : dict
        What the token samples counted.
    model_name : str
        The class of the models.
    """

    def __init__(
        self, side: Callable[..., Side], tokens: Callable[[], TokenSamples | None]
    ) -> None:
        self._side, self._tokens = side, tokens
        self.described: dict[str, str] = {}
        self.counts: dict[str, int] = {}
        self.duplicates = 0
        self.report: dict[str, Any] = {}
        self.model_name = ""

    def run(self, these: Round) -> None:
        """Compare the models of one pass."""
        tokens = self._tokens()
        main = self._side(these.reference, tokens=tokens)
        # A model that is the reference runs once.
        sides = [
            main if model is these.reference else self._side(model, tokens=tokens)
            for model in these.models.values()
        ]
        counts = self._run(these, main, sides, tokens)
        if self.counts and counts != self.counts:
            raise InputError(
                f"trajectory: every pass must give the same number of samples and batches.\n"
                f"  before: {self.counts}    in the pass of {', '.join(these.names)}: {counts}\n"
                f"  Is data an iterable that starts afresh each time?"
            )
        self.counts = counts
        self.report = {} if tokens is None else tokens.report()
        self.model_name = model_label(these.reference, None)

    @abstractmethod
    def _run(
        self, these: Round, main: Side, sides: Sequence[Side], tokens: TokenSamples | None
    ) -> dict[str, int]:
        """Go over the data once, and return what was counted."""

    def merge(self) -> None:
        """Add what the other ranks found. It is called on all ranks, after the last pass."""

    @abstractmethod
    def dataset(self, steps: Sequence[float], *, together: bool) -> xarray.Dataset:
        """Return the result of all passes."""


@contextmanager
def all_active(sides: Sequence[RecordedSide]) -> Iterator[None]:
    """Keep the hooks of all sides active."""
    with ExitStack() as stack:
        for side in sides:
            stack.enter_context(side)
        yield


class GramPasses(Passes[GramSide]):
    """CKA, from the Grams of each batch.

    Parameters
    ----------
    side : callable
        As in :class:`Passes`, but it also takes the operation and ``kernel=``.
    tokens : callable
        As in :class:`Passes`.
    ranks : Ranks
        The ranks that share the batches.
    data, progress
        As in :func:`repsim.trajectory`.
    kernel : str or Kernel, optional
        The kernel of the Grams, by default linear.
    """

    def __init__(
        self,
        side: Callable[..., GramSide],
        tokens: Callable[[], TokenSamples | None],
        ranks: Ranks,
        data: Iterable[Any],
        progress: bool,
        kernel: KernelName | Kernel | None,
    ) -> None:
        chosen: Kernel = resolve_kernel("trajectory", "linear" if kernel is None else kernel)
        check_one_bandwidth(ranks, chosen)
        super().__init__(partial(side, "trajectory", kernel=chosen), tokens)
        self.described = {"kernel": repr(chosen), "estimator": "minibatch unbiased"}
        self._ranks, self._kernel = ranks, chosen
        self._batches = partial(ranks.each_batch, data, progress=progress)
        self._latest: TokenSamples | None = None
        self._sums: dict[float | None, SameLayers] = {}

    def _run(
        self, these: Round, main: GramSide, sides: Sequence[GramSide], tokens: TokenSamples | None
    ) -> dict[str, int]:
        models = dict(zip(these.names, these.models.values(), strict=True))
        if these.label is not None:
            models |= {these.label: these.reference}
        self._ranks.agree_on(models)
        duplicates, self._latest = self._ranks.duplicates, tokens
        sums: dict[float | None, SameLayers] = {}
        if these.label is None:
            together = sums[None] = SameLayers("trajectory", these.names, None, self._kernel)
        else:
            for step, name in zip(these.models, these.names, strict=True):
                sums[step] = SameLayers("trajectory", [name], these.label, self._kernel)
        centred = dict if tokens is None else tokens.centred
        running = list(dict.fromkeys([main, *sides]))
        with self._batches(*(side.model for side in running)) as batches, all_active(running):
            for batch in batches:
                main.start_tokens(batch)
                expected = centred(main.run_recorded(batch))
                batch.n_samples(main.n_samples)
                found = (
                    expected if side is main else centred(side.run_recorded(batch))
                    for side in sides
                )
                if these.label is None:
                    together.add(list(found))
                else:
                    for each, grams in zip(sums.values(), found, strict=True):
                        each.add([grams], expected)
                if tokens is not None:
                    tokens.count()
        self._sums |= sums
        self.duplicates = self._ranks.duplicates - duplicates
        return next(iter(sums.values())).counts

    def merge(self) -> None:
        """Add the sums of the other ranks."""
        merged = of_all_ranks(self._ranks, list(self._sums.values()), self._latest)
        self._sums = dict(zip(self._sums, merged, strict=True))
        self.counts = merged[0].counts
        self.report = {} if self._latest is None else self._latest.report()

    def dataset(self, steps: Sequence[float], *, together: bool) -> xarray.Dataset:
        """Return CKA with its standard errors."""
        sums = [self._sums[None]] if together else [self._sums[step] for step in steps]
        values, errors = values_of_layers("trajectory", sums)
        if together:
            return BETWEEN_STEPS.dataset(
                {"cka": np.moveaxis(values, 0, 2), "standard_error": np.moveaxis(errors, 0, 2)},
                {"step_x": of_steps(steps), "step_y": of_steps(steps), "layer": sums[0].layers},
            )
        return TRAJECTORY.dataset(
            {"cka": values[:, :, 0].T, "standard_error": errors[:, :, 0].T},
            {"step": of_steps(steps), "layer": sums[0].layers},
        )
