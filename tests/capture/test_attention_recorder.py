"""Recording attention: masks, eager attention in every spelling, and what must be an error."""

import threading
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn import functional

from capture.attention_models import check_parts, consistent, images, taken, timm_vit
from reference import attention as reference
from repsim import CaptureError, InputError, LayerNotFoundError, RepsimWarning
from repsim.capture import AttentionCall, AttentionRecorder

X = torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(0))


class Attends(nn.Module):
    """Self-attention of 3 heads of 4 channels, computed by a function of q, k and v."""

    def __init__(self, attend, **attributes):
        super().__init__()
        torch.manual_seed(0)
        self.qkv = nn.Linear(12, 36)
        self.attend = attend
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return self.attend(q, k, v).transpose(1, 2).reshape(b, n, 12)


class Block(nn.Module):
    def __init__(self, attend, **attributes):
        super().__init__()
        self.attn = Attends(attend, **attributes)
        self.mlp = nn.Linear(12, 12)

    def forward(self, x):
        return x + self.mlp(x + self.attn(x))


def model_of(attend=functional.scaled_dot_product_attention, depth=2, **attributes):
    return nn.Sequential(*(Block(attend, **attributes) for _ in range(depth))).eval()


def scores(q, k):
    return q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5


# -- fused attention ------------------------------------------------------------------------------


class Bare(nn.Module):
    """A kernel call whose options are arguments of the test."""

    def forward(self, q, k, v, **options):
        return functional.scaled_dot_product_attention(q, k, v, **options)


masks = st.sampled_from(["none", "bool", "float", "row", "heads", "causal", "empty rows"])


