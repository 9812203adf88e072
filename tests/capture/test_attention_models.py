"""Attention of models that people use: the weights are those that eager attention computes."""

import contextlib

import pytest
import torch
from torch import nn

from capture.attention_models import (
    consistent,
    fused,
    hugging_face,
    hugging_face_swin,
    ids,
    images,
    naflex,
    padding,
    softmaxes,
    spread,
    taken,
    timm_swin,
    timm_vit,
    torchvision_swin,
    torchvision_vit,
    unfused,
    with_weights,
)
from packages import timm, transformers
from repsim import CaptureError
from repsim.capture import AttentionRecorder

TIMM = {
    "vit": timm_vit,
    "vit-registers": lambda: timm_vit(reg_tokens=4),
    "vit-pooled": lambda: timm_vit(class_token=False, global_pool="avg"),
    "vit-qk-norm": lambda: timm_vit(qk_norm=True),
    "deit-distilled": lambda: timm_vit("deit_tiny_distilled_patch16_224"),
    "beit": lambda: timm_vit("beit_base_patch16_224"),
    "eva": lambda: timm_vit("eva02_tiny_patch14_224"),
    "dinov3": lambda: timm_vit("vit_small_patch16_dinov3"),
    "naflexvit": naflex,
    "swin": lambda: timm_swin("swin_tiny_patch4_window7_224"),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm(name, unchanged):
    model = fused(spread(TIMM[name]()))
    x = images(size=64 if name == "swin" else 32)
    with torch.no_grad():
        plain = model(x)
    with unchanged(model):
        found = taken(model, lambda m: m(x))
    assert torch.equal(found.result, plain)
    consistent(found)
    layers = [k for k, m in model.named_modules() if type(m).__name__.endswith("Attention")]
    layers = layers or [k for k, _ in model.named_modules() if k.endswith(".attn")]
    assert list(found) == layers
    assert len(layers) == (4 if name == "swin" else 2)
    with unfused(model) as expected:
        written_out = taken(model, lambda m: m(x))
    consistent(written_out)
    assert len(expected) == len(found)
    for (label, each), reference in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(each["weights"], reference, rtol=0, atol=1e-5)
        assert torch.equal(written_out[label]["weights"], reference)
        torch.testing.assert_close(written_out[label]["output"], each["output"], rtol=0, atol=1e-5)
        assert each["over"] == "tokens"
        assert each["weights"].std(-1).max() > 0.01  # uneven enough to tell


def test_timm_swin_v2(unchanged):
    """Its attention is written out: there is no fused path."""
    model = spread(timm_swin("swinv2_tiny_window8_256"))
    x = images(size=64)
    with softmaxes() as expected, torch.no_grad():
        plain = model(x)
    with unchanged(model):
        found = taken(model, lambda m: m(x))
    assert torch.equal(found.result, plain)
    consistent(found)
    assert [k.endswith(".attn") for k in found] == [True] * 4
    for each, reference in zip(found.values(), expected, strict=True):
        assert torch.equal(each["weights"], reference)
    # 16×16 tokens in windows of 4×4, then 8×8.
    assert [e["call"].batch for e in found.values()] == [32, 32, 8, 8]


def test_torchvision_vit(unchanged):
    model = spread(torchvision_vit())
    x = images()
    with torch.no_grad():
        plain = model(x)
    with unchanged(model):
        found = taken(model, lambda m: m(x))
    # The fast path of nn.MultiheadAttention gives way.
    torch.testing.assert_close(found.result, plain, rtol=0, atol=1e-5)
    consistent(found)
    assert list(found) == [f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(2)]
    with with_weights(model) as expected, torch.no_grad():
        model(x)
    for each, reference in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(each["weights"], reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", [1, 2])
def test_torchvision_swin(version, unchanged):
    model = spread(torchvision_swin(version))
    x = images(size=64)
    with softmaxes() as expected, torch.no_grad():
        plain = model(x)
    with unchanged(model):
        found = taken(model, lambda m: m(x))
    assert torch.equal(found.result, plain)
    consistent(found)
    assert len(found) == 4
    for each, reference in zip(found.values(), expected, strict=True):
        assert torch.equal(each["weights"], reference)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "siglip", "beit"])
