"""The value against the papers' sums in plain loops, for any batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from reference import hsic, kernels, minibatch
from reference.data import oracle
from repsim import MinibatchCKA
from repsim.kernels import RBF, Laplacian, Polynomial
from streaming.batches import accumulate, data, loops, named, rows, split

SIZES = st.lists(st.integers(4, 11), min_size=1, max_size=5)


def test_oracle():
    x, y = oracle()
    acc = MinibatchCKA()
    acc.update({"x": x[:4]}, {"y": y[:4]})
    acc.update({"x": x[4:]}, {"y": y[4:]})
    assert acc.compute().item() == pytest.approx(0.57384734973695, rel=1e-12)


@given(sizes=SIZES, seed=st.integers(0, 10**6))
def test_equals_the_plain_loops(sizes, seed):
    xs, ys = (split(side, sizes) for side in data(sum(sizes), seed))
    result = accumulate(xs, ys).compute()
    np.testing.assert_allclose(result.values, loops(xs, ys), rtol=1e-10, atol=1e-12)
    itself = accumulate(xs).compute()
    np.testing.assert_allclose(itself.values, loops(xs, xs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "gram"),
    [
        (RBF(sigma=2.0), lambda x: kernels.rbf_fixed(x, 2.0)),
        (Laplacian(sigma=3.0), lambda x: kernels.laplacian_fixed(x, 3.0)),
        (Polynomial(degree=3, gamma=0.5), lambda x: kernels.polynomial(x, 3, 0.5)),
        ("polynomial", kernels.polynomial),
        ("cosine", kernels.cosine),
    ],
    ids=["rbf", "laplacian", "cubic", "polynomial", "cosine"],
)
def test_every_kernel_equals_the_plain_loops(kernel, gram):
    xs, ys = (split(side, [6, 9, 4]) for side in data(19))
    result = accumulate(xs, ys, kernel).compute()
    np.testing.assert_allclose(result.values, loops(xs, ys, gram), rtol=1e-10)


@pytest.mark.parametrize("kernel", ["linear", "cosine", "polynomial", "rbf", "laplacian"])
def test_one_batch_is_the_unbiased_value_of_its_samples(kernel):
    xs, ys = data(17)
    result = accumulate([xs], [ys], kernel).compute()
    for i, x in enumerate(xs.values()):
        for j, y in enumerate(ys.values()):
            expected = float(repsim.cka(x, y, kernel=kernel, estimator="unbiased"))
            assert result.values[i, j] == pytest.approx(expected, rel=1e-11)


@given(sizes=SIZES, seed=st.integers(0, 10**6))
def test_one_mapping_and_the_same_mapping_twice_agree(sizes, seed):
    xs = split(data(sum(sizes), seed)[0], sizes)
    once, twice = accumulate(xs).compute(), accumulate(xs, xs).compute()
    np.testing.assert_allclose(once.values, twice.values, rtol=1e-12)
    np.testing.assert_allclose(np.diagonal(once.values), 1, rtol=1e-13)
    assert list(once.layer_y.values) == list(twice.layer_y.values) == list(xs[0])


@given(sizes=SIZES, seed=st.integers(0, 10**6))
def test_symmetric_in_the_two_models(sizes, seed):
    xs, ys = (split(side, sizes) for side in data(sum(sizes), seed))
    there, back = accumulate(xs, ys).compute(), accumulate(ys, xs).compute()
    np.testing.assert_allclose(there.values, back.values.T, rtol=1e-12)
    itself = accumulate(xs).compute().values
    np.testing.assert_array_equal(itself, itself.T)


@given(order=st.permutations(list(data(1)[0])), seed=st.integers(0, 10**6))
def test_a_permutation_of_the_layers_permutes_rows(order, seed):
    xs, ys = (split(side, [5, 8]) for side in data(13, seed))
    permuted = accumulate([{name: b[name] for name in order} for b in xs], ys).compute()
    assert list(permuted.layer_x.values) == order
    expected = accumulate(xs, ys).compute()
    for name in order:
        np.testing.assert_allclose(
            permuted.sel(layer_x=name).values, expected.sel(layer_x=name).values, rtol=1e-12
        )


@given(order=st.permutations(range(4)))
def test_the_order_of_batches_does_not_matter(order):
    sizes = [4, 7, 9, 5]
    xs, ys = (split(side, sizes) for side in data(sum(sizes)))
    expected = accumulate(xs, ys).compute().values
    shuffled = accumulate([xs[b] for b in order], [ys[b] for b in order]).compute().values
    np.testing.assert_allclose(shuffled, expected, rtol=1e-12)


def test_a_later_batch_may_list_its_layers_in_another_order():
    xs, ys = (split(side, [6, 6, 6]) for side in data(18))
    expected = accumulate(xs, ys).compute()
    xs[1] = dict(reversed(xs[1].items()))
    ys[2] = dict(reversed(ys[2].items()))
    result = accumulate(xs, ys).compute()
    assert result.identical(expected)
    assert list(result.layer_x.values) == list(xs[0])


def test_feature_maps_are_flattened():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 2, 3, 2)), rng.standard_normal((12, 4, 3))
    acc = accumulate([{"x": x}], [{"y": y}])
    expected = repsim.cka(x.reshape(12, -1), y.reshape(12, -1), estimator="unbiased")
    assert acc.compute().item() == pytest.approx(float(expected), rel=1e-12)


# Weights


def test_the_weight_of_a_batch_is_n_times_n_minus_3():
    sizes = [24, 4]
    xs, ys = (split(side, sizes) for side in data(sum(sizes), 3))
    result = accumulate(xs, ys).compute().values
    np.testing.assert_allclose(result, loops(xs, ys), rtol=1e-12)
    for weight in (lambda n: 1, lambda n: n, lambda n: n * n):

        def other(x, y, kernel, weight=weight):
            return minibatch.minibatch_cka(x, y, kernel, weight)

        assert np.abs(result - loops(xs, ys, of=other)).max() > 1e-3


def test_it_is_not_the_mean_of_the_ckas_of_batches():
    xs, ys = (split(side, [6] * 10) for side in data(60, 2))
    result = accumulate(xs, ys).compute().values
    mean = np.mean([loops([x], [y]) for x, y in zip(xs, ys, strict=True)], axis=0)
    assert np.abs(result - mean).max() > 0.01


def test_independent_data_average_to_zero_and_negatives_survive():
    rng = np.random.default_rng(5)
    values = [
        accumulate(
            [{"x": rng.standard_normal((8, 20))} for _ in range(3)],
            [{"y": rng.standard_normal((8, 20))} for _ in range(3)],
        )
        .compute()
        .item()
        for _ in range(200)
    ]
    # The spread under independence is about 1/sqrt(Σ n(n-3)/2) = 0.13.
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert np.mean(np.array(values) < 0) > 0.3


def test_reshuffled_passes_converge_to_the_value_of_the_whole_data_set():
    xs, ys = data(40, 4)
    rng = np.random.default_rng(0)
    full = loops([xs], [ys])

    def after(passes: int) -> float:
        acc = MinibatchCKA()
        for _ in range(passes):
            for chosen in rng.permutation(40).reshape(5, 8):
                acc.update(rows(xs, chosen), rows(ys, chosen))
        return float(np.abs(acc.compute().values - full).max())

    one = np.mean([after(1) for _ in range(8)])
    many = after(300)
    assert many < 0.01
    assert one > 3 * many


# Grams


def test_grams_and_activations_give_the_same_values():
    xs, ys = (split(side, [6, 5, 9]) for side in data(20))
    expected = accumulate(xs, ys).compute()
    acc = MinibatchCKA()
    for x, y in zip(xs, ys, strict=True):
        grams_x, grams_y = (
            {name: kernels.linear(kernels.centred(v)) for name, v in side.items()}
            for side in (x, y)
        )
        acc.update_grams(grams_x, grams_y)
    np.testing.assert_allclose(acc.compute().values, expected.values, rtol=1e-12)
    assert acc.compute().attrs == expected.attrs


def test_updates_and_grams_may_alternate():
    xs = split(data(20)[0], [6, 5, 9])
    expected = accumulate(xs).compute()
    acc = MinibatchCKA()
    acc.update(xs[0])
    acc.update_grams({name: kernels.linear(kernels.centred(v)) for name, v in xs[1].items()})
    acc.update(xs[2])
    np.testing.assert_allclose(acc.compute().values, expected.values, rtol=1e-12)


def test_one_gram_under_several_names(eager):
    """Layers that share a tensor have the values of layers with equal Grams."""
    shared, own = MinibatchCKA(), MinibatchCKA()
    for seed in range(3):
        xs, ys = ({name: v @ v.T for name, v in side.items()} for side in data(8, seed))
        a, b, c = (eager.array(k) for k in xs.values())
        p, q = (eager.array(k) for k in ys.values())
        shared.update_grams({"1": a, "2": b, "3": a, "4": c, "5": b}, {"6": q, "7": p, "8": q})
        copies = {
            "1": xs["conv"], "2": xs["norm"], "3": xs["conv"], "4": xs["fc"], "5": xs["norm"],
        }  # fmt: skip
        own.update_grams(
            {name: eager.array(k.copy()) for name, k in copies.items()},
            {
                "6": eager.array(ys["block"].copy()),
                "7": eager.array(ys["patch"].copy()),
                "8": eager.array(ys["block"].copy()),
            },
        )
    np.testing.assert_allclose(shared.compute().values, own.compute().values, rtol=1e-12)
    assert list(shared.compute().layer_x.values) == ["1", "2", "3", "4", "5"]
    itself, copied = MinibatchCKA(), MinibatchCKA()
    itself.update_grams({"1": a, "2": b, "3": a})
    copied.update_grams({"1": a, "2": b, "3": eager.array(xs["conv"].copy())})
    np.testing.assert_allclose(itself.compute().values, copied.compute().values, rtol=1e-12)


def test_sharing_may_change_from_batch_to_batch():
    k, l, m = (v @ v.T for v in data(7)[0].values())  # noqa: E741
    acc, expected = MinibatchCKA(), MinibatchCKA()
    for names in ([k, l, k], [k, k, m], [m, l, k], [m, m, m]):
        acc.update_grams(dict(zip("abc", names, strict=True)))
        expected.update_grams({name: v.copy() for name, v in zip("abc", names, strict=True)})
    np.testing.assert_allclose(acc.compute().values, expected.compute().values, rtol=1e-12)


# Bandwidths


@pytest.mark.parametrize(
    ("kernel", "bandwidth", "gram"),
    [
        (
            RBF(0.5),
            lambda x: 0.5 * np.sqrt(np.median(((x[:, None] - x[None]) ** 2).sum(-1))),
            kernels.rbf_fixed,
        ),
        (
            Laplacian(),
            lambda x: np.median(
                np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))[~np.eye(len(x), dtype=bool)]
            ),
            kernels.laplacian_fixed,
        ),
    ],
    ids=["rbf", "laplacian"],
)
def test_the_bandwidth_of_each_layer_is_that_of_its_pilot_batch(kernel, bandwidth, gram):
    xs, ys = (split(side, [7, 9, 6]) for side in data(22))
    for b in (1, 2):  # batches on which it would be another
        xs[b]["norm"] *= 5
        ys[b]["patch"] *= 0.2
    result = accumulate(xs, ys, kernel).compute()
    for i, x in enumerate(xs[0]):
        for j, y in enumerate(ys[0]):
            sx, sy = bandwidth(xs[0][x]), bandwidth(ys[0][y])
            sums = np.zeros(3)
            for bx, by in zip(xs, ys, strict=True):
                k, l = gram(bx[x], sx), gram(by[y], sy)  # noqa: E741
                w = minibatch.samples_weight(len(k))
                sums += [w * hsic.unbiased_song(*pair) for pair in ((k, l), (k, k), (l, l))]
            expected = sums[0] / np.sqrt(sums[1]) / np.sqrt(sums[2])
            assert result.values[i, j] == pytest.approx(expected, rel=1e-11)


def test_a_short_first_batch_is_no_pilot():
    xs, ys = (split(side, [8, 7]) for side in data(15))
    expected = accumulate(xs, ys, "rbf").compute()
    short = rows(xs[0], slice(3)), rows(ys[0], slice(3))
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        result = accumulate([short[0], *xs], [short[1], *ys], "rbf").compute()
    np.testing.assert_allclose(result.values, expected.values, rtol=1e-13)


# Frameworks


@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian", "polynomial", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_framework(eager, kernel, dtype):
    xs, ys = (split(side, [8, 8]) for side in data(16, dtype=dtype))
    expected = accumulate(xs, ys, kernel).compute()
    acc = accumulate(xs, ys, kernel, eager.array)
    rtol = {"float32": 3e-5, "float64": 1e-11}[dtype]
    np.testing.assert_allclose(acc.compute().values, expected.values, rtol=rtol)
    assert acc.compute().dtype == np.float64
    assert acc.compute().attrs == expected.attrs
    itself = accumulate(xs, None, kernel, eager.array).compute().values
    np.testing.assert_allclose(itself, accumulate(xs, None, kernel).compute().values, rtol=rtol)


def test_more_layers_than_numpy_takes_arguments(eager):
    x = data(8)[0]["conv"]
    acc = MinibatchCKA()
    acc.update({str(i): eager.array(x * (i + 1)) for i in range(80)})
    np.testing.assert_allclose(acc.compute().values, 1, rtol=1e-12)


def test_the_limits_on_working_memory_change_no_value():
    """Grams are centred in groups of 64 MiB and multiplied in chunks of 2^16 entries."""
    n, layers = 257, 130
    assert n * n > 1 << 16
    assert layers * 8 * n * n > 1 << 26
    x = data(n)[0]["conv"]
    xs = {str(i): x[:, : i % 3 + 1] * (i + 1) for i in range(layers)}
    last = {"last": x[:, 1:3]}
    both = accumulate([xs], [last]).compute().values[:, 0]
    alone = accumulate([xs]).compute().values
    some = [repsim.cka(x[:, : i + 1], x[:, 1:3], estimator="unbiased") for i in range(3)]
    pairs = [[repsim.cka(xs[str(i)], xs[str(j)], estimator="unbiased") for j in range(3)]
             for i in range(3)]  # fmt: skip
    kind = np.arange(layers) % 3
    np.testing.assert_allclose(both, np.array(some)[kind], rtol=1e-9)
    np.testing.assert_allclose(alone, np.array(pairs)[kind[:, None], kind], rtol=1e-9)


def test_a_batch_of_more_samples_than_one_chunk():
    xs, ys = data(270)  # 270² entries
    acc = accumulate([xs], [ys]).compute()
    expected = repsim.cka(xs["conv"], ys["block"], estimator="unbiased")
    value = acc.sel(layer_x="conv", layer_y="block").item()
    assert value == pytest.approx(float(expected), rel=1e-11)


def test_inputs_are_not_written_to(eager):
    xs, ys = data(8)
    a, b = named(lambda x: eager.array(x.copy()), xs), named(lambda x: eager.array(x.copy()), ys)
    for kernel in ("linear", "rbf", "cosine"):
        MinibatchCKA(kernel=kernel).update(a, b)
    grams = {name: eager.array(x @ x.T) for name, x in xs.items()}
    MinibatchCKA().update_grams(grams)
    for name, x in xs.items():
        np.testing.assert_array_equal(eager.numpy(a[name]), x)
        np.testing.assert_array_equal(eager.numpy(grams[name]), x @ x.T)
    for name, y in ys.items():
        np.testing.assert_array_equal(eager.numpy(b[name]), y)


@pytest.mark.slow
def test_jax_without_float64():
    """By default jax sums a batch in float32; sums over batches are float64 on the host."""
    jax = pytest.importorskip("jax")
    xs, ys = (split(side, [8, 8]) for side in data(16, dtype="float32"))
    acc = accumulate(xs, ys, "linear", jax.numpy.asarray)
    np.testing.assert_allclose(acc.compute().values, loops(xs, ys), rtol=1e-5)
    itself = accumulate(xs, None, "linear", jax.numpy.asarray).compute().values
    np.testing.assert_allclose(np.diagonal(itself), 1, rtol=1e-6)


def test_a_tensor_that_requires_grad():
    torch = pytest.importorskip("torch")
    x = torch.randn(8, 3, requires_grad=True)
    acc = MinibatchCKA()
    acc.update({"x": x}, {"y": 2 * x})
    assert acc.compute().item() == pytest.approx(1, rel=1e-6)