@settings(deadline=None, max_examples=40)
@given(
    kind=masks,
    queries=st.integers(1, 5),
    keys=st.integers(1, 5),
    groups=st.sampled_from([1, 2]),
    scale=st.sampled_from([None, 1.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_fused_weights_are_the_plain_loops(kind, queries, keys, groups, scale, seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    heads = 2 * groups
    q, k, v = normal(2, heads, queries, 3), normal(2, 2, keys, 3), normal(2, 2, keys, 4)
    mask = {
        "none": None,
        "causal": None,
        "bool": normal(2, 1, queries, keys) > 0,
        "float": normal(queries, keys),
        "row": normal(2, 1, 1, keys) > -0.5,
        "heads": normal(1, heads, queries, keys),
        "empty rows": torch.zeros(queries, keys, dtype=torch.bool),
    }[kind]
    options = {"attn_mask": mask, "is_causal": kind == "causal", "scale": scale}
    options["enable_gqa"] = groups > 1
    found = taken(Bare(), lambda m: m(q, k, v, **options), chunk=2)
    (each,) = found.values()
    whole = None if mask is None else mask.expand(2, heads, queries, keys)
    for b in range(2):
        for h in range(heads):
            expected = reference.weights(
                q[b, h].tolist(),
                k[b, h // groups].tolist(),
                mask=None if whole is None else whole[b, h].tolist(),
                is_causal=kind == "causal",
                scale=scale,
            )
            np.testing.assert_allclose(each["weights"][b, h], expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(
                each["output"][b, h],
                reference.output(expected, v[b, h // groups].tolist()),
                rtol=0,
                atol=1e-5,
            )
    consistent(found)


def test_powers_are_those_of_the_weights_and_their_logarithms_finite():
    q = torch.randn(3, 2, 20, 4, generator=torch.Generator().manual_seed(0))
    far = q.clone()
    far[0, :, 2] *= 1e4  # weights that underflow
    parts = []

    def check(call):
        whole = torch.cat([weights for _, weights in call.weights()], -2)
        for entries in (1, 2 * 20 * 20, 1 << 20):
            check_parts(call, whole, entries)
        parts[:] = [each[:2] for each in call.powers(1)]

    some = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(1)) < 0.5
    some[:, :, 1] = False
    for query in (q, far):
        for mask in (None, some, some[0, 0]):
            with AttentionRecorder(model := Bare(), handle=check), torch.no_grad():
                model(query, q, q, attn_mask=mask)
    assert parts[:2] == [(slice(0, 1), slice(0, 10)), (slice(0, 1), slice(10, 20))]
    assert len(parts) == 6
    eager = model_of(lambda q, k, v: scores(q, k).softmax(-1) @ v)
    with AttentionRecorder(eager, handle=check), torch.no_grad():
        eager(X)


def test_parts_use_the_same_memory():
    places = []

    def handle(call):
        places.extend((e.data_ptr(), log_2.data_ptr()) for *_, e, log_2 in call.powers(1))

    q = torch.randn(3, 2, 20, 4)
    with AttentionRecorder(model := Bare(), handle=handle), torch.no_grad():
        for _ in range(2):
            model(q, q, q)
    assert len(places) == 12
    assert len(set(places)) == 1


def test_rows_without_any_key_are_zero():
    q = torch.randn(1, 1, 3, 4)
    mask = torch.tensor([[True, True, True], [False] * 3, [True, False, False]])
    found = taken(Bare(), lambda m: m(q, q, q, attn_mask=mask))
    assert found["Bare"]["weights"].sum(-1).flatten().tolist() == pytest.approx([1, 0, 1])
    consistent(found)


def test_nan_is_not_taken_for_a_row_without_keys():
    q = torch.randn(1, 1, 3, 4)
    q[0, 0, 1, 0] = torch.nan
    found = taken_unchecked(Bare(), q, torch.ones(3, 3, dtype=torch.bool))
    assert found.isnan().any(-1).flatten().tolist() == [True, True, True]


def taken_unchecked(model, q, mask):
    seen = []
    handle = lambda call: seen.extend(w for _, w in call.weights())  # noqa: E731
    with torch.no_grad(), AttentionRecorder(model, handle=handle):
        model(q, q, q, attn_mask=mask)
    return seen[0]


def test_causal_bias_objects():
    from torch.nn.attention.bias import causal_lower_right

    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    found = taken(Bare(), lambda m: m(q, k, k, attn_mask=causal_lower_right(3, 5)))
    consistent(found)
    assert (found["Bare"]["weights"][0, 0] > 0).sum(-1).tolist() == [3, 4, 5]


@pytest.mark.parametrize("lead", [(), (6,), (2, 3), (2, 5, 3)])
def test_leading_axes(lead):
    model = Bare()
    model.num_heads = 3
    q = torch.randn(*lead, 4, 2)
    found = taken(model, lambda m: m(q, q, q))
    each = found["Bare"]
    heads = 3 if lead else 1
    assert each["weights"].shape == (int(np.prod(lead)) // heads, heads, 4, 4)
    consistent(found)
    expected = scores(q, q).softmax(-1).reshape(each["weights"].shape)
    torch.testing.assert_close(each["weights"], expected)
    torch.testing.assert_close(each["output"], (expected @ each["value"]))


def test_without_a_hint_heads_come_last():
    q = torch.randn(2, 5, 3, 4, 2)  # batch, windows, heads, tokens, channels
    assert taken(Bare(), lambda m: m(q, q, q))["Bare"]["weights"].shape == (10, 3, 4, 4)


def test_heads_that_are_not_the_last_leading_axis():
    model = Bare()
    model.num_heads = 3
    q = torch.randn(2, 3, 5, 4, 2)  # batch, heads, windows, tokens, channels
    each = taken(model, lambda m: m(q, q, q))["Bare"]
    assert each["weights"].shape == (10, 3, 4, 4)
    expected = scores(q, q).softmax(-1).transpose(1, 2).reshape(10, 3, 4, 4)
    torch.testing.assert_close(each["weights"], expected)


def test_heads_that_look_like_the_batch():
    q = torch.randn(6, 4, 2)
    net = nn.Linear(2, 2)

    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = net

        def forward(self, x):
            folded = x.reshape(6, 4, 2)
            return functional.scaled_dot_product_attention(folded, folded, folded)

    with pytest.raises(CaptureError, match=r"which axis holds the heads is unknown"):
        taken(Folded(), lambda m: m(torch.randn(3, 8, 2)))
    assert taken(Folded(), lambda m: m(q))["Folded"]["weights"].shape == (6, 1, 4, 4)


# -- attention written out ------------------------------------------------------------------------


def softmax_of(q, k):
    return scores(q, k).softmax(-1)


SPELLINGS = {
    "matmul": lambda q, k, v: softmax_of(q, k) @ v,
    "functions": lambda q, k, v: torch.matmul(functional.softmax(scores(q, k), dim=3), v),
    "torch.softmax": lambda q, k, v: torch.matmul(torch.softmax(scores(q, k), dim=-1), v),
    "module": lambda q, k, v: nn.Softmax(dim=-1)(scores(q, k)).matmul(v),
    "dtype": lambda q, k, v: (
        functional.softmax(scores(q, k), -1, dtype=torch.float64).to(v.dtype) @ v
    ),
    "dropout": lambda q, k, v: functional.dropout(softmax_of(q, k), 0.5, training=False) @ v,
    "bmm": lambda q, k, v: torch.bmm(softmax_of(q, k).view(-1, 6, 6), v.reshape(-1, 6, 4)).view(
        2, 3, 6, 4
    ),
    "bmm of bmm": lambda q, k, v: torch.bmm(
        torch.bmm(q.reshape(-1, 6, 4) / 2, k.reshape(-1, 6, 4).mT).softmax(2), v.reshape(-1, 6, 4)
    ).view(2, 3, 6, 4),
    "transposed": lambda q, k, v: (v.mT @ softmax_of(q, k).transpose(-2, -1)).mT,
    "mT": lambda q, k, v: (v.mT @ softmax_of(q, k).mT).mT,
    "einsum": lambda q, k, v: torch.einsum("bhij,bhjd->bhid", softmax_of(q, k), v),
    "einsum values first": lambda q, k, v: torch.einsum("bhjd, bhij -> bhid", v, softmax_of(q, k)),
    "einsum with dots": lambda q, k, v: torch.einsum("...ij,...jd->...id", softmax_of(q, k), v),
    "einsum, heads last": lambda q, k, v: torch.einsum(
        "bijh,bhjd->bhid", softmax_of(q, k).permute(0, 2, 3, 1), v
    ),
    "einsum, other order": lambda q, k, v: torch.einsum(
        "bhij,bhjd->bihd", softmax_of(q, k), v
    ).transpose(1, 2),
    "regrouped": lambda q, k, v: (
        softmax_of(q, k).flatten(0, 1).unflatten(0, (2, 3)).contiguous().clone() @ v
    ),
    "some queries": lambda q, k, v: torch.cat(
        [softmax_of(q, k)[:, :, :] @ v, torch.zeros(2, 3, 0, 4)], dim=2
    ),
    "@ from the right": lambda q, k, v: v.__rmatmul__(softmax_of(q, k)),
    "keywords": lambda q, k, v: torch.matmul(
        functional.softmax(input=scores(q, k), dim=-1), other=v
    ),
    "keywords alone": lambda q, k, v: torch.matmul(
        other=v, input=functional.softmax(input=scores(q, k), dim=-1)
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_attention_written_out(spelling, unchanged):
    model = model_of(SPELLINGS[spelling], num_heads=3)
    expected = taken(model_of(), lambda m: m(X))
    with torch.no_grad():
        plain = model(X)
    with unchanged(model):
        found = taken(model, lambda m: m(X))
    assert torch.equal(found.result, plain)
    assert list(found) == ["0.attn", "1.attn"]
    consistent(found)
    for label, each in found.items():
        torch.testing.assert_close(each["weights"], expected[label]["weights"])
        torch.testing.assert_close(each["output"], expected[label]["output"])
        torch.testing.assert_close(each["value"], expected[label]["value"])
        assert each["over"] in ("tokens", "unknown")
    assert found["0.attn"]["over"] == "tokens"


def test_dropout_in_training_does_not_reach_the_weights():
    def attend(q, k, v):
        p = functional.dropout(softmax_of(q, k), 0.5, training=True)
        return torch.bmm(p.view(-1, 6, 6), v.reshape(-1, 6, 4)).view(2, 3, 6, 4)

    model = model_of(attend, num_heads=3)
    torch.manual_seed(3)
    with torch.no_grad():
        plain = model(X)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    found = taken(model, lambda m: m(X))
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(found.result, plain)
    assert (found["0.attn"]["weights"].sum(-1) - 1).abs().max() < 1e-6
    product = found["0.attn"]["weights"] @ found["0.attn"]["value"]
    assert (product - found["0.attn"]["output"]).abs().max() > 0.01  # dropout was there


def test_shared_values():
    """Multi-query attention: the values have no axis of heads."""

    def attend(q, k, v):
        return torch.einsum("blhp,bpk->blhk", softmax_of(q, k).transpose(1, 2), v[:, 0]).transpose(
            1, 2
        )

    found = taken(model_of(attend, depth=1), lambda m: m(X))
    consistent(found)
    expected = taken(model_of(lambda q, k, v: softmax_of(q, k) @ v[:, :1], depth=1), lambda m: m(X))
    for label, each in found.items():
        torch.testing.assert_close(each["weights"], expected[label]["weights"])
        torch.testing.assert_close(each["output"], expected[label]["output"])
    consistent(expected)


@pytest.mark.parametrize(
    "again", [torch.matmul, lambda p, v: torch.einsum("bhij,bhjd->bhid", p, v)]
)
def test_weights_that_are_used_twice_are_recorded_once(again):
    def attend(q, k, v):
        p = softmax_of(q, k)
        return p @ v + again(p, v.flip(-1))

    found = taken(model_of(attend), lambda m: m(X))
    assert list(found) == ["0.attn", "1.attn"]
    consistent(found)


class TestOver:
    """Tokens or channels, where a head has as many channels as there are tokens."""

    def run(self, attend, batch=2, tokens=4):
        model = Attends(attend)
        return taken(model, lambda m: m(torch.randn(batch, tokens, 12)))["Attends"]["over"]

    def channels(self, q, k, v):
        q, k, v = (t.mT for t in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).mT

    @pytest.mark.parametrize("batch", [1, 2, 4, 5])
    @pytest.mark.parametrize("tokens", [2, 4, 6])
    def test_memory_tells(self, batch, tokens):
        kernel = functional.scaled_dot_product_attention
        assert self.run(kernel, batch, tokens) == "tokens"
        assert self.run(self.channels, batch, tokens) == "channels"

    def test_as_many_channels_as_samples_are_no_tokens_in_front(self):
        class Narrow(nn.Module):
            def __init__(self):
                super().__init__()
                self.narrow = nn.Linear(24, 12)

            def forward(self, x):
                q = self.narrow(x).view(4, 6, 3, 4).permute(0, 2, 3, 1)
                return functional.scaled_dot_product_attention(q, q, q)

        found = taken(Narrow(), lambda m: m(torch.randn(4, 6, 24)))
        assert found["Narrow"]["over"] == "unknown"

    def test_a_copy_tells_nothing(self):
        kernel = functional.scaled_dot_product_attention
        copied = lambda q, k, v: kernel(q, k, v.contiguous())  # noqa: E731
        assert self.run(copied) == "unknown"
        assert self.run(copied, tokens=6) == "tokens"
        swapped = lambda q, k, v: kernel(q.mT, k.mT, v.mT.contiguous()).mT  # noqa: E731
        assert self.run(swapped) == "unknown"
        assert self.run(swapped, tokens=6) == "channels"

    def test_maps_with_channels_first(self):
        class Map(nn.Module):
            def __init__(self, transposed):
                super().__init__()
                self.qkv, self.transposed = nn.Conv2d(8, 24, 1), transposed

            def forward(self, x):
                q, k, v = self.qkv(x).view(len(x), 3, 2, 4, -1).unbind(1)
                if self.transposed:
                    q, k, v = q.mT, k.mT, v.mT
                return functional.scaled_dot_product_attention(q, k, v)

        for size in (2, 3):
            x = torch.randn(2, 8, size, size)
            for transposed, over in ((True, "tokens"), (False, "channels")):
                found = taken(Map(transposed), lambda m, x=x: m(x))
                assert found["Map"]["over"] == over


def test_a_mask_after_the_softmax():
    """A query whose keys are all masked has weights of 0, set by hand."""

    def attend(q, k, v):
        masked = scores(q, k).masked_fill(torch.arange(6)[:, None] == 2, -torch.inf)
        return masked.softmax(-1).nan_to_num(0.0) @ v

    found = taken(model_of(attend), lambda m: m(X))
    consistent(found)
    assert found["0.attn"]["weights"].sum(-1)[0, 0].tolist() == pytest.approx([1, 1, 0, 1, 1, 1])


UNMATCHED = {
    "talking heads": lambda q, k, v: (
        torch.einsum("hg,bgij->bhij", torch.ones(3, 3), softmax_of(q, k)) @ v
    ),
    "difference": lambda q, k, v: (softmax_of(q, k) - 0.2 * softmax_of(k, q)) @ v,
    "summed over queries": lambda q, k, v: softmax_of(q, k).transpose(-2, -1) @ v,
    "some keys": lambda q, k, v: softmax_of(q, k)[..., 1:] @ v[..., 1:, :],
    "summed over queries from the left": lambda q, k, v: (v.mT @ softmax_of(q, k)).mT,
    "summed over queries by einsum": lambda q, k, v: torch.einsum(
        "bhij,bhid->bhjd", softmax_of(q, k), v
    ),
    "deformable, at sampled places": lambda q, k, v: (
        softmax_of(q, k)[..., None] * v[:, :, None].roll(1, 3)
    ).sum(3),
    "multiplied out": lambda q, k, v: torch.einsum("bhij,bhjd->bhijd", softmax_of(q, k), v).sum(3),
    "never used": lambda q, k, v: (softmax_of(q, k), v)[1],
}


@pytest.mark.parametrize("spelling", UNMATCHED)
def test_calls_without_a_product_of_weights_and_values_are_listed(spelling, unchanged):
    model = model_of(UNMATCHED[spelling])
    with (
        unchanged(model),
        pytest.raises(
            CaptureError, match=r"(?s)followed.*softmax in 0\.attn: \(2, 3, 6, 6\)\n.*Deformable"
        ),
    ):
        taken(model, lambda m: m(X))


def test_a_softmax_over_the_queries_is_no_attention():
    with pytest.raises(CaptureError, match=r"0\.attn: \(2, 3, 6, 6\), not over the last axis"):
        taken(model_of(lambda q, k, v: scores(q, k).softmax(-2) @ v), lambda m: m(X))


def test_part_of_a_model_unmatched_is_a_warning_once_and_an_error_by_name():
    good, bad = Block(functional.scaled_dot_product_attention), Block(UNMATCHED["talking heads"])
    model = nn.Sequential(good, bad).eval()
    handed = []
    with AttentionRecorder(model, handle=lambda c: handed.append(c.label)):
        with pytest.warns(RepsimWarning, match=r"softmax in 1\.attn") as caught:
            model(X)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        model(X)  # warnings are errors here
    assert handed == ["0.attn"] * 2
    with pytest.raises(LayerNotFoundError, match=r"no attention was seen in '1\.attn'"):
        taken(model, lambda m: m(X), ["0.attn", "1.attn"])
    taken(model, lambda m: m(X), "0.*")  # layers that are not selected raise nothing


def test_softmaxes_that_are_no_attention_are_passed_over():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model_of()
            self.gate = nn.Linear(12, 2)

        def forward(self, x):
            x = self.body(x)
            return (x * functional.softmax(self.gate(x), -1)[..., :1]).mean(1).softmax(-1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(taken(Classifier(), lambda m: m(X))) == ["body.0.attn", "body.1.attn"]


# -- names ----------------------------------------------------------------------------------------


def test_a_model_that_is_one_attention_layer_goes_by_its_class():
    found = taken(Attends(functional.scaled_dot_product_attention), lambda m: m(X))
    assert list(found) == ["Attends"]


def test_several_calls_of_one_module():
    block = Block(functional.scaled_dot_product_attention)
    model = nn.Sequential(block, nn.Tanh(), block)
    labels = []
    recorder = AttentionRecorder(model, handle=lambda c: labels.append((c.label, c.call)))
    with recorder:
        for _ in range(2):
            model(X)
    # Only the first forward shows that there are two.
    assert labels == [("0.attn", 0), ("0.attn:1", 1), ("0.attn:0", 0), ("0.attn:1", 1)]
    assert recorder.label("0.attn", 0) == "0.attn:0"
    handed = []
    with AttentionRecorder(model, "0.attn:1", handle=lambda c: handed.append(c.call)):
        model(X)
    assert handed == [1]
    with pytest.raises(LayerNotFoundError, match=r"'0\.attn:2'"):
        taken(model, lambda m: m(X), "0.attn:2")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("0.attn", ["0.attn"]),
        ("*.attn", ["0.attn", "1.attn"]),
        (["1.*"], ["1.attn"]),
        (Attends, ["0.attn", "1.attn"]),
        (lambda name, module: name.startswith("1"), ["1.attn"]),
    ],
)
def test_choosing_layers(layers, expected):
    assert list(taken(model_of(), lambda m: m(X), layers)) == expected


def test_a_container_by_name_is_an_error_that_names_its_modules():
    with pytest.raises(LayerNotFoundError, match=r"(?s)in '0'.*inside.*'0\.attn'"):
        taken(model_of(), lambda m: m(X), "0")


def test_chosen_layers_without_attention():
    with pytest.raises(CaptureError, match=r"(?s)in the chosen layers.*'0\.attn', '1\.attn'"):
        taken(model_of(), lambda m: m(X), "*mlp")


def test_wrappers_are_not_part_of_names():
    assert list(taken(nn.DataParallel(model_of()), lambda m: m(X))) == ["0.attn", "1.attn"]


def test_parts_of_a_model_called_by_themselves():
    model = model_of()
    labels = []
    with AttentionRecorder(model, handle=lambda c: labels.append(c.label)) as recorder:
        for _ in range(2):
            recorder.clear()
            model[1](X)
    assert labels == ["1.attn"] * 2


def test_modules_called_outside_the_model_are_not_recorded():
    model, other = model_of(), model_of()
    labels = []
    with AttentionRecorder(model, handle=lambda c: labels.append(c.label)):
        other(X)
        functional.scaled_dot_product_attention(X, X, X)
        model(X)
    assert labels == ["0.attn", "1.attn"]


def test_nested_recorders():
    model = model_of()
    one, two = [], []
    with (
        AttentionRecorder(model, handle=lambda c: one.append(c.label)),
        AttentionRecorder(model, "0.attn", handle=lambda c: two.append(c.label)),
    ):
        model(X)
    assert (one, two) == (["0.attn", "1.attn"], ["0.attn"])


# -- leaving the model as it was ------------------------------------------------------------------


def test_after_errors_everywhere(unchanged):
    class Fails(nn.Module):
        def forward(self, x):
            raise ZeroDivisionError

    model = nn.Sequential(Block(functional.scaled_dot_product_attention), Fails())
    handed = []
    recorder = AttentionRecorder(model, handle=lambda c: handed.append(c.label))
    with unchanged(model), pytest.raises(ZeroDivisionError), recorder:
        model(X)
    assert torch.overrides._len_torch_function_stack() == 0
    model[1] = nn.Identity()
    recorder = AttentionRecorder(model, handle=lambda c: handed.append(c.label))
    with recorder:
        for _ in range(2):
            model(X)
            with pytest.raises(RuntimeError):
                model(X[..., :5])
    assert handed == ["0.attn"] * 3
    with pytest.raises(CaptureError, match="already recording"), recorder, recorder:
        model(X)


def test_an_error_in_the_handler_names_the_layer(unchanged):
    model = model_of()

    def handle(call):
        raise ZeroDivisionError

    recorder = AttentionRecorder(model, handle=handle)
    with unchanged(model), pytest.raises(ZeroDivisionError) as caught, recorder:
        model(X)
    assert "layer '0.attn' (call 0)" in caught.value.__notes__[0]
    assert torch.overrides._len_torch_function_stack() == 0


def test_a_hook_that_raises_does_not_confuse_the_names():
    model = model_of()
    labels = []
    with AttentionRecorder(model, handle=lambda c: labels.append(c.label)):
        handle = model[0].mlp.register_forward_pre_hook(lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(X)
        handle.remove()
        model(X)
    assert labels == ["0.attn", "0.attn", "1.attn"]


def test_activation_checkpointing_is_recorded_once():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model_of()

        def forward(self, x):
            return checkpoint(self.body, x, use_reentrant=False)

    model, labels = Checkpointed(), []
    with AttentionRecorder(model, handle=lambda c: labels.append(c.label)):
        model(X).sum().backward()
    assert labels == ["body.0.attn", "body.1.attn"]


@pytest.mark.parametrize("how", ["wrapper", "in place", "child"])
@pytest.mark.parametrize("warm", [True, False])
def test_compiled_models(how, warm):
    torch.compiler.reset()
    net = model_of()
    model = net
    if how == "wrapper":
        model = torch.compile(net, backend="eager")
    elif how == "in place":
        net.compile(backend="eager")
    else:
        net[0] = torch.compile(net[0], backend="eager")
    with torch.no_grad():
        if warm:
            model(X)
    assert list(taken(model, lambda m: m(X))) == ["0.attn", "1.attn"]


# -- silent zeros ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["trace", "script", "traced child"])
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
def test_scripted_modules_are_refused(how):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).eval()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    with torch.no_grad():
        if how == "trace":
            model = torch.jit.trace(Wrapped().eval(), X)
        elif how == "script":
            model = torch.jit.script(nn.Sequential(nn.Linear(12, 12), nn.Softmax(-1)))
        else:
            model = nn.Sequential(torch.jit.trace(Wrapped().eval(), X), model_of())
    with pytest.raises(CaptureError, match="scripted or traced"):
        AttentionRecorder(model, handle=print)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_scripted_modules_without_attention_are_ignored():
    model = nn.Sequential(torch.jit.script(nn.Linear(12, 12)), model_of())
    assert list(taken(model, lambda m: m(X))) == ["1.0.attn", "1.1.attn"]


def test_another_thread_is_refused():
    model, errors = model_of(), []

    def forward():
        try:
            model(X)
        except CaptureError as error:
            errors.append(str(error))

    recorder = AttentionRecorder(model, handle=lambda c: errors.append(c.label))
    with pytest.raises(CaptureError, match="did not run"), recorder:
        thread = threading.Thread(target=forward)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert "another thread" in errors[0]
    assert "DataParallel" in errors[0]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_refused():
    model = Bare()
    q = torch.nested.as_nested_tensor([torch.randn(2, 3, 4), torch.randn(2, 5, 4)])
    with pytest.raises(CaptureError, match="nested tensor"):
        taken(model, lambda m: m(q, q, q))


def test_a_model_without_attention():
    model = nn.Sequential(nn.Linear(12, 12), nn.Softmax(-1))
    with pytest.raises(CaptureError, match=r"seen\.\n.*softmaxes.*Sequential: \(2, 6"):
        taken(model, lambda m: m(X))
    with pytest.raises(CaptureError, match="did not run"):
        taken(model, lambda m: None)


def test_arguments():
    with pytest.raises(InputError, match=r"model must be a torch\.nn\.Module"):
        AttentionRecorder("resnet18", handle=print)
    with pytest.raises(InputError, match="handle must be callable"):
        AttentionRecorder(model_of(), handle=None)
    with pytest.raises(LayerNotFoundError, match="no layer is called"):
        AttentionRecorder(model_of(), "2.attn", handle=print)
    with AttentionRecorder(model := model_of(), handle=bad_chunk):
        model(X)


def bad_chunk(call: AttentionCall) -> None:
    for chunk in (0, -1, 2.5):
        with pytest.raises(InputError, match="chunk must be a positive integer"):
            next(call.weights(chunk))
        with pytest.raises(InputError, match="entries must be a positive integer"):
            next(call.powers(chunk))


# -- memory ---------------------------------------------------------------------------------------


def test_the_weights_never_exist_at_once():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return out

    model = timm_vit(patch_size=2, depth=1, mlp_ratio=1)  # 257 tokens, 3 heads
    x = images(4)
    total = []

    def reduce(call):
        for _, weights in call.weights():
            total.append(weights.sum())

    with torch.no_grad(), AttentionRecorder(model, handle=reduce), Largest() as during:
        model(x)
    whole = 4 * 3 * 257 * 257
    assert sum(total).item() == pytest.approx(4 * 3 * 257, rel=1e-5)
    assert during.numel < whole / 4
    with torch.no_grad(), Largest() as eager:
        q = torch.randn(4, 3, 257, 16)
        scores(q, q).softmax(-1)
    assert eager.numel == whole  # the check sees what is too large
