"""The table of docs/coverage.md: which analysis runs on which family of models.

``python tests/analysis/coverage_table.py`` writes the page, with ``tests`` and ``src`` on the path;
``test_coverage.py`` runs every cell again and compares. ``coverage_text.py`` holds the families of
the second table.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import repsim
from capture.attention_models import (
    hugging_face,
    hugging_face_swin,
    ids,
    naflex,
    spread,
    timm_swin,
    timm_vit,
    torchvision_swin,
    torchvision_vit,
)
from packages import timm, torchvision, transformers

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
START, END = "<!-- table:start -->", "<!-- table:end -->"

YES, HINTED, NO = "yes", "yes ¹", "–"


@dataclass(frozen=True)
class Family:
    """Models of one kind: one of them, small, with random weights."""

    build: Callable[[], nn.Module]
    blocks: Any  # two layers to look at
    size: int = 32
    text: bool = False
    hints: Mapping[str, Any] = field(
        default_factory=dict
    )  # the options about tokens that a caller must pass


def small(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=5, **options)


def encoder() -> nn.Module:
    class Encoder(nn.Module):
        """Patches by a linear layer, then torch's own encoder."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3 * 64, 32)
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            patches = nn.functional.unfold(x, 8, stride=8).transpose(1, 2)
            return self.encoder(self.embed(patches))

    return Encoder()


def text(kind: str) -> Callable[[], nn.Module]:
    return lambda: hugging_face(kind)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50)
    return transformers.GPT2Model(config)