def test_hugging_face_vision(kind, unchanged):
    x = images()
    kernel, eager = (spread(hugging_face(kind, how)) for how in ("sdpa", "eager"))
    with torch.no_grad():
        plain = kernel(pixel_values=x).last_hidden_state
        expected = eager(pixel_values=x, output_attentions=True).attentions
    assert expected
    with unchanged(kernel):
        found = taken(kernel, lambda m: m(pixel_values=x))
    assert torch.equal(found.result.last_hidden_state, plain)
    consistent(found)
    encoder = {k: v for k, v in found.items() if "head" not in k}
    assert len(encoder) == len(expected) == 2
    written_out = taken(eager, lambda m: m(pixel_values=x))
    consistent(written_out)
    assert list(written_out) == list(found)
    for (label, each), reference in zip(encoder.items(), expected, strict=True):
        torch.testing.assert_close(each["weights"], reference, rtol=0, atol=1e-5)
        assert torch.equal(written_out[label]["weights"], reference)
        assert each["over"] == "tokens"


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_hugging_face_text(kind, unchanged):
    """Padded and causal masks, and queries that share keys in groups."""
    batch = {"input_ids": ids(), "attention_mask": padding()}
    kernel, eager = (spread(hugging_face(kind, how)) for how in ("sdpa", "eager"))
    with torch.no_grad():
        plain = kernel(**batch).last_hidden_state
        expected = eager(**batch, output_attentions=True).attentions
    with unchanged(kernel):
        found = taken(kernel, lambda m: m(**batch))
    assert torch.equal(found.result.last_hidden_state, plain)
    consistent(found)
    written_out = taken(eager, lambda m: m(**batch))
    consistent(written_out)
    for (label, each), reference in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(each["weights"], reference, rtol=0, atol=1e-5)
        assert torch.equal(written_out[label]["weights"], reference)
        assert each["weights"][1, :, :, 4:].abs().max() == 0  # padding is never looked at
        later = torch.ones(7, 7).triu(1).bool()
        assert (each["weights"][0][:, later].abs().max() == 0) == (kind == "llama")


