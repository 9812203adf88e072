"""The table of all measures and their properties.

The invariance table of the documentation, the property tests and ``repsim.pairwise`` read it. A
measure has two steps: ``prepare`` runs once per array and ``compare`` once per pair. The public
function checks its arguments and runs the same two steps, so its value always equals that of the
pairwise matrix.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import device, is_numpy_array

from repsim._errors import InputError
from repsim._shown import did_you_mean
from repsim._typing import Array
from repsim.arrays import array_namespace, paired, without_autocast
from repsim.estimators import ChanceWords, high_floor, warn_of_chance
from repsim.measures._table import Table
from repsim.measures._undefined import held, undefined

__all__ = [
    "INVARIANCES",
    "MEASURES",
    "Item",
    "Measure",
    "entries_of",
    "evaluate",
    "held",
    "register",
    "undefined",
]

Item: TypeAlias = Any
"""What ``prepare`` returns for one array and ``compare`` takes."""

INVARIANCES = ("orthogonal", "permutation", "isotropic_scale", "translation", "invertible_linear")
"""Changes of the features of one side to which a measure may be invariant."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Measure:
    """A measure and its properties with default options.

    Parameters
    ----------
    name : str
        The key in :data:`MEASURES`.
    family : str
        Its heading in the documentation.
    function : callable
        The public function, ``function(x, y, **options)`` → 0-d array.
    range : (float, float)
        The least and the greatest value, both included; ``inf`` if it has no upper bound.
    similarity : bool
        Larger values mean more alike; otherwise it is a dissimilarity.
    metric : bool
        The triangle inequality holds, and zero means equal up to the invariances.
    symmetric : bool
        ``f(x, y) = f(y, x)``.
    invariances : frozenset of str
        Those of :data:`INVARIANCES` that hold for x; all others do not hold.
    minimum_samples : int
        Fewer samples are an error.
    cost : str
        The cost of one item and of one pair, in n, p and q.
    reference : str
        Its source.
    prepare : callable
        ``prepare(operation, x, *, name, **options)`` → item; once per array. ``x`` is (n, p),
        floating and finite, checked by the caller; ``name`` is its name in errors and warnings;
        ``options`` are all keyword options of ``function``, defaults filled in.
    compare : callable
        ``compare(item_x, item_y, **options)`` → 0-d array of any floating dtype; once per pair.
    compare_once : callable, optional
        As ``compare``, for two items that are compared only once, if that saves time or memory
        compared with items that serve many pairs.
    prepare_contrasts : callable, optional
        As ``prepare``, for :class:`Contrasts` in the place of ``x``: points that have the
        covariances of the samples. A measure that has it follows from covariances alone, and
        :class:`repsim.StreamingCovariance` computes it.
    reorder : callable, optional
        ``reorder(item, order)`` → the item of ``x[order]``, if that costs less than preparing it;
        or None. Tests by permutation use it.
    compare_with_all : callable, optional
        ``compare_with_all(items_x, **options)`` → a function from an item of y to its values with
        all of them, as a NumPy array. Both may return None. Tests by permutation use it.
    entries : callable, optional
        ``entries(item)`` → the numbers of an item, of any shape, if the measure is the cosine of
        those of two items. Noise ceilings and bootstraps average and combine them.
    as_rows : callable, optional
        ``as_rows(operation, x, *, name, **options)`` → ``x`` with its samples along axis 0, if
        options allow another form: the entries of an RDM. ``x`` is what the user passed.
    take : callable, optional
        ``take(x, places, **options)`` → the samples of ``x`` (n, p) at these places, if options
        make them more than rows: the samples of an RDM are rows and columns.
    invariances_y : frozenset of str, optional
        Those that hold for y, if they differ from those of x.
    self_is_best : bool, default True
        ``f(x, x)`` is 1 for a similarity, 0 for a dissimilarity.
    defined_for_constant : bool, default False
        A constant representation has a value; otherwise it is NaN, and a warning names it.
    differentiable : bool, default True
        In frameworks that differentiate.
    units : str, default "1"
        Unit of the value; "rad" for angles.
    growth : float, default 0
        The power of n with which the value grows, as a sum over samples does: 1/2 for a distance
        whose square is such a sum.
    preset : mapping, optional
        The options of ``function`` in this row.
    needs : callable, optional
        ``needs(**options)`` → (fewest samples, what needs them), if options change that number.
    range_with : callable, optional
        ``range_with(**options)`` → (least, greatest), if options change the range.
    self_is_best_with : callable, optional
        ``self_is_best_with(**options)`` → bool, if options make ``f(x, x)`` another value.
    floor : callable, optional
        ``floor(item_x, item_y, **options)`` → the mean value of independent data (0-d), or ``None``
        if it is low or unknown. The function and :func:`repsim.pairwise` warn if it is above 0.1.
    floor_words : ChanceWords, optional
        What the warning says; with ``floor``.
    """

    name: str
    family: str
    function: Callable[..., Array]
    range: tuple[float, float]
    similarity: bool
    metric: bool
    symmetric: bool
    invariances: frozenset[str]
    minimum_samples: int
    cost: str
    reference: str
    prepare: Callable[..., Item]
    compare: Callable[..., Array]
    compare_once: Callable[..., Array] | None = None
    prepare_contrasts: Callable[..., Item] | None = None
    reorder: Callable[[Item, Any], Item] | None = None
    compare_with_all: Callable[..., Callable[[Item], Any] | None] | None = None
    entries: Callable[[Item], Array] | None = None
    as_rows: Callable[..., Array] | None = None
    take: Callable[..., Array] | None = None
    invariances_y: frozenset[str] | None = None
    self_is_best: bool = True
    defined_for_constant: bool = False
    differentiable: bool = True
    units: str = "1"
    growth: float = 0.0
    preset: Mapping[str, object] = field(default_factory=dict)
    needs: Callable[..., tuple[int, str]] | None = None
    range_with: Callable[..., tuple[float, float]] | None = None
    self_is_best_with: Callable[..., bool] | None = None
    floor: Callable[..., Array | None] | None = None
    floor_words: ChanceWords | None = None

    def __post_init__(self) -> None:
        for claimed in (self.invariances, self.invariances_y or frozenset()):
            if unknown := set(claimed) - set(INVARIANCES):
                raise InputError(
                    f"Measure: unknown invariances of {self.name!r}.\n"
                    f"  expected some of {', '.join(map(repr, INVARIANCES))}\n"
                    f"  got {', '.join(map(repr, sorted(unknown)))}"
                )
        self.options("Measure", self.preset)

    def __repr__(self) -> str:
        low, high = self.range
        kind = "similarity" if self.similarity else "dissimilarity"
        return f"<Measure {self.name!r}: {self.family}, a {kind} from {low:g} to {high:g}>"

    def options(self, operation: str, given: Mapping[str, object]) -> dict[str, object]:
        """Return all options of the function: given, preset and default ones."""
        parameters = inspect.signature(self.function).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        if unknown := sorted(set(given) - set(defaults)):
            raise InputError(
                f"{operation}: unknown options for measure {self.name!r}.\n"
                f"  expected {', '.join(map(repr, defaults)) or 'none: it has no options'}\n"
                f"  got {', '.join(map(repr, unknown))}{did_you_mean(unknown[0], defaults)}"
            )
        return {**defaults, **self.preset, **given}

    def options_of_many(self, operation: str, given: Mapping[str, object]) -> dict[str, object]:
        """Return all options where several pairs are compared: the estimator is unbiased.

        The functions of two arrays default to the biased estimator, as the papers do. Its value is
        above zero by chance, by an amount that depends on n and on the widths. So biased values of
        layers of other widths, or of a part of the samples, cannot be compared with each other.
        """
        settings = self.options(operation, given)
        if "estimator" in settings and "estimator" not in {**given, **self.preset}:
            settings["estimator"] = "unbiased"
        return settings

    def of_contrasts(self, operation: str) -> Callable[..., Item]:
        """Return ``prepare_contrasts``, or raise an error that lists the measures that have it."""
        if self.prepare_contrasts is not None:
            return self.prepare_contrasts
        known = [name for name, m in MEASURES.items() if m.prepare_contrasts is not None]
        raise InputError(
            f"{operation}: this measure does not follow from covariances.\n"
            f"  those that do: {', '.join(map(repr, known))}\n"
            f"  Pass stored activations to repsim.pairwise, or use repsim.MinibatchCKA for CKA "
            f"with another kernel."
        )

    def reordered(self, item: Item, order: Any) -> Item | None:
        """Return the item of the same samples in another order; None if it must be prepared."""
        return None if self.reorder is None else self.reorder(item, order)

    def by_rows(
        self, operation: str, arrays: Mapping[str, Array], settings: Mapping[str, Any]
    ) -> list[Array]:
        """Return arrays, by their names in errors, with the samples along axis 0."""
        if self.as_rows is None:
            return list(arrays.values())
        return [self.as_rows(operation, x, name=name, **settings) for name, x in arrays.items()]

    def taken(self, x: Array, places: Any, settings: Mapping[str, Any]) -> Array:
        """Return some samples of ``x`` (n, p), or all in another order, by their places."""
        xp = array_namespace(x)
        where = xp.asarray(places, device=device(x))
        if self.take is not None:
            return self.take(x, where, **settings)
        out: Array = xp.take(x, where, axis=0)
        return out

    def fewest(self, **options: object) -> tuple[int, str]:
        """Return the fewest samples that these options allow, and what needs them."""
        return self.needs(**options) if self.needs else (self.minimum_samples, self.name)


