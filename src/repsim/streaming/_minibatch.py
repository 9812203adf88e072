"""Minibatch CKA: all layer pairs of two models, from batches, by unbiased HSIC."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace, device

from repsim._array import (
    accumulator_dtype,
    host_resident,
    namespace,
    require_square,
    same_home,
    to_numpy,
    unlabelled_sides,
    unpromoted_samples,
)
from repsim._errors import (
    DegenerateWarning,
    InputError,
    NonFiniteError,
    StateError,
    warn,
)
from repsim._typing import Array, Namespace
from repsim._version import __version__
from repsim.estimators import Products, alignment, permutation_variance
from repsim.kernels import Kernel, resolve_kernel
from repsim.streaming._blocks import BlockSums, Sums
from repsim.streaming._distributed import gather
from repsim.streaming._pairs import distinct, flat_centred, pair_products, self_products
from repsim.streaming._pilot import PilotKernels
from repsim.streaming._state import (
    FORMAT,
    blocks_from_state,
    blocks_state,
    kernel_from_state,
    kernel_state,
)

if TYPE_CHECKING:
    import xarray

__all__ = ["MIN_BATCH", "MinibatchCKA"]

_STATE_KEYS = frozenset(
    (
        *("kernel", "bandwidths_x", "bandwidths_y", "layers_x", "layers_y", "first_bad", "blocks"),
        *("n_samples", "n_batches", "n_skipped_batches", "n_skipped_samples"),
        "null_sd",
    )
)

MIN_BATCH = 4
"""The unbiased HSIC needs four samples; the weight n(n − 3) of a smaller batch is not positive."""


class MinibatchCKA:
    """Unbiased CKA of all pairs of named activations, accumulated over batches.

    ::

        CKA = Σ_b w_b h_b(x, y) / √(Σ_b w_b h_b(x, x) · Σ_b w_b h_b(y, y)),   w_b = n_b(n_b − 3)

    with h_b the unbiased HSIC of batch b (Nguyen, Raghu & Kornblith 2021, Eq. 3; Song et al. 2012,
    Eq. 5). With these weights w_b h_b is the inner product of U-centred Grams, so a short last
    batch counts for as little as it knows. Averaging per-batch CKAs is something else, and wrong.

    Parameters
    ----------
    kernel : str or Kernel, default "linear"
        As in :func:`repsim.cka`. A bandwidth that follows the data is fixed for each layer on the
        first batch it is seen in.

    Attributes
    ----------
    n_samples, n_batches : int
        What has been accumulated.
    n_skipped_batches, n_skipped_samples : int
        Batches of fewer than four samples, and the samples in them: they carry no information
        about an unbiased HSIC, are not an error, and are reported by :meth:`compute`.

    Notes
    -----
    Estimates the CKA of the whole data set when batches are drawn *without* replacement, as a
    shuffled loader does; several passes with reshuffling converge to it. Sampling with replacement
    turns the expectation into the biased HSIC.

    Memory: O((Lx + Ly) n²) during an update and at most 128 (Lx, Ly) matrices in float64 in
    between, however many batches. Cost of an update: the Grams, O(n² Σp), then one matrix product
    of O(Lx Ly n²). Nothing is read back from an accelerator before :meth:`compute`.

    Works on numpy, torch, jax and any array API framework; sums are kept in float64 on the
    device, or on the host where the device has no float64.

    Examples
    --------
    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> acc = repsim.MinibatchCKA()
    >>> for _ in range(8):
    ...     a = rng.standard_normal((64, 10))
    ...     acc.update({"conv1": a, "fc": a[:, :5] + 1}, {"block1": 2 * a})
    >>> result = acc.compute()
    >>> result.sel(layer_x="conv1", layer_y="block1").round(6).item()
    1.0
    >>> result.attrs["n_samples"]
    512
    """

    def __init__(self, *, kernel: str | Kernel = "linear") -> None:
        self.kernel = resolve_kernel("MinibatchCKA", kernel)
        self.reset()

    def reset(self) -> None:
        """Forget everything accumulated: samples, layers and bandwidths."""
        self._pilot_x = PilotKernels(self.kernel)
        self._pilot_y = PilotKernels(self.kernel)
        self._clear()

    def _clear(self) -> None:
        self.layers_x: list[str] = []
        self.layers_y: list[str] | None = None
        self.n_samples = 0
        self.n_batches = 0
        self.n_skipped_batches = 0
        self.n_skipped_samples = 0
        self._sums = BlockSums()
        # Standard deviation of Σ_b ⟨A_b, B_b⟩ where y's samples are permuted in every batch.
        self._null_sd: Array | None = None
        self._indices: dict[tuple[int, ...], Array] = {}
        # First batch in which a layer was not finite, counted on the device: reading it would
        # wait for the accelerator. Infinity for "none".
        self._first_bad: dict[str, Array] = {}

    def spawn(self) -> MinibatchCKA:
        """Return an empty accumulator with this kernel and the bandwidths fixed so far.

        For another worker: accumulators can be merged only if their bandwidths are the same.
        """
        other = MinibatchCKA(kernel=self.kernel)
        other._pilot_x.fitted.update(self._pilot_x.fitted)
        other._pilot_y.fitted.update(self._pilot_y.fitted)
        return other

    # Accumulating

    def update(self, xs: Mapping[str, Array], ys: Mapping[str, Array] | None = None) -> None:
        """Add one batch of named activations.

        Parameters
        ----------
        xs : mapping of str to array, shape (n, ...)
            Activations of the same n samples by layer; trailing axes are flattened. Every batch
            has the same layers; n may change from batch to batch.
        ys : mapping of str to array, shape (n, ...), optional
            Activations of a second model for the same samples; without it, the layers of ``xs``
            are compared with each other. One framework and device for all.

        Raises
        ------
        ArrayTypeError
            Not arrays, or arrays of different frameworks or devices.
        InputError
            Other layers than in the first batch, different n, one-dimensional or empty arrays.
        NonFiniteError
            NaN or infinity in an activation or its Gram, naming the layer and the batch; nothing
            of the batch has been added. On an accelerator :meth:`compute` says so instead.
        """
        operation = "MinibatchCKA.update"
        xs, ys = unlabelled_sides(operation, xs=xs, ys=ys)
        a = self._samples(operation, "xs", xs)
        b = None if ys is None else self._samples(operation, "ys", ys)
        n = self._batch_size(operation, xs, ys)
        if self._skip(n):
            return
        with self._all_or_nothing():
            grams_x = {name: self._pilot_x.gram(name, x) for name, x in a.items()}
            grams_y = (
                None if b is None else {name: self._pilot_y.gram(name, y) for name, y in b.items()}
            )
            self._add(operation, n, grams_x, grams_y)

    def update_grams(self, xs: Mapping[str, Array], ys: Mapping[str, Array] | None = None) -> None:
        """Add one batch of named Gram matrices, computed where the activations were.

        An array that stands under several names (layers that share one tensor) is used once.

        Parameters
        ----------
        xs, ys : mapping of str to array, shape (n, n)
            As in :meth:`update`, with the Gram matrix of each layer in place of its activations.
            For a linear kernel, of *centred* features: raw Grams cancel in float32.

        Raises
        ------
        ArrayTypeError, InputError, NonFiniteError
            As :meth:`update`; also if a Gram is not square.
        """
        operation = "MinibatchCKA.update_grams"
        for side, arrays in (("xs", xs), ("ys", {} if ys is None else ys)):
            self._check_home(operation, side, arrays)
            for name, k in arrays.items():
                require_square(operation, k, f"{side}[{name!r}]")
        n = self._batch_size(operation, xs, ys)
        if not self._skip(n):
            with self._all_or_nothing():
                self._add(operation, n, xs, ys)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Let a batch that is refused leave no trace: neither layers nor bandwidths."""
        layers = list(self.layers_x), None if self.layers_y is None else list(self.layers_y)
        fitted = dict(self._pilot_x.fitted), dict(self._pilot_y.fitted)
        try:
            # What is not finite is reported by name; NumPy's own warnings would only add noise.
            with np.errstate(all="ignore"):
                yield
        except BaseException:
            self.layers_x, self.layers_y = layers
            self._pilot_x.fitted, self._pilot_y.fitted = fitted
            raise

    def _add(
        self, operation: str, n: int, xs: Mapping[str, Array], ys: Mapping[str, Array] | None
    ) -> None:
        self._check_layers(operation, xs, ys)
        unique_x, index_x = distinct([xs[name] for name in self.layers_x])
        xp = array_namespace(unique_x[0])
        a = flat_centred(xp, unique_x)
        if ys is None:
            square = pair_products(xp, a, a)
            xy = self._expand(xp, square, index_x, index_x)
            xx = yy = xp.linalg.diagonal(xy)
        else:
            assert self.layers_y is not None
            unique_y, index_y = distinct([ys[name] for name in self.layers_y])
            b = flat_centred(xp, unique_y)
            xy = self._expand(xp, pair_products(xp, a, b), index_x, index_y)
            xx = self._expand(xp, self_products(xp, a), index_x)
            yy = self._expand(xp, self_products(xp, b), index_y)
        self._watch(operation, xp, "x", self.layers_x, xx)
        if ys is not None:
            self._watch(operation, xp, "y", self.layers_y or [], yy)
        if accumulator_dtype(xp, xy) != xp.float64:
            xy, xx, yy = (to_numpy(v).astype(np.float64) for v in (xy, xx, yy))
        self._sums.add(Sums(xy, xx, yy, 1))
        self._null_sd = _root_sum(self._null_sd, _null_sd(xx, yy, n))
        self.n_samples += n
        self.n_batches += 1

    def _expand(self, xp: Namespace, values: Array, *indices: tuple[int, ...]) -> Array:
        """Give every layer the entry of the distinct array that it shares."""
        for axis, index in enumerate(indices):
            if index == tuple(range(values.shape[axis])):
                continue
            kept = self._indices.get(index)
            if kept is None or not same_home(kept, values):
                kept = xp.asarray(list(index), device=device(values))
                self._indices[index] = kept  # uploading it for every batch would wait
            values = xp.take(values, kept, axis=axis)
        return values

    def _watch(
        self, operation: str, xp: Namespace, side: str, layers: Sequence[str], selves: Array
    ) -> None:
        bad = ~xp.isfinite(selves)
        if host_resident(selves):
            if bool(xp.any(bad)):
                names = [name for name, b in zip(layers, to_numpy(bad), strict=True) if b]
                raise self._not_finite(operation, side, names, self._seen)
            return
        now = xp.full_like(selves, float("inf"))
        now = xp.where(bad, xp.full_like(selves, float(self._seen)), now)
        self._first_bad[side] = _earlier(self._first_bad.get(side), now)

    def _not_finite(
        self, operation: str, side: str, names: Sequence[str], batch: int
    ) -> NonFiniteError:
        listed = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
        return NonFiniteError(
            f"{operation}: activations must be finite, and so must their Gram.\n"
            f"  {side}, batch {batch} (counted from 0), "
            f"{len(names)} layer(s): {listed}\n"
            f"  Look at the first of them: half precision overflows at 65504, and features above "
            f"1e17 overflow a float32 Gram. The batches before are kept."
        )

    @property
    def _seen(self) -> int:
        """The number of the next batch, as the caller counts: short ones count."""
        return self.n_batches + self.n_skipped_batches

    # Checks

    def _samples(self, operation: str, side: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        self._check_home(operation, side, arrays)
        return {
            name: unpromoted_samples(operation, x, f"{side}[{name!r}]")
            for name, x in arrays.items()
        }

    @staticmethod
    def _check_home(operation: str, side: str, arrays: Mapping[str, Array]) -> None:
        if not isinstance(arrays, Mapping):
            raise InputError(
                f"{operation}: {side} must map layer names to arrays.\n"
                f"  got {type(arrays).__name__}\n"
                f"  For two arrays use repsim.cka(x, y), or name them: {{'x': x}}, {{'y': y}}."
            )
        first: tuple[str, Array] | None = None
        checked = set()
        for name, x in arrays.items():
            # What is checked is a matter of these: of hundreds of layers one or two are asked.
            home = type(x), str(getattr(x, "device", "")), str(getattr(x, "layout", ""))
            if home in checked:
                continue
            label = f"{side}[{name!r}]"
            if first is None:
                first = (label, x)
            namespace(operation, **{first[0]: first[1], label: x})
            checked.add(home)

    @staticmethod
    def _batch_size(operation: str, xs: Mapping[str, Array], ys: Mapping[str, Array] | None) -> int:
        named = [("xs", k, v) for k, v in xs.items()] + [
            ("ys", k, v) for k, v in (ys or {}).items()
        ]
        if not xs or (ys is not None and not ys):
            raise InputError(
                f"{operation}: there are no layers in {'xs' if not xs else 'ys'}.\n"
                f"  Pass at least one named array."
            )
        side, name, first = named[0]
        if ys is not None:
            namespace(operation, xs=first, ys=next(iter(ys.values())))
        for other_side, other, x in named:
            if x.shape[0] != first.shape[0]:
                raise InputError(
                    f"{operation}: all layers must describe the same samples.\n"
                    f"  {side}[{name!r}]: {tuple(first.shape)} → n={first.shape[0]}    "
                    f"{other_side}[{other!r}]: {tuple(x.shape)} → n={x.shape[0]}\n"
                    f"  Is axis 0 the sample axis in both?"
                )
        return first.shape[0]

    def _skip(self, n: int) -> bool:
        if n >= MIN_BATCH:
            return False
        self.n_skipped_batches += 1
        self.n_skipped_samples += n
        return True

    def _check_layers(
        self, operation: str, xs: Mapping[str, Array], ys: Mapping[str, Array] | None
    ) -> None:
        if not self.layers_x:
            self.layers_x = list(xs)
            self.layers_y = None if ys is None else list(ys)
        if (ys is None) != (self.layers_y is None):
            raise InputError(
                f"{operation}: ys was {'left out' if ys is None else 'given'}, unlike in the first "
                f"batch.\n  Compare one model with itself or two models, in one accumulator."
            )
        for side, known, arrays in (
            ("xs", self.layers_x, xs),
            ("ys", self.layers_y or [], ys or {}),
        ):
            if arrays.keys() == set(known):
                continue
            missing = [name for name in known if name not in arrays]
            extra = [name for name in arrays if name not in known]
            raise InputError(
                f"{operation}: {side} must have the layers of the first batch.\n"
                f"  missing: {missing[:8]}    new: {extra[:8]}\n"
                f"  A layer that runs in some batches only cannot be compared over all."
            )

    # Results

    def compute(self) -> xarray.DataArray:
        """Return the CKA of every layer of x with every layer of y.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            float64, in [−1, 1]; coordinates are the layer names in the order of the first batch;
            ``attrs`` hold estimator, kernel, precision, n_samples, n_batches, n_skipped_batches,
            n_skipped_samples and repsim_version.

        Raises
        ------
        StateError
            If there was no batch of at least four samples.
        NonFiniteError
            If a layer was not finite on an accelerator, naming layer and batch; ``partial`` holds
            the result, NaN for those layers.

        Warns
        -----
        RepsimWarning
            If batches of fewer than four samples were skipped.
        DegenerateWarning
            If a layer is constant within every batch: its row is NaN.
        """
        result = self._labelled(self._values("compute"), "cka")
        for side, layers in (("x", self.layers_x), ("y", self.layers_y or [])):
            if side in self._first_bad:
                first = to_numpy(self._first_bad[side])
                names = [name for name, b in zip(layers, first, strict=True) if np.isfinite(b)]
                if names:
                    error = self._not_finite("MinibatchCKA.compute", side, names, int(first.min()))
                    error.partial = result.to_dataset()
                    raise error
        self._report()
        return result

    def standard_error(self) -> xarray.DataArray:
        """Return the delete-one-batch jackknife standard error of :meth:`compute`.

        ::

            SE = √((k − 1)/k · Σ_b (θ₍₋b₎ − θ̄)²)

        with θ₍₋b₎ the CKA without batch b and k batches; an interval is θ ± t_{k−1} SE. Beyond 128
        batches whole blocks of 2, 4, 8, ... neighbouring batches are left out instead, so that
        memory stays bounded. The number of blocks k is in ``attrs["n_blocks"]``.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            float64, at least zero; NaN (and a ``RepsimWarning``) for a single batch.

        Raises
        ------
        StateError
            If there was no batch of at least four samples.
        """
        self._require("standard_error")
        if len(self._sums.blocks) < 2:
            warn(
                "MinibatchCKA.standard_error: one batch has no spread; NaN is returned. Use "
                "smaller batches to get several.",
            )
        out = self._labelled(self._sums.jackknife(), "standard_error")
        out.attrs["n_blocks"] = len(self._sums.blocks)
        return out

    def z_scores(self) -> xarray.DataArray:
        """Return how far each CKA lies above chance, in standard deviations.

        ::

            z = Σ_b w_b h_b(x, y) / √(Σ_b Var_b),   Var_b = 2 ‖A_b‖² ‖B_b‖² / (n_b(n_b − 3))

        Var_b is the variance of w_b h_b(x, y) = ⟨A_b, B_b⟩ over all permutations of y's samples
        within batch b, exact for any data, and its mean is zero; batches are permuted
        independently. Nothing is permuted: the cost is that of one more (Lx, Ly) matrix.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            float64, without unit, around 0 for independent layers; NaN for a constant layer.

        Raises
        ------
        StateError
            If there was no batch of at least four samples.

        Notes
        -----
        The samples of a batch must be exchangeable: several crops or tokens of one image are not,
        and make z too large. Over many batches z of independent layers is close to normal; over
        few it is skewed to the right, so that large values are less rare (z > 3 with a probability
        of at most 1/(1 + 9), Cantelli, and of some 2 % for one batch of layers with one direction
        each). A map has many entries: for an error rate of all of it use :func:`repsim.max_t`.

        z measures evidence, and grows with the number of samples; how alike two layers are is said
        by :meth:`compute`, and how well that is known by :meth:`standard_error`.

        References
        ----------
        Song et al. 2012, JMLR 13, Eq. 5; Székely, Rizzo 2014, for the U-centred Grams A, B.
        """
        self._require("z_scores")
        assert self._null_sd is not None, "a batch has been added"
        sd, sums = to_numpy(self._null_sd), to_numpy(self._sums.total().xy)
        values = np.full(sd.shape, np.nan)
        np.divide(sums, sd, out=values, where=sd > 0)
        return self._labelled(values, "z")

    def _require(self, method: str) -> None:
        if not self.n_batches:
            raise StateError(
                f"MinibatchCKA.{method}: there is nothing to compute from.\n"
                f"  batches of at least {MIN_BATCH} samples: 0, shorter ones: "
                f"{self.n_skipped_batches}\n"
                f"  Call update with batches of {MIN_BATCH} samples or more first."
            )

    def _values(self, method: str) -> np.ndarray[Any, np.dtype[Any]]:
        self._require(method)
        total = self._sums.total()
        values = alignment(np, Products(total.xy, total.xx[:, None], total.yy[None, :]))
        for side, layers, selves in (
            ("x", self.layers_x, total.xx),
            ("y", self.layers_y or [], total.yy),
        ):
            constant = [layers[i] for i in np.flatnonzero(to_numpy(selves) == 0)] if layers else []
            if constant:
                warn(
                    f"MinibatchCKA: constant over the samples of every batch, so its CKA is "
                    f"undefined (NaN): {side} {', '.join(map(repr, constant))}.",
                    DegenerateWarning,
                )
        return to_numpy(values)

    def _report(self) -> None:
        if self.n_skipped_batches:
            warn(
                f"MinibatchCKA: {self.n_skipped_batches} batch(es) of fewer than {MIN_BATCH} "
                f"samples ({self.n_skipped_samples} samples in all) were left out.",
            )

    def _labelled(self, values: Any, name: str) -> xarray.DataArray:
        import xarray

        layers_y = self.layers_x if self.layers_y is None else self.layers_y
        return xarray.DataArray(
            values,
            dims=("layer_x", "layer_y"),
            coords={"layer_x": list(self.layers_x), "layer_y": list(layers_y)},
            name=name,
            attrs={
                "estimator": "minibatch unbiased",
                "kernel": repr(self.kernel),
                "precision": getattr(self.kernel, "precision", "the kernel's own"),
                "n_samples": self.n_samples,
                "n_batches": self.n_batches,
                "n_skipped_batches": self.n_skipped_batches,
                "n_skipped_samples": self.n_skipped_samples,
                "repsim_version": __version__,
            },
        )

    # Several accumulators

    def merge(self, other: MinibatchCKA) -> MinibatchCKA:
        """Add everything another accumulator has seen to this one, and return this one.

        The value does not depend on the order of merging, to rounding of float64 sums.

        Parameters
        ----------
        other : MinibatchCKA
            Of the same kernel, bandwidths and layers; it is not changed.

        Raises
        ------
        StateError
            If the two do not belong together, saying what differs.
        """
        self._pilot_x.agree(other._pilot_x)
        self._pilot_y.agree(other._pilot_y)
        if other.layers_x:
            if not self.layers_x:
                self.layers_x = list(other.layers_x)
                self.layers_y = None if other.layers_y is None else list(other.layers_y)
            if (self.layers_x, self.layers_y) != (other.layers_x, other.layers_y):
                raise StateError(
                    f"MinibatchCKA.merge: both accumulators must have the same layers in the same "
                    f"order.\n  this: {_names(self)}\n  other: {_names(other)}"
                )
        self._pilot_x.fitted = {**other._pilot_x.fitted, **self._pilot_x.fitted}
        self._pilot_y.fitted = {**other._pilot_y.fitted, **self._pilot_y.fitted}
        self._sums.merge(other._sums)
        if other._null_sd is not None:
            self._null_sd = _root_sum(self._null_sd, other._null_sd)
        for side, first in other._first_bad.items():
            later = first + float(self._seen)
            self._first_bad[side] = _earlier(self._first_bad.get(side), later)
        self.n_samples += other.n_samples
        self.n_batches += other.n_batches
        self.n_skipped_batches += other.n_skipped_batches
        self.n_skipped_samples += other.n_skipped_samples
        return self

    def all_reduce(self, group: Any = None) -> MinibatchCKA:
        """Return a new accumulator of everything that all ranks of torch.distributed have seen.

        ::

            sums = Σ_r sums_r,   r = 0, 1, ..., in the order of ranks

        Parameters
        ----------
        group : torch.distributed.ProcessGroup, optional
            The ranks, by default all of them; any backend, gloo and nccl among them. With nccl
            call ``torch.cuda.set_device`` before.

        Returns
        -------
        MinibatchCKA
            The same bits on every rank, and those of one process that merges the ranks'
            accumulators in their order. Up to 128 batches in all, they are those of one process
            that saw rank 0's batches, then rank 1's, ...; beyond, blocks are joined in another
            order and the sums agree to float64 rounding. This accumulator stays as it is.

        Raises
        ------
        StateError
            No process group; ranks of other kernels, bandwidths or layers; a rank that died or did
            not answer within the group's time limit.

        Notes
        -----
        Every rank must call it. A rank may have seen nothing, and ranks may have seen different
        numbers of batches. A bandwidth that follows the data must be the same on all: show one
        accumulator the pilot batch, or give the kernel a sigma. Samples that a
        ``DistributedSampler`` repeats to even out the ranks count twice here: leave them out of
        the batches, or use ``repsim.compare(group=..., sample_ids=...)``. Each rank sends its
        blocks, at most 128 (Lx, Ly) float64 matrices.
        """
        merged = MinibatchCKA(kernel=self.kernel)
        for state in gather("MinibatchCKA.all_reduce", self.state_dict(), group):
            # Merged alike on every rank, not summed by the transport: the same bits everywhere, and
            # the blocks of a jackknife; what does not fit together is refused on every rank.
            merged.merge(MinibatchCKA.from_state_dict(state, kernel=self.kernel))
        return merged

    def block_sums(self) -> BlockSums:
        """Return the sums behind the result, by block of batches, as NumPy arrays.

        For what is linear in HSIC: sums of layers, partial CKA. ``blocks[b].xy`` is Σ w h(x, y) of
        block b, (Lx, Ly), ``xx`` and ``yy`` those of each layer with itself.
        """
        return self._sums.on_host()

    def state_dict(self) -> dict[str, Any]:
        """Return everything accumulated as a dict of NumPy arrays, numbers, strings and lists."""
        return {
            "format": FORMAT,
            "repsim_version": __version__,
            "kernel": kernel_state(self.kernel),
            "bandwidths_x": self._pilot_x.bandwidths(),
            "bandwidths_y": self._pilot_y.bandwidths(),
            "layers_x": list(self.layers_x),
            "layers_y": None if self.layers_y is None else list(self.layers_y),
            "n_samples": self.n_samples,
            "n_batches": self.n_batches,
            "n_skipped_batches": self.n_skipped_batches,
            "n_skipped_samples": self.n_skipped_samples,
            "first_bad": {side: to_numpy(first) for side, first in self._first_bad.items()},
            "blocks": blocks_state(self._sums),
            "null_sd": None if self._null_sd is None else to_numpy(self._null_sd),
        }

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], *, kernel: Kernel | None = None
    ) -> MinibatchCKA:
        """Return an accumulator that goes on where the one that gave the state stood.

        Parameters
        ----------
        state : mapping
            What :meth:`state_dict` returned.
        kernel : Kernel, optional
            Needed only for a kernel that is not one of :mod:`repsim.kernels`.

        Raises
        ------
        StateError
            If it is not such a state, or one of another format.
        """
        if not isinstance(state, Mapping) or state.get("format") != FORMAT:
            got = state.get("format") if isinstance(state, Mapping) else type(state).__name__
            raise StateError(
                f"MinibatchCKA.from_state_dict: not a state of this accumulator.\n"
                f"  expected format {FORMAT!r}, got {got!r}"
            )
        missing = sorted(_STATE_KEYS - state.keys())
        if missing:
            raise StateError(
                f"MinibatchCKA.from_state_dict: the state is incomplete.\n  missing: {missing}\n"
                f"  Was it cut off while it was saved? Go back to an earlier one."
            )
        if kernel is not None and kernel_state(kernel) != state["kernel"]:
            raise StateError(
                f"MinibatchCKA.from_state_dict: the state is of another kernel.\n"
                f"  state: {state['kernel']}    kernel: {kernel!r}"
            )
        acc = cls(kernel=kernel_from_state(state["kernel"]) if kernel is None else kernel)
        acc.layers_x = list(state["layers_x"])
        acc.layers_y = None if state["layers_y"] is None else list(state["layers_y"])
        for name in ("n_samples", "n_batches", "n_skipped_batches", "n_skipped_samples"):
            setattr(acc, name, int(state[name]))
        acc._pilot_x.restore(state["bandwidths_x"])
        acc._pilot_y.restore(state["bandwidths_y"])
        acc._first_bad = {side: np.array(first) for side, first in state["first_bad"].items()}
        acc._sums = blocks_from_state(state["blocks"])
        acc._null_sd = None if state["null_sd"] is None else np.array(state["null_sd"])
        return acc


