"""Models with attention in them, small, and eager references for what they attend to."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from packages import timm, torchvision, transformers
from repsim.capture import AttentionCall, AttentionRecorder

SIZE = 32


def images(n: int = 2, size: int | tuple[int, int] = SIZE) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(1))


def spread(model: nn.Module, factor: float = 4.0) -> nn.Module:
    """Make attention uneven, because with fresh weights it is nearly uniform."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and any(
                k in name for k in ("qkv", "query", "q_proj", "in_proj")
            ):
                parameter.mul_(factor)
    return model.eval()


def timm_vit(name: str = "vit_tiny_patch16_224", **options: Any) -> nn.Module:
    torch.manual_seed(0)
    given = {
        "img_size": SIZE, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "depth": 2,
        "num_classes": 5, **options,
    }  # fmt: skip
    return timm.create_model(name, **given)


def naflex() -> nn.Module:
    return timm_vit("naflexvit_base_patch16_gap", img_size=None, reg_tokens=2)


def timm_swin(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    given = {
        "img_size": 64, "patch_size": 4, "window_size": 4, "embed_dim": 24, "depths": (2, 2),
        "num_heads": (2, 4), "num_classes": 5, **options,
    }  # fmt: skip
    return timm.create_model(name, **given)


def torchvision_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=SIZE, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=32,
        num_classes=5,
    )  # fmt: skip


def torchvision_swin(version: int) -> nn.Module:
    block = {
        1: torchvision.models.swin_transformer.SwinTransformerBlock,
        2: torchvision.models.swin_transformer.SwinTransformerBlockV2,
    }[version]
    merging = {
        1: torchvision.models.swin_transformer.PatchMerging,
        2: torchvision.models.swin_transformer.PatchMergingV2,
    }[version]
    return torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4],
        num_classes=5, block=block, downsample_layer=merging,
    )  # fmt: skip


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}
VISION = {**SMALL, "image_size": SIZE, "patch_size": 8}
TEXT = {**SMALL, "vocab_size": 50, "max_position_embeddings": 32}


def hugging_face(kind: str, attention: str = "sdpa", **options: Any) -> nn.Module:
    config_class, model_class, given = {
        "vit": (transformers.ViTConfig, transformers.ViTModel, VISION),
        "dinov2": (transformers.Dinov2Config, transformers.Dinov2Model, VISION),
        "clip": (transformers.CLIPVisionConfig, transformers.CLIPVisionModel, VISION),
        "siglip": (transformers.SiglipVisionConfig, transformers.SiglipVisionModel, VISION),
        "beit": (transformers.BeitConfig, transformers.BeitModel, VISION),
        "bert": (transformers.BertConfig, transformers.BertModel, TEXT),
        "llama": (
            transformers.LlamaConfig,
            transformers.LlamaModel,
            {**TEXT, "num_key_value_heads": 2},
        ),
    }[kind]
    torch.manual_seed(0)
    config = config_class(**{**given, **options})
    config._attn_implementation = attention
    return model_class(config)


def hugging_face_swin(version: int) -> nn.Module:
    config_class, model_class = {
        1: (transformers.SwinConfig, transformers.SwinModel),
        2: (transformers.Swinv2Config, transformers.Swinv2Model),
    }[version]
    config = config_class(
        image_size=64, patch_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4
    )
    return model_class(config)


def ids(n: int = 2, length: int = 7, vocabulary: int = 50) -> Tensor:
    return torch.randint(0, vocabulary, (n, length), generator=torch.Generator().manual_seed(2))


def padding(n: int = 2, length: int = 7) -> Tensor:
    """1 for a token, 0 for padding; the first sample is whole, the others are not."""
    lengths = torch.tensor([length, *range(length - 3, length - 3 - (n - 1), -1)])
    return (torch.arange(length) < lengths[:, None]).long()


class Taken(dict[str, dict[str, Any]]):
    """Everything that a recorder returned in a forward, cloned."""

    def __init__(self) -> None:
        super().__init__()
        self.result: Any = None


