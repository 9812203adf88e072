"""Tokens as samples: which tokens of a batch count, the same for all layers and models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from repsim._errors import InputError, warn
from repsim._options import as_count, as_seed, require_choice
from repsim.analysis.run._between_inputs import between_inputs
from repsim.arrays import uploaded
from repsim.capture import BoundTransform, Reducer, UnusableOutput, values_of
from repsim.streaming import MIN_BATCH

__all__ = ["Pairs", "Samples", "TokenSamples", "token_samples"]

Samples: TypeAlias = Literal["inputs", "tokens"]
"""Types of ``samples=``."""

Pairs: TypeAlias = Literal["between", "all"]
"""Types of ``pairs=``."""

MANY, FEWER = 4096, 2048
"""The most tokens of a batch whose Grams are made without a warning, and how many it advises."""

Ints = np.ndarray[Any, np.dtype[np.int64]]

ONE_GRID = "transform=lambda maps: torch.nn.functional.adaptive_avg_pool2d(maps, 7)"


def token_samples(
    operation: str,
    samples: Samples,
    max_samples: int | None,
    skip_first: int,
    seed: int,
    *transforms: Any,
    pairs: Pairs = "between",
) -> TokenSamples | None:
    """Check the options of a caller about samples; return None if inputs are the samples."""
    require_choice(operation, "samples", samples, ("inputs", "tokens"))
    require_choice(operation, "pairs", pairs, ("between", "all"))
    if max_samples is not None:
        max_samples = as_count(operation, "max_samples", max_samples)
    skip_first = as_count(operation, "skip_first", skip_first, least=0)
    seed = as_seed(operation, seed)
    if samples == "inputs":
        if max_samples is not None or skip_first or pairs == "all":
            raise InputError(
                f"{operation}: max_samples, skip_first and pairs choose among tokens.\n"
                f"  samples={samples!r}\n  Pass samples='tokens' too, or neither."
            )
        return None
    for transform in transforms:
        name = transform.name if isinstance(transform, Reducer) else transform
        if isinstance(name, str) and name != "flatten":
            raise InputError(
                f"{operation}: transform={name!r} leaves one vector for each sequence.\n"
                f"  samples='tokens' makes every token a sample.\n  Pass one of the two."
            )
    return TokenSamples(
        operation, max_samples=max_samples, skip_first=skip_first, seed=seed, pairs=pairs
    )


class TokenSamples:
    """The tokens of one batch after another that are samples, in the order of their sequences.

    Each layer gives its tokens by :meth:`rows`. All must have the same number of real tokens in
    each sequence; the first layer of a batch fixes it. If layers of several kinds are recorded,
    :meth:`survey` finds the most frequent kind first.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    max_samples : int, optional
        The most tokens of a batch. Those with the smallest random keys count. The key of a token
        depends on `seed`, on the number of its sequence in the data and on its position.
    skip_first : int
        How many of the first real tokens of each sequence never count.
    seed : int
        The seed of the keys.
    pairs : {"between", "all"}
        Which pairs of tokens a Gram counts: those of different inputs, or all.

    Attributes
    ----------
    n_sequences : int
        The sequences of the batches counted so far.
    surveyed : bool
        Whether a survey was taken.
    """

    def __init__(
        self,
        operation: str,
        *,
        max_samples: int | None,
        skip_first: int,
        seed: int,
        pairs: Pairs = "between",
    ) -> None:
        self._operation, self._pairs = operation, pairs
        self._max_samples, self._skip_first, self._seed = max_samples, skip_first, seed
        self.n_sequences = 0
        self._expected: tuple[int, ...] | None = None
        self._survey: list[tuple[int, ...]] | None = None
        self.surveyed, self._warned = False, False
        self._drawn: tuple[Ints, Ints, Ints] | None = None
        self._indices: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        self._masks: dict[int, tuple[Tensor, tuple[int, ...]]] = {}

    # -- the batches -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the next batch."""
        self._expected, self._drawn = None, None
        self._indices.clear()
        self._masks.clear()

    def count(self) -> None:
        """Count the sequences of this batch; without it, the next batch gets their keys."""
        self.n_sequences += len(self._expected or ())

    def state(self) -> dict[str, list[Any]]:
        """Return what a resumed run needs."""
        return {"sequences": [self.n_sequences]}

    def resume(self, state: Mapping[str, list[Any]]) -> None:
        """Restore the state that :meth:`state` returned."""
        self.n_sequences = int(state["sequences"][0])

    def report(self) -> dict[str, Any]:
        """Return the attributes of a result about tokens as samples."""
        counted = {"n_sequences": self.n_sequences, "pairs": self._pairs}
        return {"samples": "tokens", **counted, **self.options()}

    def options(self) -> dict[str, Any]:
        """Return the options of the caller."""
        most = "all" if self._max_samples is None else self._max_samples
        return {"max_samples": most, "skip_first": self._skip_first, "seed": self._seed}

    # -- which positions layers have -------------------------------------------------------------

    @property
    def surveying(self) -> bool:
        """Whether :meth:`rows` only notes the positions of layers."""
        return self._survey is not None

    @contextmanager
    def survey(self) -> Iterator[None]:
        """Note the positions of all layers that run; the most frequent are those of this batch.

        If two are equally frequent, the first to run counts. One survey is enough, because layers
        with other positions are left out from then on.
        """
        self._survey = []
        try:
            yield
            if self._survey:
                self._expected = Counter(self._survey).most_common(1)[0][0]
        finally:
            self._survey, self.surveyed = None, True

    # -- the tokens ------------------------------------------------------------------------------

    def rows(self, transform: BoundTransform, tensor: Tensor, layer: str, call: int) -> Tensor:
        """Return the samples of one layer, (n, D); none during a survey.

        Raises
        ------
        UnusableOutput
            The layer has no tokens, or another number of them than the others.
        """
        if self._survey is not None:
            self._note(transform, tensor, layer, call)
            return tensor.new_zeros((0, 1))
        sequence, mask = transform.positions(tensor, layer, call)
        counts = self._counts(sequence, mask)
        if self._expected is None:
            self._expected = counts
        if counts != self._expected:
            raise self._differs(layer, tuple(tensor.shape), counts)
        key = (None if mask is None else id(mask), sequence.shape[1], sequence.device)
        if key not in self._indices:
            self._indices[key] = self._places(sequence, mask)
        samples, positions = self._indices[key]
        return sequence[samples, positions]

    def warn_of_many(self, n: int) -> None:
        """Warn once if the caller may not know that n tokens of a batch need Grams of n²."""
        if self._warned or self._max_samples is not None or n <= MANY:
            return
        self._warned = True
        warn(
            f"{self._operation}: {n} tokens of a batch are samples. Each layer needs a Gram of "
            f"{n} × {n} values ({4 * n * n / 1e6:.0f} MB in float32), and each pair of layers the "
            f"product of two Grams.\n"
            f"  Pass max_samples={FEWER}: that many tokens of each batch are drawn, and Grams are "
            f"{(n / FEWER) ** 2:.0f} times smaller. Or make smaller batches."
        )

    def drawn(self) -> tuple[Ints, Ints]:
        """Return the sequence in the batch and the position in the sequence of each sample."""
        if self._drawn is None:
            self._drawn = self._draw(self._expected or ())
        return self._drawn[1], self._drawn[2]

    def centred(
        self, grams: Mapping[str, Tensor], rows: list[int] | None = None
    ) -> Mapping[str, Tensor]:
        """Return Grams (n, n) centred over the pairs that count.

        Parameters
        ----------
        grams : mapping of str to torch.Tensor
            Of the samples of this batch.
        rows : list of int, optional
            Which of the samples they are; by default all.
        """
        if self._pairs == "all":
            return grams
        of = self.drawn()[0] if rows is None else self.drawn()[0][rows]
        n_inputs = len(np.unique(of))
        if n_inputs < MIN_BATCH:  # too few, as too few samples: the batch is skipped and reported
            return {name: gram.new_zeros((n_inputs, n_inputs)) for name, gram in grams.items()}
        return between_inputs(grams, of)

    def of_sequences(self, chosen: list[int]) -> list[int]:
        """Return the samples of these sequences of the batch."""
        kept: list[int] = np.flatnonzero(np.isin(self.drawn()[0], chosen)).tolist()
        return kept

    @property
    def n_in_batch(self) -> int:
        """The sequences of this batch."""
        return len(self._expected or ())

    def _note(self, transform: BoundTransform, tensor: Tensor, layer: str, call: int) -> None:
        assert self._survey is not None, "a survey is taken"
        # The forward that follows reports unusable layers, together with those of other positions.
        with suppress(UnusableOutput):
            self._survey.append(self._counts(*transform.positions(tensor, layer, call)))

    def _counts(self, sequence: Tensor, mask: Tensor | None) -> tuple[int, ...]:
        """Return the number of real tokens of each sequence."""
        if mask is None:
            return (int(sequence.shape[1]),) * len(sequence)
        if id(mask) not in self._masks:  # counted once for all layers; kept alive for its id
            self._masks[id(mask)] = mask, tuple(values_of(mask).sum(1).tolist())
        return self._masks[id(mask)][1]

    def _places(self, sequence: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the indices of the samples in (B, N)."""
        places = np.stack(self.drawn())
        if mask is not None:
            assert self._drawn is not None, "the tokens are drawn"
            real = np.nonzero(values_of(mask).numpy())  # in the order of their sequences
            places = np.stack(real)[:, self._drawn[0]]
        samples, positions = uploaded(places, sequence)
        return samples, positions

    def _draw(self, counts: tuple[int, ...]) -> tuple[Ints, Ints, Ints]:
        """Return which of the real tokens are samples: number, sequence, position."""
        of = np.repeat(np.arange(len(counts)), counts)
        position = np.concatenate([np.arange(count) for count in counts] or [of])
        chosen = np.flatnonzero(position >= self._skip_first)
        if self._max_samples is not None and len(chosen) > self._max_samples:
            keys = np.concatenate(
                [
                    np.random.default_rng([self._seed, self.n_sequences + number]).random(count)
                    for number, count in enumerate(counts)
                ]
            )
            smallest = np.argpartition(keys[chosen], self._max_samples)[: self._max_samples]
            chosen = np.sort(chosen[smallest])
        return chosen, of[chosen], position[chosen]

    def _differs(
        self, layer: str, shape: tuple[int, ...], counts: tuple[int, ...]
    ) -> UnusableOutput:
        assert self._expected is not None, "a layer with other positions ran before"
        found, others = _described(counts), _described(self._expected)
        return UnusableOutput(
            f"{self._operation}: layer {layer!r} has other positions than the other layers.\n"
            f"  it returned {shape}: {found}\n  the others: {others}\n"
            f"  samples='tokens' needs the same tokens in all layers of both models: choose such "
            f"layers, or give each its mask: mask={{name or glob: key of the batch, or None}}.\n"
            f"  Maps get one grid by {ONE_GRID}.",
            brief=f"{shape}: it has {found}, the others {others}",
            repair=f"{ONE_GRID}, which brings maps to one grid.",
        )


def _described(counts: tuple[int, ...]) -> str:
    if len(set(counts)) == 1:
        return f"{counts[0]} positions in each of {len(counts)} sequences"
    return f"{sum(counts)} real positions in {len(counts)} sequences, {list(counts[:4])} ..."