TOKENS = {"grid": (4, 4), "prefix": 0}
WHOLE = {"prefix": 0}
TEXT_LINE = {"grid": (1, 7), "prefix": 0}
FAMILIES: dict[str, Family] = {
    "timm ViT (CLS)": Family(timm_vit, "blocks.?"),
    "timm ViT (mean pooling)": Family(
        lambda: timm_vit(class_token=False, global_pool="avg"), "blocks.?"
    ),
    "timm DeiT, distilled": Family(lambda: timm_vit("deit_tiny_distilled_patch16_224"), "blocks.?"),
    "timm ViT with registers": Family(lambda: timm_vit(reg_tokens=4), "blocks.?"),
    "timm BEiT": Family(lambda: timm_vit("beit_base_patch16_224"), "blocks.?"),
    "timm EVA": Family(lambda: timm_vit("eva02_tiny_patch14_224"), "blocks.?"),
    "timm NaFlexViT": Family(naflex, "blocks.?", hints={"grid": (4, 4), "prefix": 2}),
    "timm Swin": Family(
        lambda: timm_swin("swin_tiny_patch4_window7_224"), "layers.?.blocks.1", 64, hints=WHOLE
    ),
    "timm Swin v2": Family(
        lambda: timm_swin("swinv2_tiny_window8_256"), "layers.?.blocks.1", 64, hints=WHOLE
    ),
    "timm CaiT": Family(lambda: timm_vit("cait_xxs24_224", embed_dim=48, num_heads=4), "blocks.?"),
    "timm XCiT": Family(
        lambda: timm_vit("xcit_nano_12_p8_224", embed_dim=48, num_heads=4), "blocks.?"
    ),
    "timm MLP-Mixer": Family(
        lambda: timm.models.mlp_mixer.MlpMixer(
            img_size=32, patch_size=8, embed_dim=32, num_blocks=2, num_classes=5
        ),
        "blocks.?",
    ),
    "timm ConvNeXt": Family(
        small("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 16, 16)),
        "stages.[01].blocks.0",
        64,
    ),
    "timm EfficientNet": Family(small("efficientnet_b0"), "blocks.[12].1"),
    "timm ResNet v2": Family(
        small("resnetv2_50", layers=(1, 1, 1, 1), channels=(16, 16, 16, 16), stem_chs=8),
        "stages.[01].blocks.0",
        64,
    ),
    "torchvision ViT": Family(torchvision_vit, "encoder.layers.encoder_layer_?"),
    "torchvision Swin": Family(lambda: torchvision_swin(1), "features.[13].1", 64, hints=WHOLE),
    "torchvision ResNet": Family(lambda: torchvision.models.resnet18(num_classes=5), "layer[12].0"),
    "torchvision DenseNet": Family(
        lambda: torchvision.models.DenseNet(4, (2, 2), 8, num_classes=5), "features.denseblock?", 64
    ),
    "transformers ViT": Family(lambda: hugging_face("vit"), "*layer*.?"),
    "transformers DINOv2": Family(lambda: hugging_face("dinov2"), "*layer.?"),
    "transformers CLIP (vision)": Family(lambda: hugging_face("clip"), "*layers.?"),
    "transformers SigLIP (vision)": Family(
        lambda: hugging_face("siglip"), "*layers.?", hints=WHOLE
    ),
    "transformers BEiT": Family(lambda: hugging_face("beit"), "layers.?"),
    "transformers Swin": Family(lambda: hugging_face_swin(1), "*blocks.1", 64, hints=WHOLE),
    "transformers BERT": Family(text("bert"), "*layer.?", text=True, hints=TEXT_LINE),
    "transformers GPT-2": Family(gpt2, "h.?", text=True, hints=TEXT_LINE),
    "transformers Llama": Family(text("llama"), "layers.?", text=True, hints=TEXT_LINE),
    "torch TransformerEncoder": Family(encoder, "encoder.layers.?", hints=TOKENS),
}


def batches(family: Family, labelled: bool = False) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    out: list[Any] = []
    for at in range(2):
        labels = torch.arange(8) % 2
        if family.text:
            tokens = {"input_ids": torch.roll(ids(8), at, 0)}
            out.append({**tokens, "labels": labels} if labelled else tokens)
        else:
            images = torch.randn(8, 3, family.size, family.size, generator=generator)
            out.append((images, labels))
    return out


quiet = {"progress": False}


def forward(model: nn.Module, f: Family) -> None:
    batch = batches(f)[0]
    model.eval()(**batch) if f.text else model.eval()(batch[0])


def compared(model: nn.Module, f: Family, **_: Any) -> Any:
    return repsim.compare(model, data=batches(f), layers=f.blocks, **quiet).cka


def distances(model: nn.Module, f: Family, **hints: Any) -> Any:
    step = {"patch_size": 1} if f.text and hints else {}
    return repsim.attention_distance(model, batches(f), **hints, **step, **quiet).distance


def heads(model: nn.Module, f: Family, **hints: Any) -> Any:
    step = {"patch_size": 1} if f.text and hints else {}
    seen: list[str] = []
    with (
        torch.no_grad(),
        repsim.capture.AttentionRecorder(model, handle=lambda call: seen.append(call.label)),
    ):
        forward(model, f)
    return repsim.head_subset_cka(
        model, model, batches(f), layer=seen[0], layers_y=f.blocks, **hints, **step, **quiet
    ).cka


def fields(model: nn.Module, f: Family, **hints: Any) -> Any:
    return repsim.effective_receptive_field(
        model, batches(f)[:1], f.blocks, n_probes=2, **hints, **quiet
    ).sigma


def localized(model: nn.Module, f: Family, **hints: Any) -> Any:
    return repsim.token_localization(model, batches(f), f.blocks, **hints, **quiet).hit_rate


def ratios(model: nn.Module, f: Family, **hints: Any) -> Any:
    given = {"prefix": hints["prefix"]} if "prefix" in hints else {}
    return repsim.residual_ratios(model, batches(f), **given, **quiet).ratio.isel(token=0)


def influences(model: nn.Module, f: Family, **_: Any) -> Any:
    return repsim.block_influence(model, batches(f), **quiet).influence


def removed(model: nn.Module, f: Family, **_: Any) -> Any:
    def output(context: contextlib.AbstractContextManager[Any]) -> torch.Tensor:
        with torch.no_grad(), repsim.Recorder(model, f.blocks) as recorder, context:
            forward(model, f)
        return recorder[list(recorder)[-1]]

    changed = output(repsim.without_residual(model, f.blocks)) - output(contextlib.nullcontext())
    assert changed.abs().max() > 0
    return changed


def probed(model: nn.Module, f: Family, **hints: Any) -> Any:
    given = {"prefix": hints["prefix"]} if "prefix" in hints else {}
    data = batches(f, labelled=True)
    return repsim.linear_probe(
        model, data, data, layers=f.blocks, tokens=("mean",), **given, **quiet
    ).accuracy


ANALYSES: dict[str, Callable[..., Any]] = {
    "compare": compared,
    "attention_distance": distances,
    "head_subset_cka": heads,
    "effective_receptive_field": fields,
    "residual_ratios": ratios,
    "block_influence": influences,
    "without_residual": removed,
    "token_localization": localized,
    "linear_probe": probed,
}
HEADS = [f"`{name}`" for name in ANALYSES]


def built(family: Any) -> nn.Module:
    torch.manual_seed(0)
    model = spread(family.build())
    with torch.no_grad():  # some begin with branches that are switched off
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def outcome(model: nn.Module, family: Family, analysis: str) -> tuple[str, str]:
    """Run a cell; return its text in the table, and the reason unless it is a plain yes."""
    try:
        value = ANALYSES[analysis](model, family)
        cell, why = YES, ""
    except repsim.RepsimError as error:
        why = str(error)
        if not family.hints:
            return NO, why
        try:
            value = ANALYSES[analysis](model, family, **family.hints)
            cell = HINTED
        except repsim.RepsimError as second:
            return NO, str(second)
    finite = np.isfinite(np.asarray(value))
    assert finite.any(), f"{analysis} returned no number"
    return cell, why


def row(name: str) -> tuple[str, dict[str, str]]:
    """Return the row of a family in the table, and the reasons for its blank cells."""
    family = FAMILIES[name]
    model = built(family)  # one for all cells: every analysis leaves it as found
    cells, reasons = [], {}
    for analysis in ANALYSES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", repsim.RepsimWarning)
            cell, why = outcome(model, family, analysis)
        cells.append(cell)
        if cell == NO:
            reasons[analysis] = why
    return f"| {name} | {' | '.join(cells)} |", reasons


def table(half: Any) -> str:
    """Run all cells of a half, and return its table."""
    rows = []
    for name in half.FAMILIES:
        line, reasons = half.row(name)
        rows.append(line)
        print(line)
        for analysis, why in reasons.items():
            print(f"    {analysis}: {why}")
    head = f"| family | {' | '.join(half.HEADS)} |"
    return "\n".join([head, "|---" * (len(half.HEADS) + 1) + "|", *rows])


def main() -> None:
    from analysis import coverage_table, coverage_text

    page = PAGE.read_text()
    for half in (coverage_table, coverage_text):
        before, _, rest = page.partition(half.START)
        _, _, after = rest.partition(half.END)
        page = f"{before}{half.START}\n{table(half)}\n{half.END}{after}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