_TABLE = Table()

MEASURES: Mapping[str, Measure] = MappingProxyType(_TABLE)
"""Every measure by its name; the module of a measure loads when it is asked for."""


def register(measure: Measure) -> Measure:
    """Add a measure to the table and return it; raise if its name is taken.

    Parameters
    ----------
    measure : Measure
        The entry; :func:`repsim.pairwise` and the inference functions then know its name.

    Returns
    -------
    Measure
        The same.

    Raises
    ------
    InputError
        Another measure has that name.
    """
    there = _TABLE.get(measure.name)
    # A module that is loaded again, as in a notebook, replaces its entries.
    if there is not None and _home(there) != _home(measure):
        raise InputError(
            f"register: there is a measure {measure.name!r} already.\n"
            f"  it is {'.'.join(_home(there))}\n"
            f"  Choose another name."
        )
    _TABLE.add(measure)
    return measure


def entries_of(function: Callable[..., Array]) -> list[Measure]:
    """Return the measures that one function computes, with other options each."""
    return _TABLE.of_function(function)


def _home(measure: Measure) -> tuple[str, str]:
    return measure.function.__module__, measure.function.__qualname__


@without_autocast
def evaluate(name: str, x: Array, y: Array, **options: object) -> Array:
    """Check two arrays, prepare and compare them: the body of every public measure.

    >>> import numpy as np
    >>> from repsim.measures import evaluate
    >>> x = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
    >>> round(float(evaluate("nbs", x, 2 * x)), 6)
    1.0

    Parameters
    ----------
    name : str
        The key of the measure in :data:`MEASURES`, and the first word of errors and warnings.
    x, y : array, shapes (n, ...)
        As the user passed them.
    **options
        All keyword options of the function.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In the namespace and on the device of the inputs.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer samples than the measure needs, empty input, NaN or infinity
        (``NonFiniteError``).
    """
    measure = MEASURES[name]
    fewest, why = measure.fewest(**options)
    x, y = measure.by_rows(name, {"x": x, "y": y}, options)
    _, a, b = paired(name, x, y, min_samples=fewest, why=why)
    # What overflows is reported below, for every framework.
    with np.errstate(over="ignore") if is_numpy_array(a) else nullcontext():
        item_x = measure.prepare(name, a, name="x", **options)
        item_y = measure.prepare(name, b, name="y", **options)
        compare = measure.compare_once or measure.compare
        value = held(name, compare(item_x, item_y, **options), a.dtype)
    if measure.floor is not None and measure.floor_words is not None:
        floor = high_floor(measure.floor(item_x, item_y, **options))
        if floor is not None:
            warn_of_chance(name, measure.floor_words, floor)
    return value
