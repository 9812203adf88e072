"""Models and random state are unchanged after every call, also after errors."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import Shuffled, inputs, matrix_of, net, reference, state, unchanged
from repsim import NonFiniteError, compare

quiet = {"progress": False}


def mixed(seed=0):
    """A model in training mode with frozen parts, hooks, and a parameter without gradient."""
    model = net(seed=seed)
    model.train()
    model[1].eval()
    model[3].training = False
    model[0].weight.requires_grad_(False)
    model[2].register_forward_hook(lambda *_: None)
    model[0].register_forward_pre_hook(lambda *_: None)
    return model


def test_the_guard_notices():
    for change in (
        lambda m: m[1].train(),
        lambda m: m[0].register_forward_hook(lambda *_: None),
        lambda m: m[0].weight.requires_grad_(True),
        lambda m: torch.rand(1),
        lambda m: m[1].running_mean.add_(1),
    ):
        model = mixed()
        with pytest.raises(AssertionError), unchanged(model):
            change(model)


@pytest.mark.parametrize("two", [True, False])
def test_after_success(two):
    x, y = mixed(), mixed(1)
    with unchanged(x, y):
        compare(x, y if two else None, data=inputs(), **quiet)


def test_they_run_in_evaluation_mode_without_gradients():
    modes = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            modes.append((self.training, self.inner[3].training, torch.is_grad_enabled()))
            return self.inner(x)

    x = Spy().train()
    compare(x, data=inputs(2), **quiet)
    assert modes == [(False, False, False)] * (2 + 2)  # on 2 and on 3 samples, and two batches


def test_batch_norm_statistics_do_not_move():
    x = mixed()
    before = {k: v.clone() for k, v in x.state_dict().items()}
    compare(x, data=inputs(), **quiet)
    assert all(torch.equal(v, before[k]) for k, v in x.state_dict().items())


def test_modules_that_do_more_than_to_set_a_flag():
    """Low-rank weights that are merged in evaluation mode are separate again in training."""

    class Adapted(nn.Linear):
        def __init__(self, p, q):
            super().__init__(p, q)
            self.low = nn.Parameter(torch.eye(q, p))  # sums with it are exact below
            self.merged = False
            self.weight.data.round_()
            self.weight.requires_grad_(False)

        def train(self, mode=True):
            super().train(mode)
            if self.merged == mode:
                self.weight.data += -self.low if mode else self.low
                self.merged = not mode
            return self

        def forward(self, x):
            y = super().forward(x)
            return y if self.merged else y + x @ self.low.T

    x = nn.Sequential(Adapted(6, 5), nn.Sequential(Adapted(5, 4), nn.ReLU()))
    x[1].eval()
    weights = [each.weight.clone() for each in (x[0], x[1][0])]
    with unchanged(x):
        compare(x, data=inputs(2), **quiet)
    assert (x[0].merged, x[1][0].merged) == (False, True)
    assert all(map(torch.equal, weights, [x[0].weight, x[1][0].weight]))
    x(inputs(1)[0]).sum().backward()
    assert x[0].low.grad is not None


def test_the_mode_of_the_model_does_not_change_the_values():
    x = net()
    a, b = matrix_of(x.train(), inputs()), matrix_of(x.eval(), inputs())
    np.testing.assert_array_equal(a, b)


def test_random_states():
    """The random state of torch is restored after the forward and the loader have drawn from it."""

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 3)

        def forward(self, x):
            return self.a(x) + torch.rand(1)

    x = Noisy()
    loader = torch.utils.data.DataLoader(torch.cat(inputs()), batch_size=8, shuffle=True)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with unchanged(x):
        compare(x, data=loader, passes=2, **quiet)
    assert random.getstate() == python
    assert all(
        np.array_equal(a, b)
        for a, b in zip(np.random.get_state(), numpy, strict=True)  # noqa: NPY002
    )


class BoomError(RuntimeError):
    pass


class Explosive(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.inner, self.at, self.calls = net(), at, 0

    def forward(self, x):
        self.calls += 1
        out = self.inner(x)
        if self.calls == self.at:
            raise BoomError
        return out


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("side", ["x", "y"])
def test_after_a_forward_that_raises(at, side):
    bad, good = Explosive(at), mixed()
    bad.train()
    bad.inner[1].eval()
    models = (bad, good) if side == "x" else (good, bad)
    with unchanged(*models), pytest.raises(BoomError):
        compare(*models, data=inputs(), **quiet)
    compare(*models, data=inputs(), **quiet)  # and they can be used again


def explode(*_):
    raise BoomError


@pytest.mark.parametrize(
    "options",
    [
        {"transform": explode},
        {"select": explode},
        {"prepare_x": explode},
        {"prepare_y": explode},
        {"forward": explode},
    ],
    ids=lambda o: next(iter(o)),
)
def test_after_an_argument_that_raises(options):
    x, y = mixed(), mixed(1)
    with unchanged(x, y), pytest.raises(BoomError):
        compare(x, y, data=inputs(), **quiet, **options)


def test_after_data_that_raise():
    def data():
        yield inputs(1)[0]
        raise BoomError

    x, y = mixed(), mixed(1)
    with unchanged(x, y), pytest.raises(BoomError):
        compare(x, y, data=data(), **quiet)


def test_after_an_interrupt():
    def data():
        yield inputs(1)[0]
        raise KeyboardInterrupt

    x = mixed()
    with unchanged(x), pytest.raises(KeyboardInterrupt):
        compare(x, data=data(), **quiet)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"layers": "nothing"}, repsim.LayerNotFoundError),
        ({"layers_y": "nothing"}, repsim.LayerNotFoundError),
        ({"kernel": "nothing"}, repsim.InputError),
        ({"data": []}, repsim.InputError),
        ({"data": [None]}, repsim.InputError),
        ({"passes": 0}, repsim.InputError),
        ({"batch_dim": 7}, repsim.CaptureError),
    ],
    ids=str,
)
def test_after_a_bad_argument(options, error):
    x, y = mixed(), mixed(1)
    with unchanged(x, y), pytest.raises(error):
        compare(x, y, **{"data": inputs(), **quiet, **options})


class Detector(nn.Module):
    """What hooks look at: a convolution, a norm, attention, queries and a second sequence."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
        self.queries = nn.Parameter(torch.randn(3, 8))
        self.decoder = nn.TransformerDecoderLayer(8, 2, 8, batch_first=True)
        # Neither runs: one takes its samples on axis 1, the other has no values.
        self.unused = nn.Sequential(nn.GRU(2, 2), nn.Linear(2, 2, device="meta"))

    def forward(self, x):
        tokens = self.encoder(self.norm(self.stem(x).flatten(2).mT))
        return self.decoder(self.queries.expand(len(x), -1, -1), tokens).mean(1)