def test_a_causal_language_model_without_padding():
    """Then the kernel gets is_causal and no mask."""
    kernel, eager = (spread(hugging_face("llama", how)) for how in ("sdpa", "eager"))
    found = taken(kernel, lambda m: m(ids()))
    with torch.no_grad():
        expected = eager(ids(), output_attentions=True).attentions
    consistent(found)
    for each, reference in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(each["weights"], reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", [1, 2])
def test_hugging_face_swin(version, unchanged):
    torch.manual_seed(0)
    model = spread(hugging_face_swin(version))
    x = images(size=64)
    with torch.no_grad():
        plain = model(pixel_values=x).last_hidden_state
    with unchanged(model):
        found = taken(model, lambda m: m(pixel_values=x))
    assert torch.equal(found.result.last_hidden_state, plain)
    consistent(found)
    assert [e["call"].batch for e in found.values()] == [32, 32, 8, 8]
    if version == 2:
        with softmaxes() as expected, torch.no_grad():
            model(pixel_values=x)
        for each, reference in zip(found.values(), expected, strict=True):
            assert torch.equal(each["weights"], reference)


def encoder(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, nhead=4, dim_feedforward=16, batch_first=True, **options)
    return spread(nn.TransformerEncoder(layer, 2).eval())


@contextlib.contextmanager
def slow_path():
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


@pytest.mark.parametrize("mask", [None, "padding", "boolean", "causal", "float"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_transformer_encoder(mask, norm_first, unchanged):
    model = encoder(norm_first=norm_first)
    x = torch.randn(3, 6, 16)
    options = {
        None: {},
        "padding": {"src_key_padding_mask": padding(3, 6) == 0},
        "boolean": {"mask": torch.rand(6, 6) > 0.7},
        "causal": {
            "mask": nn.Transformer.generate_square_subsequent_mask(6),
            "is_causal": True,
        },
        "float": {"mask": torch.randn(6, 6)},
    }[mask]
    if mask == "boolean":
        options["mask"].fill_diagonal_(False)
    with torch.no_grad():
        plain = model(x, **options)
        with slow_path():
            slow = model(x, **options)
    with unchanged(model):
        found = taken(model, lambda m: m(x, **options))
    assert torch.equal(found.result, slow)
    if mask == "float":
        plain = slow  # the fast path treats every number but 0 as masked, and returns only NaN
    real = padding(3, 6).bool() if mask == "padding" else torch.ones(3, 6, dtype=torch.bool)
    torch.testing.assert_close(found.result[real], plain[real], rtol=0, atol=1e-5)
    consistent(found)
    assert list(found) == ["layers.0.self_attn", "layers.1.self_attn"]
    with with_weights(model) as expected, slow_path(), torch.no_grad():
        model(x, **options)
    for each, reference in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(each["weights"], reference, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_padding_of_a_packed_encoder_is_no_longer_zero():
    """The one difference beyond rounding, as the docstring says: torch packs, then pads with 0."""
    model = encoder()
    x, mask = torch.randn(3, 6, 16), padding(3, 6) == 0
    with torch.no_grad():
        plain = model(x, src_key_padding_mask=mask)
    found = taken(model, lambda m: m(x, src_key_padding_mask=mask))
    assert plain[mask].abs().max() == 0
    assert found.result[mask].abs().min() > 0


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 12, "vdim": 10}, {"bias": False}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_multihead_attention(options, batch_first, average, need, unchanged):
    torch.manual_seed(0)
    model = spread(nn.MultiheadAttention(16, 4, batch_first=batch_first, **options).eval())
    q, k, v = (torch.randn(3, n, d) for n, d in ((5, 16), (7, model.kdim), (7, model.vdim)))
    if not batch_first:
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    ask = {"need_weights": need, "average_attn_weights": average}
    mask = torch.rand(12, 5, 7) > 0.5 if need else torch.randn(5, 7)
    with torch.no_grad():
        plain = model(q, k, v, attn_mask=mask, **ask)
        expected = model(q, k, v, attn_mask=mask, average_attn_weights=False)[1]
    with unchanged(model):
        found = taken(model, lambda m: m(q, k, v, attn_mask=mask, **ask))
    assert torch.equal(found.result[0].nan_to_num(), plain[0].nan_to_num())
    if need:
        assert torch.equal(found.result[1].nan_to_num(), plain[1].nan_to_num())
    else:
        assert found.result[1] is None
    assert list(found) == ["MultiheadAttention"]
    (each,) = found.values()
    # nn.MultiheadAttention itself turns rows without any key into NaN where weights are asked for.
    defined = ~expected.isnan().any(-1)
    torch.testing.assert_close(each["weights"][defined], expected[defined], rtol=0, atol=1e-6)


@pytest.mark.parametrize("grad", [True, False])
def test_the_fast_path_of_self_attention(grad):
    model = spread(nn.MultiheadAttention(16, 4, batch_first=True).eval())
    x, mask = torch.randn(3, 6, 16), padding(3, 6) == 0
    with torch.set_grad_enabled(grad):
        plain = model(x, x, x, key_padding_mask=mask)
    found = taken(model, lambda m: m(x, x, x, key_padding_mask=mask, need_weights=grad))
    consistent(found)
    torch.testing.assert_close(found.result[0], plain[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        found["MultiheadAttention"]["weights"].mean(1), plain[1], rtol=0, atol=1e-6
    )


def test_unbatched_multihead_attention():
    model = spread(nn.MultiheadAttention(16, 4).eval())
    x = torch.randn(6, 16)
    found = taken(model, lambda m: m(x, x, x))
    consistent(found)
    assert found["MultiheadAttention"]["weights"].shape == (1, 4, 6, 6)


def test_transformer_with_decoder():
    """Three attentions a decoder layer's pair, and the second from other queries."""
    model = spread(nn.Transformer(16, 4, 1, 1, dim_feedforward=16, batch_first=True).eval())
    source, target = torch.randn(2, 6, 16), torch.randn(2, 4, 16)
    found = taken(model, lambda m: m(source, target))
    consistent(found)
    assert {k: tuple(v["weights"].shape) for k, v in found.items()} == {
        "encoder.layers.0.self_attn": (2, 4, 6, 6),
        "decoder.layers.0.self_attn": (2, 4, 4, 4),
        "decoder.layers.0.multihead_attn": (2, 4, 4, 6),
    }


class TestChannelAttention:
    """Its queries are channels for any sizes."""

    @pytest.mark.parametrize("kernel", [True, False])
    @pytest.mark.parametrize("tokens", [16, 64])  # 16 channels a head: the shapes say nothing
    def test_xcit(self, kernel, tokens):
        model = timm.create_model(
            "xcit_nano_12_p16_224", img_size=4 * int(tokens**0.5) * 4, embed_dim=64, num_heads=4,
            depth=1, cls_attn_layers=1,
        ).eval()  # fmt: skip
        x = images(size=4 * int(tokens**0.5) * 4)
        found = taken(fused(model, kernel), lambda m: m(x), "blocks.*")
        consistent(found)
        (each,) = found.values()
        assert each["over"] == "channels"
        assert each["weights"].shape == (2, 4, 16, 16)
        assert each["value"].shape == (2, 4, 16, tokens)

    @pytest.mark.parametrize("v2", [True, False])
    def test_davit(self, v2):
        model = timm.create_model(
            "davit_tiny", depths=(1, 1), embed_dims=(32, 64), num_heads=(2, 4), channel_attn_v2=v2
        ).eval()
        x = images(size=64)
        found = taken(model, lambda m: m(x))
        consistent(found)
        over = {type(e["call"].module).__name__: e["over"] for e in found.values()}
        kinds = {k: v for k, v in over.items() if k.startswith("Channel")}
        assert set(kinds.values()) == {"channels"}
        assert len(kinds) == 1
        assert set(over.values()) - {"channels"} <= {"tokens", "unknown"}


def test_talking_heads_are_named_and_not_recorded():
    model = timm.create_model(
        "cait_xxs24_224", img_size=32, patch_size=8, embed_dim=48, num_heads=4, depth=2
    ).eval()
    x = images()
    with pytest.warns(UserWarning, match=r"blocks\.0\.attn: \(2, 4, 16, 16\)"):
        found = taken(model, lambda m: m(x))
    assert all(label.startswith("blocks_token_only") for label in found)
    with pytest.raises(CaptureError, match=r"could be followed.*\n.*blocks\.0\.attn"):
        taken(model, lambda m: m(x), "blocks.*")
    with pytest.raises(CaptureError, match=r"no attention was seen in 'blocks\.1\.attn'"):
        taken(model, lambda m: m(x), ["blocks.1.attn", "blocks_token_only.*"])


def test_vision_and_text_in_one_model():
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config={
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50,
            "intermediate_size": 32, "max_position_embeddings": 16, "eos_token_id": 49,
        },
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
            "intermediate_size": 32, "image_size": 32, "patch_size": 8,
        },
        projection_dim=16,
    )  # fmt: skip
    model = spread(transformers.CLIPModel(config))
    batch = {"input_ids": ids(), "pixel_values": images()}
    found = taken(model, lambda m: m(**batch))
    consistent(found)
    assert {k: v["weights"].shape[1:] for k, v in found.items()} == {
        "vision_model.encoder.layers.0.self_attn": (4, 17, 17),
        "text_model.encoder.layers.0.self_attn": (2, 7, 7),
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_computed_in_float32(dtype):
    model = spread(timm_vit()).to(dtype)
    x = images().to(dtype)
    found = taken(model, lambda m: m(x))
    for each in found.values():
        assert each["weights"].dtype == torch.float32
        assert (each["weights"].sum(-1) - 1).abs().max() < 1e-5
        assert each["output"].dtype == dtype
    consistent(found, tolerance=0.05)


def test_autocast():
    model, x = spread(timm_vit()), images()

    def call(m):
        with torch.autocast("cpu", torch.bfloat16):
            return m(x)

    with torch.no_grad():
        plain = call(model)
    found = taken(model, call)
    assert torch.equal(found.result, plain)
    for each in found.values():
        assert each["weights"].dtype == torch.float32
        assert (each["weights"].sum(-1) - 1).abs().max() < 1e-5


def test_double_precision():
    model = spread(timm_vit()).double()
    found = taken(model, lambda m: m(images().double()))
    consistent(found, tolerance=1e-12)
    assert {each["weights"].dtype for each in found.values()} == {torch.float64}


def test_gradients_and_inference_mode_are_the_forwards_own():
    model, x = spread(timm_vit()), images()
    grads = []

    def handle(call):
        grads.append(torch.is_grad_enabled())
        assert not next(call.weights())[1].requires_grad

    with AttentionRecorder(model, handle=handle):
        y = model(x)
        y.sum().backward()
        with torch.inference_mode():
            assert model(x).is_inference()
    assert grads == [False] * 4
    recorded = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(x).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(recorded, model.parameters(), strict=True))
