"""Minibatch CKA: all layer pairs of two models, from batches, by unbiased HSIC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from repsim._distributed import gather_made
from repsim._errors import StateError
from repsim._typing import Array, KernelName
from repsim._version import __version__
from repsim.arrays import (
    accumulator_dtype,
    array_namespace,
    host_resident,
    to_numpy,
    unlabelled_sides,
    without_autocast,
)
from repsim.kernels import Kernel, resolve_kernel
from repsim.streaming._blocks import BlockSums
from repsim.streaming._checks import (
    batch_size,
    named_grams,
    named_samples,
    not_finite,
    require_alike,
    require_layers,
    require_state,
)
from repsim.streaming._minibatch_results import MIN_BATCH, MinibatchResults
from repsim.streaming._pairs import LayerProducts
from repsim.streaming._pilot import PilotKernels
from repsim.streaming._state import FORMAT, State, kernel_from_state, kernel_state

__all__ = ["MinibatchCKA"]


class MinibatchCKA(MinibatchResults):
    """Unbiased CKA of all pairs of named activations, accumulated over batches.

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

    ::

        CKA = Σ_b w_b h_b(x, y) / √(Σ_b w_b h_b(x, x) · Σ_b w_b h_b(y, y)),   w_b = n_b(n_b − 3)

    with h_b the unbiased HSIC of batch b (Nguyen, Raghu & Kornblith 2021, Eq. 3; Song et al. 2012,
    Eq. 5). With these weights w_b h_b is the inner product of U-centred Grams, and a short last
    batch has a small weight. The average of the CKAs of batches estimates another quantity.

    Parameters
    ----------
    kernel : str or Kernel, default "linear"
        As in :func:`repsim.cka`. A bandwidth that follows the data is fixed for each layer on its
        first batch.

    Attributes
    ----------
    n_samples, n_batches : int
        What has been accumulated.
    n_skipped_batches, n_skipped_samples : int
        Batches of fewer than four samples, and the samples in them. Unbiased HSIC is undefined for
        them. They are skipped without an error, and :meth:`compute` reports them.

    Notes
    -----
    This estimates the CKA of the whole data set if batches are drawn *without* replacement, as a
    shuffled loader does. Several passes with reshuffling converge to it. With replacement, the
    expectation is the biased HSIC.

    Memory: O((Lx + Ly) n²) during an update, and between updates at most 128 (Lx, Ly) matrices in
    float64 for any number of batches. Cost of an update: the Grams, O(n² Σp), then one matrix
    product of O(Lx Ly n²). No value is read from an accelerator before :meth:`compute`.

    It works with numpy, torch, jax and any array API framework. Sums are in float64 on the device,
    or on the CPU if the device has no float64.
    """

    def __init__(self, *, kernel: KernelName | Kernel = "linear") -> None:
        self.kernel = resolve_kernel("MinibatchCKA", kernel)
        self.reset()

    def reset(self) -> None:
        """Forget everything accumulated: samples, layers and bandwidths."""
        self._pilot_x = PilotKernels(self.kernel)
        self._pilot_y = PilotKernels(self.kernel)
        self._products = LayerProducts()
        self._state = State()

    def spawn(self) -> MinibatchCKA:
        """Return an empty accumulator with this kernel and the bandwidths fixed so far.

        Use it for another worker: only accumulators with equal bandwidths can be merged.
        """
        other = MinibatchCKA(kernel=self.kernel)
        other._pilot_x.fitted.update(self._pilot_x.fitted)
        other._pilot_y.fitted.update(self._pilot_y.fitted)
        return other

    # Accumulating

    @without_autocast
    def update(self, xs: Mapping[str, Array], ys: Mapping[str, Array] | None = None) -> None:
        """Add one batch of named activations.

        Parameters
        ----------
        xs : mapping of str to array, shape (n, ...)
            Activations of the same n samples by layer; trailing axes are flattened. Every batch
            has the same layers; n may change from batch to batch.
        ys : mapping of str to array, shape (n, ...), optional
            Activations of a second model for the same samples. Without it, the layers of ``xs`` are
            compared with each other. One framework and device for all.

        Raises
        ------
        ArrayTypeError
            Not arrays, or arrays of different frameworks or devices.
        InputError
            Other layers than in the first batch, different n, one-dimensional or empty arrays.
        NonFiniteError
            NaN or infinity in an activation or its Gram; the message names layer and batch, and the
            batch adds nothing. On an accelerator :meth:`compute` raises instead.
        """
        operation = "MinibatchCKA.update"
        xs, ys = unlabelled_sides(operation, xs=xs, ys=ys)
        a = named_samples(operation, "xs", xs)
        b = None if ys is None else named_samples(operation, "ys", ys)
        n = batch_size(operation, xs, ys)
        with self._all_or_nothing():
            if n >= MIN_BATCH:  # a shorter batch must not fix a bandwidth
                grams_x = {name: self._pilot_x.gram(name, x) for name, x in a.items()}
                grams_y = b and {name: self._pilot_y.gram(name, y) for name, y in b.items()}
                self._add(operation, n, grams_x, grams_y)
            else:
                self._skip(n)

    @without_autocast
    def update_grams(self, xs: Mapping[str, Array], ys: Mapping[str, Array] | None = None) -> None:
        """Add one batch of named Gram matrices.

        An array under several names (layers that share one tensor) is used once.

        Parameters
        ----------
        xs, ys : mapping of str to array, shape (n, n)
            As in :meth:`update`, with the Gram matrix of each layer in place of its activations.
            For a linear kernel they must be of *centred* features, because raw Grams lose digits in
            float32.

        Raises
        ------
        ArrayTypeError, InputError, NonFiniteError
            As :meth:`update`; also if a Gram is not square.
        """
        operation = "MinibatchCKA.update_grams"
        named_grams(operation, "xs", xs)
        named_grams(operation, "ys", {} if ys is None else ys)
        n = batch_size(operation, xs, ys)
        with self._all_or_nothing():
            self._add(operation, n, xs, ys) if n >= MIN_BATCH else self._skip(n)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Undo all changes of a refused batch, including bandwidths."""
        fitted = dict(self._pilot_x.fitted), dict(self._pilot_y.fitted)
        try:
            # Non-finite values are reported by name, so NumPy's warnings are not needed.
            with np.errstate(all="ignore"):
                yield
        except BaseException:
            self._pilot_x.fitted, self._pilot_y.fitted = fitted
            raise

    def _skip(self, n: int) -> None:
        self._state = self._state.plus(State(n_skipped_batches=1, n_skipped_samples=n))

    def _add(
        self, operation: str, n: int, xs: Mapping[str, Array], ys: Mapping[str, Array] | None
    ) -> None:
        layers_x, layers_y = self._state.layers
        if not layers_x:
            layers_x, layers_y = tuple(xs), None if ys is None else tuple(ys)
        require_layers(operation, (layers_x, layers_y), xs, ys)
        grams_y = None if ys is None else [ys[name] for name in layers_y or ()]
        sums, rounding = self._products.of([xs[name] for name in layers_x], grams_y)
        first_bad = self._first_bad(operation, "x", layers_x, sums.xx)
        if layers_y is not None:
            first_bad |= self._first_bad(operation, "y", layers_y, sums.yy)
        if accumulator_dtype(xp := array_namespace(sums.xy), sums.xy) != xp.float64:
            sums = sums.in_double()
        batch = State(
            layers_x=layers_x,
            layers_y=layers_y,
            n_samples=n,
            n_batches=1,
            blocks=BlockSums((sums,)),
            null_sd=sums.null_sd(n),
            rounding=rounding,
            first_bad=first_bad,
        )
        self._state = self._state.plus(batch)

    def _first_bad(
        self, operation: str, side: str, layers: Sequence[str], selves: Array
    ) -> dict[str, Array]:
        """Raise if a layer is not finite; on an accelerator, remember it without waiting."""
        xp = array_namespace(selves)
        bad = ~xp.isfinite(selves)
        if not host_resident(selves):
            never = xp.full_like(selves, float("inf"))
            return {side: xp.where(bad, xp.zeros_like(selves), never)}
        if bool(xp.any(bad)):
            names = [name for name, b in zip(layers, to_numpy(bad), strict=True) if b]
            raise not_finite(operation, side, names, self._state.n_seen)
        return {}

    # Several accumulators

    def merge(self, other: MinibatchCKA) -> MinibatchCKA:
        """Add everything that another accumulator has seen to this one, and return this one.

        The value does not depend on the order of merging, up to rounding of float64 sums.

        Parameters
        ----------
        other : MinibatchCKA
            Must have the same kernel, bandwidths and layers; it is not changed.

        Raises
        ------
        StateError
            The two do not belong together; the message says what differs.
        """
        require_alike(self, other)
        self._pilot_x.agree(other._pilot_x)
        self._pilot_y.agree(other._pilot_y)
        mine, theirs = self._state, other._state
        if mine.layers_x and theirs.layers_x and mine.layers != theirs.layers:
            raise StateError(
                f"MinibatchCKA.merge: both accumulators must have the same layers in the same "
                f"order.\n  this: {_named(mine)}\n  other: {_named(theirs)}"
            )
        self._pilot_x.fitted = {**other._pilot_x.fitted, **self._pilot_x.fitted}
        self._pilot_y.fitted = {**other._pilot_y.fitted, **self._pilot_y.fitted}
        self._state = mine.plus(theirs)
        return self

    def all_reduce(self, group: Any = None) -> MinibatchCKA:
        """Return a new accumulator of everything that the ranks of torch.distributed have seen.

        ::

            sums = Σ_r sums_r,   r = 0, 1, ..., in the order of ranks

        Parameters
        ----------
        group : "world" or torch.distributed.ProcessGroup, optional
            The ranks, by default all; any backend, including gloo and nccl. With nccl call
            ``torch.cuda.set_device`` first.

        Returns
        -------
        MinibatchCKA
            The same bits on every rank: those of one process that merges the accumulators in the
            order of ranks. Up to 128 batches in total, these are the bits of one process that saw
            the batches of rank 0, then those of rank 1, .... Beyond, blocks are joined in another
            order, and the sums agree up to float64 rounding. This accumulator does not change.

        Raises
        ------
        StateError
            There is no process group; the ranks differ in kernel, bandwidths or layers; a rank died
            or did not answer within the time limit of the group.

        Notes
        -----
        Every rank must call it. Ranks may have seen different numbers of batches, or none. A
        bandwidth that follows the data must be the same on all ranks: fix it with one batch and
        :meth:`spawn`, or pass a kernel with sigma. Samples that a ``DistributedSampler`` repeats
        count twice here: leave them out of the batches, or use ``repsim.compare(group=...,
        sample_ids=...)``. Each rank sends its blocks, at most 128 (Lx, Ly) float64 matrices.
        """
        merged = MinibatchCKA(kernel=self.kernel)
        for state in gather_made("MinibatchCKA.all_reduce", self.state_dict, group):
            # Every rank merges all states itself instead of letting the transport sum them. This
            # gives the same bits everywhere, keeps the blocks of the jackknife, and raises on every
            # rank if states do not fit together.
            merged.merge(MinibatchCKA.from_state_dict(state, kernel=self.kernel))
        return merged

    def state_dict(self) -> dict[str, Any]:
        """Return everything accumulated as a dict of NumPy arrays, numbers, strings and lists."""
        return {
            "format": FORMAT,
            "repsim_version": __version__,
            "kernel": kernel_state(self.kernel),
            "bandwidths_x": self._pilot_x.bandwidths(),
            "bandwidths_y": self._pilot_y.bandwidths(),
            **self._state.as_plain(),
        }

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], *, kernel: Kernel | None = None
    ) -> MinibatchCKA:
        """Return an accumulator with this state.

        Parameters
        ----------
        state : mapping
            A result of :meth:`state_dict`.
        kernel : Kernel, optional
            Needed only for a kernel that is not one of :mod:`repsim.kernels`.

        Raises
        ------
        StateError
            If it is not such a state, or has another format.
        """
        require_state("MinibatchCKA", state, FORMAT, cls().state_dict().keys() - {"repsim_version"})
        if kernel is not None and kernel_state(kernel) != state["kernel"]:
            raise StateError(
                f"MinibatchCKA.from_state_dict: the state is of another kernel.\n"
                f"  state: {state['kernel']}    kernel: {kernel!r}"
            )
        acc = cls(kernel=kernel_from_state(state["kernel"]) if kernel is None else kernel)
        acc._pilot_x.restore(state["bandwidths_x"])
        acc._pilot_y.restore(state["bandwidths_y"])
        acc._state = State.from_plain(state)
        return acc


def _named(state: State) -> str:
    sides = [list(side) for side in state.layers if side is not None]
    return " × ".join(f"{len(side)} layers {side[:3]}" for side in sides)