def taken(
    model: nn.Module,
    call: Callable[[nn.Module], Any],
    layers: Any = "*",
    chunk: int = 5,
) -> Taken:
    out = Taken()

    def handle(c: AttentionCall) -> None:
        parts = list(c.weights(chunk))
        assert [p for p, _ in parts] == [
            slice(i, min(i + chunk, c.queries)) for i in range(0, c.queries, chunk)
        ]
        whole = torch.cat([w for _, w in parts], dim=2)
        assert whole.shape == (c.batch, c.heads, c.queries, c.keys)
        assert whole.dtype in (torch.float32, torch.float64)
        for entries in (1, 1 << 20):  # a sample at a time, and all
            check_parts(c, whole, entries)
        value = c.value
        key = f"{c.name}:{c.call}" if c.call else c.name
        out[key] = {
            "weights": whole.clone(),
            "output": c.output.clone(),
            "value": None if value is None else value.clone(),
            "over": c.over,
            "call": c,
        }

    with torch.no_grad(), AttentionRecorder(model, layers, handle=handle):
        out.result = call(model)
    return out


def check_parts(call: AttentionCall, whole: torch.Tensor, entries: int) -> None:
    """Powers and logarithms, a part of the batch at a time, are those of the weights."""
    weights, logs = torch.full_like(whole, torch.nan), torch.full_like(whole, torch.nan)
    for samples, queries, powers, log_2 in call.powers(entries):
        total = powers.sum(-1, keepdim=True) if call.unscaled else torch.ones(())
        weights[samples, :, queries] = powers / total
        logs[samples, :, queries] = (log_2 - total.log2()) * math.log(2)
        assert not call.unscaled or powers.amax(-1).eq(1).all()
        log_2.zero_()  # the memory is the caller's until the next part
    torch.testing.assert_close(weights, whole, rtol=1e-4, atol=1e-7)
    assert logs.isfinite().all()
    torch.testing.assert_close(weights * logs, torch.special.xlogy(whole, whole))


def consistent(found: dict[str, dict[str, Any]], tolerance: float = 1e-5) -> None:
    """Rows sum to 1, or 0, and weights times values are what the model computed."""
    assert found
    for label, each in found.items():
        sums = each["weights"].sum(-1)
        away = torch.minimum((sums - 1).abs(), sums.abs())
        assert away.max() < 1e-5, label
        assert each["weights"].min() >= 0, label
        assert each["value"] is not None, label
        product = each["weights"] @ each["value"].to(each["weights"].dtype)
        assert each["output"].shape == product.shape, label
        torch.testing.assert_close(
            product, each["output"].to(product.dtype), rtol=0, atol=tolerance, msg=label
        )


@contextlib.contextmanager
def softmaxes() -> Iterator[list[Tensor]]:
    """Every result of F.softmax, for references of eager attention."""
    seen: list[Tensor] = []
    original = functional.softmax

    def keeping(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(result := original(x, *args, **kwargs))
        return result

    functional.softmax = keeping
    try:
        yield seen
    finally:
        functional.softmax = original


def fused(model: nn.Module, flag: bool = True) -> nn.Module:
    """Turn attention of timm into a kernel call or the written form; some models have an option."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = flag
    return model


@contextlib.contextmanager
def unfused(model: nn.Module) -> Iterator[list[Tensor]]:
    """Timm's attention written out, and the weights that it then drops out."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Tensor]) -> None:
        seen.append(args[0])

    modules = [m for m in model.modules() if hasattr(m, "fused_attn")]
    handles = [m.attn_drop.register_forward_pre_hook(keep) for m in modules]
    fused(model, False)
    try:
        yield seen
    finally:
        fused(model)
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def with_weights(model: nn.Module) -> Iterator[list[Tensor]]:
    """Ask every nn.MultiheadAttention for the weights of each head, and collect them."""
    seen: list[Tensor] = []

    def ask(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

    def keep(_module: nn.Module, _args: Any, output: tuple[Tensor, Tensor]) -> None:
        seen.append(output[1])

    attentions = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    handles = [m.register_forward_pre_hook(ask, with_kwargs=True) for m in attentions]
    handles += [m.register_forward_hook(keep) for m in attentions]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