def _earlier(a: Array | None, b: Array) -> Array:
    """Return the element-wise minimum; on the host if the two live apart."""
    if a is None:
        return b
    if not same_home(a, b):
        a, b = to_numpy(a), to_numpy(b)
    out: Array = array_namespace(a).minimum(a, b)
    return out


def _null_sd(xx: Array, yy: Array, n: int) -> Array:
    """Return the standard deviation of ⟨A, B⟩ over permutations of a batch of n, (Lx, Ly)."""
    xp = array_namespace(xx)
    # Roots first: the product of two self-products overflows.
    out: Array = xp.sqrt(xx)[:, None] * (xp.sqrt(yy) * math.sqrt(permutation_variance(n)))[None, :]
    return out


def _root_sum(a: Array | None, b: Array) -> Array:
    """Return √(a² + b²), on the host if the two live apart; variances of what is independent."""
    if a is None:
        return b
    if not same_home(a, b):
        a, b = to_numpy(a), to_numpy(b)
    out: Array = array_namespace(a).hypot(a, b)
    return out


def _names(acc: MinibatchCKA) -> str:
    sides = [acc.layers_x] + ([] if acc.layers_y is None else [acc.layers_y])
    return " × ".join(f"{len(side)} layers {side[:3]}" for side in sides)
