"""Exact linear CKA from batches that are seen once, from sums of covariances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._distributed import gather_made
from repsim._errors import DegenerateWarning, StateError, warn
from repsim._typing import Array, EstimatorName
from repsim._version import __version__
from repsim.arrays import array_namespace, same_home, to_numpy, without_autocast
from repsim.estimators import Products, above_rounding, alignment, resolve_estimator, warn_of_matrix
from repsim.kernels import column_means
from repsim.results import map_of_layers
from repsim.streaming._checks import (
    require_alike,
    require_fourth_powers,
    require_same_columns,
    require_state,
    summary,
)
from repsim.streaming.covariance._batch import named_batch
from repsim.streaming.covariance._linear_cka_sums import Cuts, Moments, column_slices

if TYPE_CHECKING:
    import xarray

__all__ = ["StreamingLinearCKA"]

FORMAT = "repsim.StreamingLinearCKA/1"

SMALLEST = 2.0**-970
"""The smallest sum of products of four features that has all digits, though some of them vanish."""


class StreamingLinearCKA:
    """Exact linear CKA of all layer pairs over all samples, from batches that are seen once.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 8)) + 30
    >>> y = x[:, :3] + rng.standard_normal((100, 3))
    >>> acc = repsim.StreamingLinearCKA(estimator="biased")
    >>> for rows in (slice(0, 1), slice(1, 60), slice(60, 100)):
    ...     acc.update({"conv1": x[rows]}, {"block1": y[rows]})
    >>> bool(abs(acc.compute().item() - repsim.cka(x, y)) < 1e-12)
    True

    ::

        biased     ⟨A, B⟩ = ‖XᵀY‖²_F
        unbiased   ⟨A, B⟩ = ‖XᵀY‖²_F − n/(n−2) Σ a_i b_i + Σa Σb/((n−1)(n−2)),   a_i = ‖x_i‖²
        CKA = ⟨A, B⟩ / (√⟨A, A⟩ · √⟨B, B⟩)

    of features centred by the means of *all* samples. The sums are taken about a shift and moved to
    those means at the end. The value is that of :func:`repsim.cka` on all samples at once, for any
    batches in any order.

    Parameters
    ----------
    estimator : {"unbiased", "biased"}, default "unbiased"
        As in :func:`repsim.cka`.

    Attributes
    ----------
    n_samples, n_batches : int
        What has been accumulated. Batches may have any size, even one sample.

    Notes
    -----
    Use this class for the linear kernel if batches are seen once and the covariances of all pairs
    fit in memory: 8 Σp Σq bytes, and 8 Σp² more for each of two models. With more features, or
    another kernel, use :class:`MinibatchCKA`, which estimates the same value from the Grams of
    batches, with a standard error. :func:`cka_matrix` computes it exactly from stored activations.
    :class:`StreamingCovariance` computes the same and other measures.

    Cost of an update: O(n Σp Σq) multiplications in float64, on the device of the batch if it has
    float64, else on the CPU. Invariances and bias are those of linear CKA with this estimator.

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414, Eq. 5. Song et al. 2012, Eq. 5. Chan, Golub, LeVeque
    1983, "Algorithms for computing the sample variance", for sums about a shift.
    """

    def __init__(self, *, estimator: EstimatorName = "unbiased") -> None:
        self._estimator = resolve_estimator("StreamingLinearCKA", estimator)
        self.reset()

    @property
    def estimator(self) -> str:
        """Name of the estimator."""
        return self._estimator.name

    def reset(self) -> None:
        """Forget everything accumulated."""
        self.layers_x: dict[str, int] = {}
        self.layers_y: dict[str, int] | None = None
        self.n_batches = 0
        # Without ys: one set of sums, x with x. With ys: x with y, and every layer with itself.
        self._moments: list[Moments] = []

    @property
    def n_samples(self) -> int:
        """Samples accumulated."""
        return self._moments[0].n if self._moments else 0

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
        operation, first = "StreamingLinearCKA.update", (self.layers_x, self.layers_y)
        batch = named_batch(operation, xs, ys, self.n_batches, first, require_fourth_powers)
        if not self.n_batches:
            self.layers_x, self.layers_y = batch.widths
        self._add(batch.x, batch.y)

    def _add(self, x: dict[str, Array], y: dict[str, Array] | None) -> None:
        moments = []
        for index, (cuts, z, w) in enumerate(self._stacks(x, y)):
            before = self._moments[index] if self._moments else None
            if before is not None and same_home(before.zw, z):
                shifts = before.shift_z, before.shift_w
            else:
                xp = array_namespace(z)
                shifts = column_means(xp, z)[0, :], column_means(xp, w)[0, :]
            found = Moments.of(z, w, *shifts, cuts)
            moments.append(found if before is None else before.plus(found, cuts))
        self._moments = moments
        self.n_batches += 1

    def _stacks(
        self, x: dict[str, Array], y: dict[str, Array] | None
    ) -> list[tuple[Cuts, Array, Array]]:
        xs = [x[name] for name in self.layers_x]
        xp = array_namespace(xs[0])
        z = xp.concat(xs, axis=1)
        if y is None:
            return [(self._cuts()[0], z, z)]
        ys = [y[name] for name in self.layers_y or {}]
        w = xp.concat(ys, axis=1)
        each = [*xs, *ys]
        sides = [(z, w), *((v, v) for v in each)]
        return [(cuts, a, b) for cuts, (a, b) in zip(self._cuts(), sides, strict=True)]

    def _cuts(self) -> list[Cuts]:
        cut_x = column_slices([*self.layers_x.values()])
        if self.layers_y is None:
            return [Cuts(cut_x, cut_x)]
        each = [*self.layers_x.values(), *self.layers_y.values()]
        own = [(slice(0, p),) for p in each]
        return [Cuts(cut_x, column_slices([*self.layers_y.values()])), *(Cuts(c, c) for c in own)]

    # Results

    @without_autocast
    def compute(self) -> xarray.DataArray:
        """Return the CKA of every layer of x with every layer of y.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            float64, in [−1, 1] (biased: [0, 1]), without unit; coordinates are the layer names in
            the order of the first batch; ``attrs`` hold estimator, kernel, n_samples, n_batches
            and repsim_version.

        Raises
        ------
        StateError
            If there were fewer than four samples (biased: two).

        Warns
        -----
        DegenerateWarning
            If a layer is constant, or so small that the fourth powers of its features vanish: its
            row is NaN. Multiply such features by a power of two.
        ChanceWarning
            If biased CKA of independent data would be above 0.1; once.
        """
        least = self._estimator.min_samples
        if self.n_samples < least:
            raise StateError(
                f"StreamingLinearCKA.compute: estimator={self.estimator!r} needs at least {least} "
                f"samples.\n  accumulated: {self.n_samples}\n  Call update with more of them first."
            )
        unbiased, cuts = self.estimator == "unbiased", self._cuts()
        both = zip(self._moments, cuts, strict=True)
        found = [moments.products(cut, unbiased=unbiased) for moments, cut in both]
        lx = len(self.layers_x)
        xy = found[0]
        if self.layers_y is None:
            selves, own = np.diagonal(xy).copy(), self._moments
        else:
            selves, own = np.array([one.item() for one in found[1:]]), self._moments[1:]
        # Σ ‖x_i‖² about the shift: at least that about the mean, and zero for a constant.
        traces = np.concatenate([to_numpy(moments.a) for moments in own])
        selves = above_rounding(np, selves, traces**2, np.float64)
        selves = np.where(selves < SMALLEST, 0.0, selves)
        xx, yy = selves[:lx], selves if self.layers_y is None else selves[lx:]
        names = [f"x {n!r}" for n in self.layers_x] + [f"y {n!r}" for n in self.layers_y or {}]
        constant = [name for name, value in zip(names, selves, strict=True) if value == 0]
        if constant:
            warn(
                f"StreamingLinearCKA: constant over the samples, or below 1e-72, where fourth "
                f"powers vanish, so its CKA is undefined (NaN): {', '.join(constant)}.",
                DegenerateWarning,
            )
        if not unbiased:
            spread = Moments.all_traces(own, cuts[-len(own) :])
            x, y = names[:lx], names[lx:] or None
            warn_of_matrix("StreamingLinearCKA", self.n_samples, spread, selves, x, y)
        return map_of_layers(
            to_numpy(alignment(np, Products(xy, xx[:, None], yy[None, :]))),
            self.layers_x,
            self.layers_x if self.layers_y is None else self.layers_y,
            "cka",
            {
                "estimator": self.estimator,
                "kernel": "Linear()",
                "n_samples": self.n_samples,
                "n_batches": self.n_batches,
                "repsim_version": __version__,
            },
        )

    @without_autocast
    def merge(self, other: StreamingLinearCKA) -> StreamingLinearCKA:
        """Add everything that another accumulator has seen to this one, and return this one.

        Parameters
        ----------
        other : StreamingLinearCKA
            Must have the same estimator and layers; it is not changed.

        Raises
        ------
        StateError
            The two do not belong together; the message says what differs.
        """
        require_alike(self, other)
        if self.estimator != other.estimator:
            raise StateError(
                f"StreamingLinearCKA.merge: both must have one estimator.\n"
                f"  this: {self.estimator}    other: {other.estimator}\n  Start both alike."
            )
        if not other.n_batches:
            return self
        if not self.n_batches:
            self.layers_x, self.layers_y = other.layers_x, other.layers_y
            self._moments = list(other._moments)
        else:
            mine, theirs = (self.layers_x, self.layers_y), (other.layers_x, other.layers_y)
            require_same_columns("StreamingLinearCKA.merge", mine, theirs)
            each = zip(self._moments, other._moments, self._cuts(), strict=True)
            self._moments = [mine.plus(theirs, cuts) for mine, theirs, cuts in each]
        self.n_batches += other.n_batches
        return self

    def all_reduce(self, group: Any = None) -> StreamingLinearCKA:
        """Return a new accumulator of everything that the ranks of torch.distributed have seen.

        Parameters
        ----------
        group : "world" or torch.distributed.ProcessGroup, optional
            The ranks, by default all; any backend, including gloo and nccl. With nccl call
            ``torch.cuda.set_device`` first.

        Returns
        -------
        StreamingLinearCKA
            The same bits on every rank: those of one process that merges in the order of ranks.

        Raises
        ------
        StateError
            There is no process group; the ranks differ in layers or estimator; a rank died or did
            not answer within the time limit of the group.

        Notes
        -----
        Every rank must call it, even one without batches. Repeated samples count twice.
        """
        merged = StreamingLinearCKA(estimator=self._estimator.name)  # type: ignore[arg-type]
        for state in gather_made("StreamingLinearCKA.all_reduce", self.state_dict, group):
            merged.merge(StreamingLinearCKA.from_state_dict(state))
        return merged

    def state_dict(self) -> dict[str, Any]:
        """Return everything accumulated as a dict of NumPy arrays, numbers, strings and lists."""
        hosts = [moments.on_host() for moments in self._moments]
        return {
            "format": FORMAT,
            "repsim_version": __version__,
            "estimator": self.estimator,
            "layers_x": dict(self.layers_x),
            "layers_y": None if self.layers_y is None else dict(self.layers_y),
            "n_batches": self.n_batches,
            "moments": [{f.name: getattr(one, f.name) for f in fields(one)} for one in hosts],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> StreamingLinearCKA:
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
        keys = {"estimator", "layers_x", "layers_y", "n_batches", "moments"}
        require_state("StreamingLinearCKA", state, FORMAT, keys)
        acc = cls(estimator=state["estimator"])
        acc.layers_x = dict(state["layers_x"])
        acc.layers_y = None if state["layers_y"] is None else dict(state["layers_y"])
        acc.n_batches = int(state["n_batches"])
        acc._moments = [Moments(**one) for one in state["moments"]]
        return acc
