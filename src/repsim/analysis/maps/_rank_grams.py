"""What `compare` needs of a group of ranks: Grams of new samples, one bandwidth, merged sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repsim._errors import InputError, StateError
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import NewSamples, Ranks
from repsim.kernels import Kernel
from repsim.streaming import MinibatchCKA

__all__ = ["check_one_bandwidth", "grams_of", "reduced", "report_of_tokens", "tokens_of"]


def grams_of(new: NewSamples, grams: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the Grams of new samples; shared Grams remain shared."""
    n = next(iter(grams.values())).shape[0]
    _check_ids(new, n)
    if len(new.rows) == n:
        return grams
    cut: dict[int, Tensor] = {}
    for gram in grams.values():
        if id(gram) not in cut:
            index = torch.tensor(new.rows, dtype=torch.long, device=gram.device)
            cut[id(gram)] = gram[index][:, index]
    return {name: cut[id(gram)] for name, gram in grams.items()}


def tokens_of(new: NewSamples, tokens: TokenSamples) -> NewSamples:
    """Return the tokens of new sequences."""
    _check_ids(new, tokens.n_in_batch)
    return NewSamples(tokens.of_sequences(new.rows), len(tokens.drawn()[0]))


def _check_ids(new: NewSamples, n: int) -> None:
    if n != new.n_ids:
        raise InputError(
            f"compare: sample_ids must give one id for each sample.\n"
            f"  got {new.n_ids} ids for a batch of {n}"
        )


def check_one_bandwidth(ranks: Ranks, kernel: Kernel) -> None:
    """Raise if the bandwidth of a kernel would differ between ranks."""
    if ranks.size > 1 and getattr(kernel, "sigma", 0.0) is None:
        raise InputError(
            f"{ranks.operation}: the ranks of a group need one bandwidth.\n"
            f"  kernel {kernel!r} would fix another on every rank's first batch\n"
            f"  Give it one: kernel=repsim.kernels.RBF(sigma=...)."
        )


def report_of_tokens(ranks: Ranks, tokens: TokenSamples | None) -> dict[str, Any]:
    """Return the attributes of a result about tokens as samples, with the sequences of all ranks.

    Each rank numbers its sequences, also those that came before, so repeated ones are left out
    here.
    """
    if tokens is None:
        return {}
    n_sequences = sum(ranks.gather(tokens.n_sequences)) - ranks.duplicates
    return {**tokens.report(), "n_sequences": n_sequences}


def reduced(ranks: Ranks, accumulators: list[MinibatchCKA]) -> list[MinibatchCKA]:
    """Return the merged accumulators of all ranks, pass by pass."""
    if ranks.alone:
        return accumulators
    counts = ranks.gather_at_end(len(accumulators))
    if len(set(counts)) > 1:
        raise StateError(f"compare: passes must be the same on all ranks.\n  got {counts}")
    return [each.all_reduce(ranks.group) for each in accumulators]
