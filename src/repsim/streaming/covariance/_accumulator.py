"""Every measure that follows from covariances, from batches that are seen once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repsim._distributed import gather_made
from repsim._errors import StateError
from repsim._typing import Array
from repsim._version import __version__
from repsim.arrays import array_namespace, without_autocast
from repsim.measures import Measure, map_of_pairs, resolve_measure
from repsim.streaming._checks import (
    require_alike,
    require_same_columns,
    require_state,
    require_sums,
    summary,
)
from repsim.streaming.covariance._batch import named_batch
from repsim.streaming.covariance._linear_cka_sums import column_slices
from repsim.streaming.covariance._rows import Rows

if TYPE_CHECKING:
    import xarray

__all__ = ["StreamingCovariance"]

FORMAT = "repsim.StreamingCovariance/1"


class StreamingCovariance:
    """Every measure that follows from covariances, exactly, from batches that are seen once.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 8)) + 30
    >>> y = x[:, :3] + rng.standard_normal((100, 3))
    >>> acc = repsim.StreamingCovariance()
    >>> for rows in (slice(0, 1), slice(1, 60), slice(60, 100)):
    ...     acc.update({"conv1": x[rows]}, {"block1": y[rows]})
    >>> bool(abs(acc.compute("svcca", variance=0.9) - repsim.svcca(x, y, variance=0.9)) < 1e-12)
    True
    >>> bool(abs(acc.compute("procrustes") - repsim.procrustes(x, y)) < 1e-12)
    True

    ::

        RᵀR = Σ_i (x_i − μ)(x_i − μ)ᵀ,   x_i all layers of both sides, side by side

    with μ the means of *all* samples and R triangular. Two parts a and b of the samples join by a
    QR decomposition, without forming a covariance::

        QR = [R_a; R_b; √(n_a n_b/n) (μ_a − μ_b)ᵀ]

    The columns of R that belong to a layer have the same inner products as its centred features, so
    the measure is computed from them. The value is that of :func:`repsim.pairwise` on all samples
    at once, for any batches in any order.

    Attributes
    ----------
    n_samples, n_batches : int
        What has been accumulated. Batches may have any size, even one sample.

    Notes
    -----
    A covariance squares the condition number: directions of less than 1e-8 of the largest would be
    lost in float64. R does not, so ranks, NaN and digits are those of the function itself, also for
    duplicated columns and for fewer samples than features. Only ``rv2`` loses digits if p ≫ n:
    log10(p/n) of them, because it subtracts the squared norms that dominate the Gram.

    It knows ``cka``, ``hsic`` and ``angular_cka`` with the linear kernel, ``rv2``, ``cca``,
    ``svcca``, ``pwcca``, ``procrustes``, ``nbs``, ``shape_distance``, ``linear_regression_r2``
    without folds, ``gulp``, and ``correlation_match``, ``permutation_procrustes`` and
    ``soft_matching``, under all their names in ``repsim.measures.MEASURES``. Distances and
    neighbours of single samples do not follow from covariances: store the activations
    (:func:`repsim.extract`) and use :func:`repsim.pairwise`.

    Let P be the features of all layers of both sides. Memory: up to about 100 P² bytes. Cost: O(n
    P²) multiplications in float64, on the device of the batches if it has float64, else on the CPU.
    For CKA alone, :class:`StreamingLinearCKA` takes a third of the time and a quarter of the
    memory, and with two models a sixth and a tenth, because it forms no products of the layers of
    one model.

    References
    ----------
    Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance". Demmel, Grigori,
    Hoemmen, Langou 2012, "Communication-optimal parallel and sequential QR and LU factorizations",
    arXiv:0808.2664.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything accumulated."""
        self.layers_x: dict[str, int] = {}
        self.layers_y: dict[str, int] | None = None
        self.n_batches = 0
        # By side and layer, in the order of the columns: whether the data were float64.
        self._double: dict[tuple[str, str], bool] = {}
        self._rows = Rows()

    @property
    def n_samples(self) -> int:
        """Samples accumulated."""
        return self._rows.n

    __repr__ = summary

    @without_autocast
    def update(self, xs: Mapping[str, Array], ys: Mapping[str, Array] | None = None) -> None:
        """Add one batch of named activations.

        Parameters
        ----------
        xs : mapping of str to array, shape (n, ...)
            Activations of the same n ≥ 1 samples by layer; trailing axes are flattened. Every batch
            has the same layers with the same features.
        ys : mapping of str to array, shape (n, ...), optional
            Activations of a second model. Without it, the layers of ``xs`` are compared with each
            other. One framework and device for all.

        Raises
        ------
        ArrayTypeError
            Not arrays, or arrays of different frameworks or devices.
        InputError
            Other layers or features than in the first batch, different n, one-dimensional or empty
            arrays.
        NonFiniteError
            NaN or infinity; the message names layer and batch. A refused batch adds nothing.
        """
        operation, first = "StreamingCovariance.update", (self.layers_x, self.layers_y)
        batch = named_batch(operation, xs, ys, self.n_batches, first, require_sums)
        if not self.n_batches:
            self.layers_x, self.layers_y = batch.widths
            self._double = dict.fromkeys(batch.double, False)
        self._double = {key: was or batch.double[key] for key, was in self._double.items()}
        sides = {"xs": batch.x, "ys": batch.y or {}}
        stack = [sides[side][name] for side, name in self._double]
        self._rows.add(array_namespace(stack[0]).concat(stack, axis=1), self._cuts())
        self.n_batches += 1

    def _cuts(self) -> tuple[slice, ...]:
        return column_slices([*self.layers_x.values(), *(self.layers_y or {}).values()])

    # Results

    @without_autocast
    def compute(self, measure: str | Measure = "cka", **options: object) -> xarray.DataArray:
        """Return a measure of every layer of x with every layer of y.

        Parameters
        ----------
        measure : str or Measure, default "cka"
            A name from ``repsim.measures.MEASURES`` that follows from covariances; any number of
            measures, one after the other.
        **options
            Keyword options of the measure's function. The estimator is unbiased unless given, as
            wherever several pairs are compared.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            That of :func:`repsim.pairwise` on all samples at once, with ``n_batches`` in ``attrs``;
            float64.

        Raises
        ------
        InputError
            Unknown measure or option, or one that does not follow from covariances; the message
            lists those that do.
        StateError
            There were fewer samples than the measure needs.

        Warns
        -----
        DegenerateWarning
            Once for each layer for which the measure is undefined; its row or column is NaN.
        ChanceWarning
            As :func:`repsim.pairwise`.
        """
        chosen = resolve_measure("StreamingCovariance.compute", measure, options)
        operation = f"StreamingCovariance.compute({chosen.name!r})"
        prepare = chosen.of_contrasts(operation)
        settings = chosen.options_of_many(operation, options)
        fewest, why = chosen.fewest(**settings)
        if self.n_samples < fewest:
            raise StateError(
                f"{operation}: {why} needs at least {fewest} samples.\n"
                f"  accumulated: {self.n_samples}\n  Call update with more of them first."
            )
        triangle = self._rows.settled(self._cuts())
        index = {key: i for i, key in enumerate(self._double)}
        made: dict[tuple[tuple[str, str], bool], Any] = {}

        def item(key: tuple[str, str], double: bool) -> Any:
            if (key, double) not in made:
                contrasts = triangle.contrasts(index[key], self._cuts(), double)
                name = f"{key[0]}[{key[1]!r}]"
                made[key, double] = prepare(operation, contrasts, name=name, **settings)
            return made[key, double]

        def pair(a: str, side: str, b: str) -> tuple[Any, Any, Any]:
            # As the function itself, which computes both sides in the dtype of the pair.
            double = self._double["xs", a] or self._double[side, b]
            return item(("xs", a), double), item((side, b), double), triangle.root.dtype

        names_y = None if self.layers_y is None else list(self.layers_y)
        out = map_of_pairs(
            operation, chosen, settings, list(self.layers_x), names_y, pair, self.n_samples
        )
        out.attrs["n_batches"] = self.n_batches
        return out

    # Several accumulators

    @without_autocast
    def merge(self, other: StreamingCovariance) -> StreamingCovariance:
        """Add everything that another accumulator has seen to this one, and return this one.

        Parameters
        ----------
        other : StreamingCovariance
            Must have the same layers; it is not changed.

        Raises
        ------
        StateError
            The two do not belong together; the message says what differs.
        """
        require_alike(self, other)
        if not other.n_batches:
            return self
        if self.n_batches:
            mine, theirs = (self.layers_x, self.layers_y), (other.layers_x, other.layers_y)
            require_same_columns("StreamingCovariance.merge", mine, theirs)
        if not self.n_batches:
            self.layers_x, self.layers_y = other.layers_x, other.layers_y
            self._double = dict.fromkeys(other._double, False)
        self._double = {key: was or other._double[key] for key, was in self._double.items()}
        self._rows = self._rows.plus(other._rows, self._cuts())
        self.n_batches += other.n_batches
        return self

    def all_reduce(self, group: Any = None) -> StreamingCovariance:
        """Return a new accumulator of everything that the ranks of torch.distributed have seen.

        Parameters
        ----------
        group : "world" or torch.distributed.ProcessGroup, optional
            The ranks, by default all; any backend, including gloo and nccl. With nccl call
            ``torch.cuda.set_device`` first.

        Returns
        -------
        StreamingCovariance
            The same bits on every rank: those of one process that merges the accumulators in the
            order of ranks. This accumulator does not change.

        Raises
        ------
        StateError
            There is no process group; the ranks differ in layers; a rank died or did not answer
            within the time limit of the group.

        Notes
        -----
        Every rank must call it. Ranks may have seen different numbers of batches, or none. Each
        sends at most 16 P² bytes. Samples that a ``DistributedSampler`` repeats count twice here:
        leave them out of the batches.
        """
        merged = StreamingCovariance()
        for state in gather_made("StreamingCovariance.all_reduce", self.state_dict, group):
            merged.merge(StreamingCovariance.from_state_dict(state))
        return merged

    def state_dict(self) -> dict[str, Any]:
        """Return everything accumulated as a dict of NumPy arrays, numbers, strings and lists."""
        return {
            "format": FORMAT,
            "repsim_version": __version__,
            "layers_x": dict(self.layers_x),
            "layers_y": None if self.layers_y is None else dict(self.layers_y),
            "n_batches": self.n_batches,
            "double": list(self._double.values()),
            **self._rows.as_plain(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> StreamingCovariance:
        """Return an accumulator with this state.

        Parameters
        ----------
        state : mapping
            A result of :meth:`state_dict`.

        Raises
        ------
        StateError
            If it is not such a state, or has another format.
        """
        keys = {"layers_x", "layers_y", "n_batches", "double", "triangle", "waiting"}
        require_state("StreamingCovariance", state, FORMAT, keys)
        acc = cls()
        acc.layers_x = dict(state["layers_x"])
        acc.layers_y = None if state["layers_y"] is None else dict(state["layers_y"])
        acc.n_batches = int(state["n_batches"])
        both = [("xs", name) for name in acc.layers_x]
        both += [("ys", name) for name in acc.layers_y or {}]
        acc._double = dict(zip(both, map(bool, state["double"]), strict=True))
        acc._rows = Rows.from_plain(state)
        return acc