LABELS = {"labels": lambda batch: torch.arange(len(batch)) % 2}
ANALYSES = {
    "distance": lambda m, data: repsim.attention_distance(
        m, data, layers="encoder.self_attn", **quiet
    ),
    "ratios": lambda m, data: repsim.residual_ratios(m, data, prefix=0, **quiet),
    "influence": lambda m, data: repsim.block_influence(m, data, **quiet),
    "probe": lambda m, data: repsim.linear_probe(
        m, data, data, **LABELS, layers=["encoder"], tokens=["mean"], **quiet
    ),
    "localization": lambda m, data: repsim.token_localization(m, data, ["encoder"], **quiet),
    "field": lambda m, data: repsim.effective_receptive_field(m, data, ["encoder"], **quiet),
    "stitch": lambda m, data: repsim.stitch(m, "norm", m, "encoder", data, **LABELS, **quiet),
    "heads": lambda m, data: repsim.head_subset_cka(
        m, m, data, layer="encoder.self_attn", layers_y=["norm"], **quiet
    ),
    "extract": lambda m, data: repsim.extract(
        m, data, ["encoder"], out="memory://as_found.zarr", transform="mean", **quiet
    ),
}


@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_after_every_analysis():
    """After a result, and after an error in place of the second batch."""

    class Broken(list):
        def __iter__(self):
            yield self[0]
            raise BoomError

    torch.manual_seed(0)
    model, data = Detector(), list(torch.randn(3, 6, 3, 16, 16))
    model.norm.eval()
    for analysis in ANALYSES.values():
        with unchanged(model):
            analysis(model, data)
        with unchanged(model), pytest.raises(BoomError):
            analysis(model, Broken(data))


# NaN


@pytest.mark.parametrize("k", [0, 1, 2, 4])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian", "polynomial", "cosine"])
def test_nan_names_layer_and_batch_and_keeps_earlier_results(k, kernel):
    x, y = mixed(), nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    if kernel == "cosine":  # a dead sample has no direction
        x[2] = nn.Tanh()
    data = inputs(5)
    data[k] = data[k].clone()
    data[k][3, 2] = float("nan")
    options = {"kernel": kernel, "layers_y": ["0", "1"], **quiet}
    one = pytest.warns(repsim.RepsimWarning, match="one batch") if k == 1 else nullcontext()
    with unchanged(x, y), one, pytest.raises(NonFiniteError) as caught:
        compare(x, y, data=data, **options)
    assert f"batch {k} (counted from 0)" in str(caught.value)
    assert "'0'" in str(caught.value)
    partial = caught.value.partial
    if k == 0:
        assert partial is None
        return
    if k == 1:
        with pytest.warns(repsim.RepsimWarning, match="one batch"):
            expected = compare(x, y, data=data[:k], **options)
    else:
        expected = compare(x, y, data=data[:k], **options)
    assert partial.identical(expected)


