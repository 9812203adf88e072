"""The measure of a comparison with its options, and what only CKA has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from repsim._errors import InputError
from repsim._options import as_count, as_seed, require_choice
from repsim.analysis.run._token_samples import Pairs, Samples
from repsim.measures import MEASURES, Measure, check_values, resolve_measure

__all__ = [
    "DRAWS",
    "MEMORY",
    "Errors",
    "FeatureOptions",
    "Measured",
    "chosen_measure",
    "is_streamed",
]

MEMORY, DRAWS = 1 << 30, 200
"""Defaults of ``memory=`` and ``draws=``."""

Errors = Literal["subsample"]
"""Types of ``errors=``."""


@dataclass(frozen=True)
class Measured:
    """A measure and all of its options."""

    measure: Measure
    settings: dict[str, Any]

    @property
    def streams(self) -> bool:
        """Whether it is CKA, which is computed from batches without keeping features."""
        return is_streamed(self.measure)

    def pairs(self, operation: str, pairs: Pairs | None, samples: Samples) -> Pairs:
        """Return which pairs of tokens count; raise if the measure cannot leave out the others."""
        of_tokens = isinstance(samples, str) and samples == "tokens"
        if self.streams or not of_tokens:
            return "between" if pairs is None else pairs
        if pairs is not None:
            require_choice(operation, "pairs", pairs, ("between", "all"))
        if pairs == "between":
            raise InputError(
                f"{operation}: only CKA can leave out the pairs of tokens of one input.\n"
                f"  got measure={self.measure.name!r} and pairs='between'\n"
                f"  Leave pairs out: all pairs of tokens count."
            )
        return "all"


@dataclass(frozen=True, kw_only=True)
class FeatureOptions:
    """How features are kept, and what is said about chance and precision, checked."""

    memory: int
    errors: Errors | None
    draws: int
    permutations: int
    seed: int

    @property
    def given(self) -> dict[str, bool]:
        """Which of the options differ from their defaults."""
        return {
            "errors": self.errors is not None,
            "draws": self.draws != DRAWS,
            "permutations": self.permutations > 0,
            "memory": self.memory != MEMORY,
        }

    @classmethod
    def checked(cls, operation: str, **given: Any) -> FeatureOptions:
        """Return the options as the caller wrote them; raise if one is out of range."""
        memory = as_count(operation, "memory", given["memory"])
        if given["errors"] is not None:
            require_choice(operation, "errors", given["errors"], ("subsample",))
        draws = as_count(operation, "draws", given["draws"], least=2)
        permutations = as_count(operation, "permutations", given["permutations"], least=0)
        seed = as_seed(operation, given["seed"])
        return cls(
            memory=memory,
            errors=given["errors"],
            draws=draws,
            permutations=permutations,
            seed=seed,
        )


STREAMING = {
    "precision": "Its products are as precise as its dtype: leave it out.",
    "passes": "Another pass has the same samples: leave it out.",
    "z_scores": "Ask for permutations=199, which adds z and p-values of any measure.",
    "group": "Store the activations of all ranks by repsim.extract(group='world'), and pass the "
    "stores to repsim.pairwise.",
}
"""Options that only CKA has, and what takes their place."""

KEEPING = {
    "errors": "CKA always has a standard error, by jackknife over batches: leave it out.",
    "draws": "CKA always has a standard error, by jackknife over batches: leave it out.",
    "permutations": "z_scores=True adds exact z. For p-values, store both models by "
    "repsim.extract, and pass the stores to repsim.max_t.",
    "memory": "CKA of a stream of batches keeps no features: leave it out.",
}
"""Options that CKA does not have, and why."""


def is_streamed(measure: object) -> bool:
    """Whether this is CKA, by its name or its entry."""
    return measure is MEASURES["cka"] or (isinstance(measure, str) and measure == "cka")


def chosen_measure(
    operation: str,
    measure: str | Measure,
    options: Mapping[str, object],
    *,
    function: Callable[..., Any],
    kernel: object,
    only_cka: Mapping[str, bool],
    not_cka: Mapping[str, bool] = MappingProxyType({}),
) -> Measured:
    """Return the measure of a comparison, or raise on options that it does not have.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    measure, options
        As the caller wrote them.
    function : callable
        The caller itself, whose arguments are suggested for an option that resembles one.
    kernel : object
        The kernel, or None if none is given.
    only_cka, not_cka : mapping of str to bool
        Which of the options that only CKA has, or only the others have, are given. A caller may
        have none of the latter.
    """
    if kernel is not None:
        options = {**options, "kernel": kernel}
    chosen = resolve_measure(operation, measure, options, function=function)
    settings = chosen.options_of_many(operation, options)
    check_values(operation, chosen, settings)
    if settings.get("rdm") == "precomputed":
        raise InputError(
            f"{operation}: layers of models have activations and no RDM.\n"
            f"  got rdm='precomputed'\n"
            f"  Name the dissimilarity of two samples, such as rdm='correlation'."
        )
    found = Measured(chosen, settings)
    if found.streams:
        _check_cka(operation, options, [name for name, given in not_cka.items() if given])
        return found
    for name, given in only_cka.items():
        if given:
            raise InputError(
                f"{operation}: {name} is an option of measure='cka'.\n"
                f"  got measure={chosen.name!r} and {name}=...\n  {STREAMING[name]}"
            )
    return found


def _check_cka(operation: str, options: Mapping[str, object], given: list[str]) -> None:
    """Raise on options that CKA of a stream of batches does not have."""
    if given:
        raise InputError(
            f"{operation}: {given[0]} is an option of the other measures.\n"
            f"  got measure='cka' and {given[0]}=...\n  {KEEPING[given[0]]}"
        )
    for name, value in options.items():
        if name == "kernel" or (name == "estimator" and value == "unbiased"):
            continue
        raise InputError(
            f"{operation}: CKA of a stream of batches is unbiased and has no {name}=.\n"
            f"  got {name}={value!r}\n"
            f"  Store the features by repsim.extract, and compare them by repsim.pairwise."
        )
