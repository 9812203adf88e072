"""Exact CKA of all layer pairs of data that does not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim._distributed import RankGroup
from repsim._errors import InputError
from repsim._options import as_count, got, require_bool, require_choice
from repsim._typing import EstimatorName, KernelName
from repsim._version import __version__
from repsim.arrays import check_same_samples, without_autocast
from repsim.estimators import resolve_estimator
from repsim.kernels import Kernel, Linear, resolve_kernel
from repsim.results import map_of_layers, models_of
from repsim.streaming.exact._call import OPERATION, Call, cka_values, described, pilot_rows
from repsim.streaming.exact._dask import all_in_dask
from repsim.streaming.exact._kernels import follows_data, require_blockwise
from repsim.streaming.exact._plan import make_plan
from repsim.streaming.exact._sources import Source, sources_of

if TYPE_CHECKING:
    import xarray

__all__ = ["cka_matrix"]


@without_autocast
def cka_matrix(
    xs: Mapping[str, Any],
    ys: Mapping[str, Any] | None = None,
    *,
    kernel: KernelName | Kernel = "linear",
    estimator: EstimatorName = "unbiased",
    memory: int = 1 << 30,
    block_size: int | None = None,
    dtype: Literal["float32", "float64"] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
    group: Any = None,
) -> xarray.DataArray:
    """Exact CKA of every layer of x with every layer of y, over all samples of stored arrays.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> a = rng.standard_normal((300, 12))
    >>> layers = {"early": a, "late": a[:, :6].reshape(300, 2, 3) + 5}
    >>> result = repsim.cka_matrix(layers, kernel="rbf", estimator="biased")
    >>> exact = repsim.cka(a, a[:, :6], kernel="rbf")
    >>> bool(abs(result.sel(layer_x="early", layer_y="late") - exact) < 1e-10)
    True

    ::

        CKA = ⟨centre(K), centre(L)⟩ / (‖centre(K)‖ · ‖centre(L)‖)

    of the Grams of all n samples, as :func:`repsim.cka` computes it. No Gram is ever in memory as a
    whole.

    Parameters
    ----------
    xs : mapping of str to array-like, shape (n, ...)
        The layers of a model for the same n samples in the same order: NumPy arrays and memory
        maps, Zarr, h5py, torch or jax arrays, also mixed. They are only sliced by rows, one block
        at a time, and computed with on the CPU. Trailing axes are flattened. If all layers are Dask
        arrays (also in xarray), rows and products stay on the workers of your scheduler.
    ys : mapping of str to array-like, shape (n, ...), optional
        The layers of a second model. Without it, the layers of ``xs`` are compared with each other.
    kernel : str or Kernel, default "linear"
        One of :mod:`repsim.kernels`, by name or with its parameters. A bandwidth that follows the
        data is computed for each layer from at most 2048 rows. Up to n = 2048 these are all rows,
        and the bandwidth is that of :func:`repsim.cka`. Beyond, rows are chosen at random with a
        fixed seed (fewer if they would take more than a quarter of ``memory``;
        ``attrs["bandwidth_rows"]`` is their number).
    estimator : {"unbiased", "biased"}, default "unbiased"
        As in :func:`repsim.cka`; at least 4 or 2 samples.
    memory : int, default 2**30
        Bytes that blocks may take, on each rank. In addition, the function needs 24 bytes for each
        sample and layer, a few bytes for each feature, and the memory of the arrays themselves.
        With Dask, the bytes that blocks may take on two workers of one thread. Four take twice as
        much, and the chunks that Dask loads come on top.
    block_size : int, optional
        Rows read at a time. By default the number follows from ``memory`` and speed.
    dtype : {"float32", "float64"}, optional
        The dtype of blocks; by default float64 if any layer is float64 or integer, else float32.
        Sums over blocks are always in float64.
    checkpoint : path, optional
        A file (``.npz``) for the state of this call, written at the start, every two minutes and at
        the end. If the file exists, the computation resumes from it and returns the same bits. From
        a finished state, the result is returned after two passes over the data. With ``group`` each
        rank has its own file, ``run.npz.rank0of2`` and so on.
    progress : bool, default False
        Whether to show a progress bar on standard error.
    group : "world" or torch.distributed.ProcessGroup, optional
        The ranks that share the passes over the data and the pairs of blocks. Every rank must open
        the same arrays, and pass the same options; every rank gets the whole result, of the same
        bits. By default this process works alone, even if there are other ranks.

    Returns
    -------
    xarray.DataArray, dims ("layer_x", "layer_y")
        float64, in [−1, 1] (biased: [0, 1]), without unit; coordinates are the layer names;
        ``attrs`` hold estimator, kernel, n_samples, form, dtype, bandwidth_rows, repsim_version,
        and model_x and model_y of stores of :func:`repsim.extract`.

    Raises
    ------
    ArrayTypeError
        Not sliceable arrays of real numbers.
    InputError
        Different n, too few samples, one-dimensional or empty arrays, a kernel that is not one of
        the library's, ``memory`` below what one block takes.
    NonFiniteError
        NaN or infinity in a layer or in a block of its Gram; the message names the layer and the
        rows.
    StateError
        The saved state is damaged, or belongs to other data or options. With ``group``: a rank
        failed (every rank raises), died, or has other layers or options. With Dask: a task failed.
    CheckpointError
        The state cannot be written (full disk, read-only folder); the previous one is intact.

    Warns
    -----
    DegenerateWarning
        A layer is constant over the samples, or has a row of zeros, which has no cosine: its row
        is NaN.
    RepsimWarning
        The entries of the Gram of a layer differ in so few digits that their rounding counts, as in
        :func:`repsim.cka`.
    ChanceWarning
        If biased CKA of independent data would be above 0.1 for two layers; once.

    Notes
    -----
    Bias and invariances are those of :func:`repsim.cka` with the same kernel and estimator.

    Use this function if all activations are stored and you need the value of the full data, for any
    kernel. Use :class:`StreamingLinearCKA` for the same value of the linear kernel if batches are
    seen once and the p×q covariances of all pairs fit in memory. Use :class:`MinibatchCKA` if
    batches are seen once and there are many features, or the kernel is not linear. It estimates the
    same value, with a standard error, at the lowest cost.

    The linear kernel takes the cheaper of two forms: cross products of features, O(n Σ p_i p_j),
    or blocks of Grams, O(n² Σp) for features and O(n² L_x L_y) for the products of all pairs. Other
    kernels are summed over blocks of Grams, each computed once, about estimated row means. The
    error of this estimate is corrected exactly at the end. Data are read once for every tile or
    block of rows, so copy data from slow storage first.

    In float32, products of features are computed in float64 for layers in which few samples are far
    from the others, because there the terms of the unbiased estimator cancel.

    Results have the same bits only with the same number of BLAS threads and of ranks, and either
    always with Dask or always without it; all agree within rounding. Ranks exchange p numbers and n
    numbers for each layer, and L² for the products. Kernels other than the linear one exchange n
    more numbers for each layer. Dask sends the same numbers from the workers to this process; rows
    go to a worker only if it does not have them. Chunks of whole rows are best, some thousand rows
    each: rows are read again for every pass, as from a disk, unless you call ``persist()``.

    References
    ----------
    Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, Eq. 5. Song, Smola, Gretton, Bedo,
    Borgwardt 2012, "Feature selection via dependence maximization", Eq. 5. Székely, Rizzo 2014,
    "Partial distance correlation with methods for dissimilarities", Definition 2.
    """
    ranks = RankGroup(OPERATION, group)
    with ranks.raise_on_all_ranks():
        resolved = resolve_estimator(OPERATION, estimator)
        chosen = resolve_kernel(OPERATION, kernel)
        require_blockwise(OPERATION, chosen)
        layers_x = sources_of(OPERATION, "xs", xs)
        layers_y = None if ys is None else sources_of(OPERATION, "ys", ys)
        layers = [*layers_x, *(layers_y or [])]
        check_same_samples(OPERATION, {source.label: source.array for source in layers})
        _check(layers, resolved.min_samples, estimator, memory, block_size, dtype, progress)
        wide = np.result_type(*(s.dtype for s in layers)) if dtype is None else np.dtype(dtype)
        in_dask = all_in_dask(OPERATION, layers)
        if in_dask and not ranks.alone:
            raise InputError(
                f"{OPERATION}: Dask arrays are shared by the workers of Dask, not by ranks.\n"
                f"  got Dask arrays and group={got(group)}\n"
                f"  Leave group out, or open the arrays without Dask on every rank."
            )
        plan = make_plan(
            OPERATION,
            layers_x,
            layers_y,
            linear=isinstance(chosen, Linear),
            itemsize=wide.itemsize,
            memory=memory,
            block_size=block_size,
            ranks=ranks.size,
            together=in_dask,
        )
        attrs = {
            "estimator": estimator,
            "kernel": repr(chosen),
            "n_samples": layers[0].n,
            "form": plan.form,
            "dtype": str(wide),
            "bandwidth_rows": pilot_rows(layers, memory) if follows_data(chosen) else 0,
            "repsim_version": __version__,
        }
        call = Call(layers, len(layers_x), chosen, estimator, plan, wide, memory)
        ranks.agree(lambda: described(call, attrs, checkpoint))
        names = {"layers_x": list(xs), "layers_y": None if ys is None else list(ys)}
        values = cka_values(call, attrs, names, ys is None, ranks, checkpoint, progress)
        attrs |= models_of(xs, ys)
        return map_of_layers(values, xs, xs if ys is None else ys, "cka", attrs)


def _check(
    layers: Sequence[Source],
    least: int,
    estimator: str,
    memory: int,
    block_size: int | None,
    dtype: str | None,
    progress: bool,
) -> None:
    first = layers[0]
    for other in layers:
        if other.n != first.n:
            raise InputError(
                f"{OPERATION}: all layers must describe the same samples.\n"
                f"  {first.label}: {tuple(first.array.shape)} → n={first.n}    "
                f"{other.label}: {tuple(other.array.shape)} → n={other.n}\n"
                f"  Is axis 0 the sample axis in both?"
            )
    if first.n < least:
        raise InputError(
            f"{OPERATION}: estimator={estimator!r} needs at least {least} samples.\n"
            f"  {first.label}: {tuple(first.array.shape)} → n={first.n}\n"
            f"  Is axis 0 the sample axis? Otherwise bring more samples."
        )
    as_count(OPERATION, "memory", memory)
    require_bool(OPERATION, "progress", progress)
    if block_size is not None:
        as_count(OPERATION, "block_size", block_size)
    if dtype is not None:
        require_choice(OPERATION, "dtype", dtype, ("float32", "float64"))