def test_only_the_layers_that_are_not_finite_are_named():
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    x = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), Log())
    with pytest.raises(NonFiniteError) as caught:
        compare(x, data=inputs(), layers=["0", "1", "2"], **quiet)
    assert "1 layer(s): '2'" in str(caught.value)
    result = compare(x, data=inputs(), layers=["0", "1"], **quiet)
    assert np.isfinite(result.cka.values).all()


def test_nan_in_the_second_model_is_located_there():
    x, y = net(), net(seed=1)
    with pytest.raises(NonFiniteError, match="  y, batch 0"):
        compare(x, y, data=inputs(), prepare_y=lambda b: b / 0, **quiet)


def test_nan_in_a_later_pass():
    rows = torch.cat(inputs(4))

    class Spoiled(Shuffled):
        def __iter__(self):
            for b, batch in enumerate(super().__iter__()):
                if self.iterations == 2 and b == 2:
                    batch[0, 0] = float("inf")
                yield batch

    x = net()
    with unchanged(x), pytest.raises(NonFiniteError, match="batch 2") as caught:
        compare(x, data=Spoiled(rows, 8), passes=3, **quiet)
    partial = caught.value.partial
    assert partial.attrs["n_batches"] == 6
    assert partial.attrs["passes"] == 2
    clean = Shuffled(rows, 8)
    expected = compare(x, data=[*clean, *list(clean)[:2]], **quiet)
    np.testing.assert_allclose(partial.cka.values, expected.cka.values, rtol=1e-9)


def test_half_precision_that_overflows():
    x = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).half()
    with torch.no_grad():
        x[1].weight.fill_(60000.0)
    with pytest.raises(NonFiniteError, match="65504") as caught:
        compare(x, data=[b.half() for b in inputs()], layers=["0", "1"], **quiet)
    assert "1 layer(s): '1'" in str(caught.value)


# Wrappers and dtypes


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        lambda m: nn.DataParallel(torch.compile(m)),
    ],
    ids=["data parallel", "compiled", "both"],
)
def test_wrapped_models(wrap):
    plain = net()
    expected = compare(plain, data=inputs(), **quiet)
    wrapped = wrap(plain)
    wrapped.train()
    with unchanged(plain):
        result = compare(wrapped, plain, data=inputs(), **quiet)
    assert wrapped.training
    assert result.layer_x.equals(expected.layer_x)
    assert result.attrs["model_x"] == "Sequential"
    np.testing.assert_allclose(result.cka.values, expected.cka.values, atol=1e-6)


def test_a_compiled_model_that_ran_before():
    """Hooks added after the compiled code exists would not be called."""
    plain = net().eval()
    compiled = torch.compile(plain, backend="eager")
    with torch.no_grad():
        compiled(inputs(1)[0])
    result = compare(compiled, data=inputs(), **quiet)
    np.testing.assert_array_equal(result.cka.values, matrix_of(plain, inputs()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    x, y = net().to(dtype), net(seed=1).to(dtype)
    data = [b.to(dtype) for b in inputs()]
    _, _, values = reference(x, y, data)
    result = compare(x, y, data=data, **quiet)
    atol = 1e-12 if dtype == torch.float64 else 1e-6
    np.testing.assert_allclose(result.cka.values, values, rtol=0, atol=atol)


def test_models_of_different_dtypes():
    x, y, data = net(), net(seed=1).double(), inputs()
    result = compare(x, y, data=data, prepare_y=lambda b: b.double(), **quiet)
    _, _, values = reference(x, y, data, call_y=lambda m, b: m(b.double()))
    np.testing.assert_allclose(result.cka.values, values, atol=1e-6)


def test_a_model_without_parameters():
    x = nn.Sequential(nn.Tanh(), nn.ReLU())
    assert compare(x, data=inputs(), **quiet).layer_x.values.tolist() == ["0", "1"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_each_model_on_its_own_device():
    x, y = net(), net(seed=1)
    expected = compare(x, y, data=inputs(), **quiet)
    y.cuda()
    before = state(y)
    random_state = torch.cuda.get_rng_state()
    for a, b, value in ((x, y, expected.cka.values), (y, x, expected.cka.values.T)):
        result = compare(a, b, data=inputs(), **quiet)
        np.testing.assert_allclose(result.cka.values, value, atol=1e-5)
    assert state(y) == before
    assert torch.equal(torch.cuda.get_rng_state(), random_state)
