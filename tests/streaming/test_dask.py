"""Dask arrays: lazy, computed by the user's scheduler, with the numbers of arrays in memory."""

import threading

import numpy as np
import pytest
import xarray

import repsim
from edges import FUNCTIONS
from repsim import cka_matrix, pairwise
from repsim.kernels import RBF

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

N = 210


def layers(seed, *widths):
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((N, 4))
    return {
        f"{p} features": causes @ rng.standard_normal((4, p)) + rng.standard_normal((N, p)) + 2
        for p in widths
    }


XS = layers(0, 12, 5, 70)
XS["70 features"] = XS["70 features"].reshape(N, 7, 10)
YS = layers(1, 9, 30)


def chunked(named, rows=64):
    """Chunks along the samples and along the features; no block of rows is a chunk."""
    return {
        name: da.from_array(x, chunks=(rows, *((size + 1) // 2 for size in x.shape[1:])))
        for name, x in named.items()
    }


CASES = {
    "features": {},
    "tiles": {"memory": 1 << 19},
    "two sides": {"ys": YS, "block_size": 90},
    "biased": {"estimator": "biased"},
    "Grams": {"xs": layers(2, 700, 300)},
    "bandwidths": {"kernel": "rbf", "block_size": 50},
    "fixed bandwidth, two sides": {"kernel": RBF(sigma=4.0), "ys": YS},
    "cosine": {"kernel": "cosine", "block_size": 100},
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_arrays_in_memory(name):
    options = {"xs": XS, "ys": None, **CASES[name]}
    xs, ys = options.pop("xs"), options.pop("ys")
    expected = cka_matrix(xs, ys, **options)
    got = cka_matrix(chunked(xs), None if ys is None else chunked(ys), **options)
    np.testing.assert_allclose(got.values, expected.values, rtol=0, atol=1e-12)
    assert got.attrs == expected.attrs


def test_probes_read_some_rows_at_a_time():
    labels = np.arange(N) % 3
    values = [
        repsim.probe_activations(train, labels, test, labels, ridges=[1.0], holdout=0.0)
        for train, test in ((XS, XS), (chunked(XS), chunked(XS)))
    ]
    np.testing.assert_array_equal(values[0].accuracy, values[1].accuracy)


def test_labelled_arrays_are_named_and_matched():
    xs = {
        name: xarray.DataArray(
            x, dims=("sample", *(f"{name}{i}" for i in range(1, x.ndim)))
        ).assign_coords(sample=np.arange(N))
        for name, x in chunked(XS).items()
    }
    np.testing.assert_allclose(cka_matrix(xs), cka_matrix(XS), atol=1e-12)
    np.testing.assert_allclose(pairwise(xs), pairwise(XS), atol=1e-12)
    other = {"z": xs["5 features"].assign_coords(sample=np.arange(N)[::-1])}
    for function in (cka_matrix, pairwise):
        with pytest.raises(repsim.InputError, match="same samples in the same order"):
            function(xs, other)


@pytest.mark.parametrize("measure", ["cka", "svcca", "procrustes", "mutual_knn", "rsa"])
def test_pairwise(measure):
    expected = pairwise(XS, YS, measure=measure)
    got = pairwise(chunked(XS), chunked(YS), measure=measure)
    np.testing.assert_allclose(got.values, expected.values, atol=1e-12)
    assert got.attrs == expected.attrs
    if measure == "cka":
        given = YS["9 features"]
        got = pairwise(chunked(XS), given=da.from_array(given, chunks=(50, 9)))
        np.testing.assert_allclose(got.values, pairwise(XS, given=given).values, atol=1e-12)
    alone = pairwise(chunked(XS), measure=measure).values
    np.testing.assert_allclose(alone, pairwise(XS, measure=measure).values, atol=1e-12)


def test_pairwise_reads_every_chunk_once_and_warns_of_a_constant():
    reads = []
    x = da.from_array(XS["12 features"], chunks=(70, 12)).map_blocks(
        lambda block: reads.append(1) or block, dtype=float, meta=np.empty((0, 0))
    )
    xs = {"x": x, "constant": da.ones((N, 3), chunks=(70, 3)), **chunked(YS)}
    with pytest.warns(repsim.DegenerateWarning, match="'constant'") as caught:
        result = pairwise(xs)
    assert len(caught) == 1
    assert len(reads) == 3
    assert np.isnan(result.sel(layer_x="constant")).all()
    with pytest.warns(repsim.DegenerateWarning, match="'constant'"):
        cka_matrix(xs)


@pytest.mark.slow
def test_no_more_than_a_few_blocks_are_in_memory():
    """Blocks are counted from the moment they are made to that in which nobody holds them."""
    live, most, lock = [0], [0], threading.Lock()

    class Counted(np.ndarray):
        is_block = False  # nor are arrays that are computed from one

        def __del__(self):
            if self.is_block:
                with lock:
                    live[0] -= 1

    def make(block_info=None):
        with lock:
            live[0] += 1
            most[0] = max(most[0], live[0])
        start = block_info[None]["array-location"][0][0]
        out = Counted((100, 20), float)
        out.is_block = True
        out[:] = np.random.default_rng(start).standard_normal((100, 20))
        return out

    x = da.map_blocks(make, chunks=((100,) * 60, (20,)), dtype=float, meta=np.empty((0, 0)))
    with dask.config.set(scheduler="threads", num_workers=2):
        got = {k: cka_matrix({"x": x}, kernel=k, memory=1 << 21) for k in ("linear", "cosine")}
    assert most[0] <= 30
    for kernel, result in got.items():
        assert result.attrs["form"] == ("features" if kernel == "linear" else "grams")
        assert result.item() == pytest.approx(1.0, abs=1e-9)


def test_a_state_is_resumed(tmp_path):
    options = {"kernel": "cosine", "block_size": 70, "checkpoint": tmp_path / "run.npz"}
    first = cka_matrix(chunked(XS), **options)
    again = cka_matrix(chunked(XS), **options)
    np.testing.assert_array_equal(first.values, again.values)
    with pytest.raises(repsim.StateError, match="other inputs or options"):
        cka_matrix(XS, **options)


def test_errors_are_those_of_arrays_in_memory():
    bad = {name: x.copy() for name, x in YS.items()}
    bad["30 features"][150, 2] = np.nan
    for function, words in (
        (cka_matrix, r"xs\['30 features'\] must be finite(.|\n)*rows 150 "),
        (pairwise, r"xs\['30 features'\] must be finite(.|\n)*the first in row 150"),
    ):
        with pytest.raises(repsim.NonFiniteError, match=words):
            function(chunked(bad))
    large = {"x": (9 * YS["9 features"]).astype("i8") + 2**60}
    for function in (cka_matrix, pairwise):
        with pytest.raises(repsim.InputError, match=r"xs\['x'\] must hold integers below 2\*\*53"):
            function(chunked(large))
    zero = {"x": np.where(np.arange(N)[:, None] == 30, 0, YS["9 features"])}
    with pytest.warns(repsim.DegenerateWarning, match=r"row of zeros.*xs\['x'\]"):
        assert np.isnan(cka_matrix(chunked(zero), kernel="cosine").item())
    doubles = {"x": np.repeat(np.arange(3.0), N // 3)[:, None]}
    with pytest.raises(repsim.InputError, match=r"median distance of xs\['x'\] is zero"):
        cka_matrix(chunked({"x": np.where(np.arange(N) < 5, 1.0, 0.0)[:, None]}), kernel="rbf")
    assert np.isfinite(cka_matrix(chunked(doubles)).item())

    def gone(block):
        raise OSError("the disk is gone")

    lost = chunked(YS)["9 features"].map_blocks(gone, dtype=float, meta=np.empty((0, 0)))
    for function in (cka_matrix, pairwise):
        with pytest.raises(repsim.StateError, match=r"Dask could not(.|\n)*the disk is gone"):
            function({"lost": lost})
        with pytest.raises(repsim.RepsimError, match="Dask arrays, or none is"):
            function({"memory": YS["9 features"], **chunked(XS)})
    with pytest.raises(repsim.InputError, match="memory is too small"):
        cka_matrix(chunked(XS), memory=2000)
    x = chunked(YS)["9 features"]
    with pytest.raises(repsim.ArrayTypeError, match="compute_chunk_sizes"):
        cka_matrix({"x": x[x[:, 0] > 0]})


TAKEN = ("pairwise", "cka_matrix", "probe_activations")
"""The last reads some rows at a time."""


def test_functions_of_arrays_in_memory_refuse_and_read_nothing():
    def read(block):
        raise AssertionError("a block was computed")

    x = da.ones((12, 3), chunks=(4, 3)).map_blocks(read, dtype=float, meta=np.empty((0, 0)))
    for name, function in FUNCTIONS.items():
        if name.split()[0] in TAKEN:
            continue
        for labelled in (x, xarray.DataArray(x)):
            with pytest.raises(repsim.ArrayTypeError, match=r"in memory|one framework") as caught:
                function(labelled, labelled)
            assert str(caught.value).startswith(name.split()[0]), name
            assert "cka_matrix" in str(caught.value), name


@pytest.mark.slow
def test_two_workers(tmp_path):
    """Rows, products and items stay in the processes of two workers, which open a store."""
    distributed = pytest.importorskip("distributed")
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU())
    batches = list(torch.randn(5, 30, 6))
    repsim.extract(net, batches, out=tmp_path / "run.zarr", progress=False)
    stored = repsim.open_activations(tmp_path / "run.zarr")
    expected = {name: cka_matrix(XS, YS, kernel=name) for name in ("linear", "rbf")}
    bad = {"x": np.where(np.arange(N)[:, None] == 150, np.nan, YS["9 features"])}
    constant = {"constant": da.ones((N, 3), chunks=(70, 3)), **chunked(YS)}
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        for kernel, result in expected.items():
            got = cka_matrix(chunked(XS), chunked(YS), kernel=kernel)
            np.testing.assert_allclose(got.values, result.values, atol=1e-12)
        kept = client.persist(list(chunked(XS).values()))
        got = pairwise(dict(zip(XS, kept, strict=True)), measure="cca")
        np.testing.assert_allclose(got.values, pairwise(XS, measure="cca").values, atol=1e-12)
        got = cka_matrix(stored.chunk(sample=40))
        np.testing.assert_allclose(got.values, cka_matrix(stored).values, atol=1e-6)
        with pytest.raises(repsim.NonFiniteError, match=r"xs\['x'\](.|\n)*rows 150 "):
            cka_matrix(chunked(bad))
        with pytest.warns(repsim.DegenerateWarning, match="'constant'"):
            pairwise(constant)
