"""CKA of a layer in several models: with that layer of a reference, or with each other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from repsim._errors import DegenerateWarning, InputError, NonFiniteError, RepsimWarning, warn
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import Ranks
from repsim.kernels import Kernel
from repsim.streaming import MinibatchCKA

__all__ = ["SameLayers", "of_all_ranks", "values_of_layers"]

States: TypeAlias = dict[str, dict[str, Any]]
"""The state of the accumulator of every layer."""


class SameLayers:
    """The sums of the layers of some models, with those of a reference or with each other.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    labels : sequence of str
        Names of the models, for errors.
    reference : str, optional
        Name of the model with which each is compared; without it they are compared with each other.
    kernel : Kernel
        The kernel of the Grams.
    """

    def __init__(
        self, operation: str, labels: Sequence[str], reference: str | None, kernel: Kernel
    ) -> None:
        self.labels, self.reference = list(labels), reference
        self._operation, self._kernel = operation, kernel
        self._sums: dict[str, MinibatchCKA] = {}

    @property
    def layers(self) -> list[str]:
        """The layers so far, in the order of execution."""
        return list(self._sums)

    @property
    def counts(self) -> dict[str, int]:
        """Samples and batches, counted and left out."""
        acc = next(iter(self._sums.values()), MinibatchCKA())  # a rank may have no batch
        names = ("n_samples", "n_batches", "n_skipped_batches", "n_skipped_samples")
        return {name: getattr(acc, name) for name in names}

    def state(self) -> States:
        """Return the state of every layer, which another rank can add by :meth:`of_states`."""
        return {name: acc.state_dict() for name, acc in self._sums.items()}

    def of_states(self, states: Sequence[States]) -> SameLayers:
        """Return the sums of several ranks, of the same models as this one.

        Raises
        ------
        InputError
            The ranks have other layers.
        """
        out = SameLayers(self._operation, self.labels, self.reference, self._kernel)
        for name in states[0]:
            out._sums[name] = MinibatchCKA(kernel=self._kernel)
        for state in states:
            missing, extra = out._sums.keys() - state, state.keys() - out._sums
            if missing or extra:
                raise InputError(
                    f"{self._operation}: all ranks must have the same layers.\n"
                    f"  missing on a rank: {sorted(missing)[:8]}    only there: "
                    f"{sorted(extra)[:8]}\n"
                    f"  Leave out layers that run in some batches only."
                )
            for name, acc in out._sums.items():
                acc.merge(MinibatchCKA.from_state_dict(state[name], kernel=self._kernel))
        return out

    def add(
        self, models: Sequence[Mapping[str, Tensor]], reference: Mapping[str, Tensor] | None = None
    ) -> None:
        """Add the Grams of one batch: of each model by layer, and of the reference."""
        expected = models[0] if reference is None else reference
        of = self.labels[0] if self.reference is None else self.reference
        for label, grams in zip(self.labels, models, strict=True):
            self._require_alike(label, grams, of, expected)
        for name, gram in expected.items():
            # Only n² numbers per layer move to one device.
            xs = {
                f"{name} ({label})": grams[name].to(gram.device)
                for label, grams in zip(self.labels, models, strict=True)
            }
            ys = None if reference is None else {f"{name} ({self.reference})": gram}
            acc = self._sums.setdefault(name, MinibatchCKA(kernel=self._kernel))
            try:
                acc.update_grams(xs, ys)
            except NonFiniteError as error:
                raise self._not_finite(error) from error

    def _require_alike(
        self, label: str, grams: Mapping[str, Tensor], of: str, expected: Mapping[str, Tensor]
    ) -> None:
        if grams.keys() != expected.keys():
            missing = [name for name in expected if name not in grams]
            extra = [name for name in grams if name not in expected]
            raise InputError(
                f"{self._operation}: all models must have the same layers.\n"
                f"  {label} has {len(grams)}, {of} has {len(expected)}\n"
                f"  missing: {missing[:8]}    only there: {extra[:8]}\n"
                "  Compare models of one architecture, or choose layers= that all of them have."
            )
        for name, gram in expected.items():
            if grams[name].shape != gram.shape:
                raise InputError(
                    f"{self._operation}: all models must see the same samples.\n"
                    f"  layer {name!r}: {label} n={grams[name].shape[0]}    "
                    f"{of} n={gram.shape[0]}\n"
                    "  Does prepare= or forward= change the number of samples?"
                )

    def _not_finite(self, error: NonFiniteError) -> NonFiniteError:
        return NonFiniteError(f"{self._operation}: a layer of a model is not finite.\n{error}")

    def values(self) -> tuple[Any, Any, list[str]]:
        """Return CKA and standard errors (layers, models, models or 1), and constant layers."""
        values, errors, constant = [], [], []
        for name, acc in self._sums.items():
            try:
                cka = acc.compute().values
            except NonFiniteError as error:  # on an accelerator, found only now
                raise self._not_finite(error) from error
            values.append(cka)
            errors.append(acc.standard_error().values)
            # A constant model has no value with any other, a constant reference none at all.
            constant += [
                f"{name} ({label})"
                for label, row in zip(self.labels, cka, strict=True)
                if np.isnan(row).all()
            ]
        return np.stack(values), np.stack(errors), constant


def of_all_ranks(
    ranks: Ranks, sums: Sequence[SameLayers], tokens: TokenSamples | None
) -> list[SameLayers]:
    """Return the sums of all ranks, the same bits on every rank, from one exchange.

    It is called on all ranks, after :meth:`Ranks.raise_on_all_ranks`. The token samples then report
    the sequences of all ranks.
    """
    if ranks.alone:
        return list(sums)
    n_sequences = 0 if tokens is None else tokens.n_sequences
    states = [each.state() for each in sums]

    def merge(parts: Sequence[Any]) -> Any:
        of_each = zip(*(states for states, _ in parts), strict=True)
        merged = [each.of_states(states) for each, states in zip(sums, of_each, strict=True)]
        return merged, sum(n for _, n in parts)

    part: Any = (states, n_sequences) if sums[0].layers else None
    merged: tuple[list[SameLayers], int] = ranks.merged(part, merge)
    if tokens is not None:
        tokens.n_sequences = merged[1]
    return merged[0]


def values_of_layers(operation: str, sums: Sequence[SameLayers]) -> tuple[Any, Any]:
    """Return CKA and standard errors (layers, models, models or 1) of sums over the same batches.

    The models of all sums follow each other. Common conditions are reported once.
    """
    # Every layer would repeat the warning about short batches.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RepsimWarning)
        found = [each.values() for each in sums]
    constant = [name for _, _, names in found for name in names]
    counts = sums[0].counts
    if counts["n_skipped_batches"]:
        warn(
            f"{operation}: {counts['n_skipped_batches']} batch(es) of fewer than 4 samples "
            f"({counts['n_skipped_samples']} samples in all) were left out.",
        )
    if counts["n_batches"] == 1:
        warn(
            f"{operation}: there is one batch, so there is no standard error (NaN).\n"
            "  Pass several batches.",
        )
    if constant:
        warn(
            f"{operation}: constant over the samples of every batch, or so small that squares "
            f"vanish, in this model or in the one that it is compared with, so the CKA is "
            f"undefined (NaN): {', '.join(constant)}.",
            DegenerateWarning,
        )
    values, errors = (np.concatenate([each[k] for each in found], axis=1) for k in (0, 1))
    return values, errors
