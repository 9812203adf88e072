"""Which analysis runs on which family of text, speech and multimodal models.

``coverage_table.py`` writes both tables of docs/coverage.md.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import repsim
from analysis import multimodal_models as models
from analysis.coverage_batches import (
    Batch,
    N,
    captions,
    every_second,
    frames,
    masked_images,
    noisy,
    pairs_of_texts,
    prompts,
    questions,
    spectra,
    texts,
    transcripts,
    waveforms,
)
from analysis.coverage_table import built
from analysis.text_models import language_model

START, END = "<!-- text:start -->", "<!-- text:end -->"
YES, HINTED = "yes", "yes ¹"

REASONS = {  # the words of an error, and its entry in the table
    "no attention was seen": "– ²",
    "the grid of layer": "– ³",
    "this takes tokens": "– ⁴",
    "has other positions than the other layers": "– ⁵",
}

quiet = {"progress": False}


@dataclass(frozen=True)
class Family:
    """Models of one kind: one of them, small, with random weights, and batches for it."""

    build: Callable[[], nn.Module]
    blocks: tuple[str, ...] = ("layers.?",)
    batch: Callable[[int, int], Batch] = texts
    mask: Any = None  # the options that a caller has to pass
    hints: Mapping[str, Any] = field(default_factory=dict)
    hears_padding: bool = False  # the model itself mixes padding into real positions

    @property
    def padded(self) -> bool:
        """Whether the batches have padding whose contents must not count."""
        return not self.hears_padding and self.batch not in (masked_images, noisy, prompts)


def text(kind: str, blocks: str = "layers.?") -> Family:
    return Family(partial(language_model, kind), (blocks,))


DECODER = {"decoder*": "decoder_attention_mask"}
CAPTION = {"text_model*": "attention_mask"}
ANSWER = {"language_model*": "attention_mask"}
SEQUENCE = {"patch_size": 1, "prefix": 0}

FAMILIES: dict[str, Family] = {
    "Llama": text("llama"),
    "Mistral": text("mistral"),
    "Qwen2": text("qwen2"),
    "Mixtral": text("mixtral"),
    "GPT-2": text("gpt2", "h.?"),
    "GPT-NeoX": text("neox"),
    "GPT-J": text("gptj", "h.?"),
    "Phi": text("phi"),
    "Falcon": text("falcon", "h.?"),
    "Gemma": text("gemma"),
    "gpt-oss": text("gptoss"),
    "OLMoE": text("olmoe"),
    "Mamba": text("mamba"),
    "in the manner of TransformerLens": Family(models.Hooked, ("blocks.?",)),
    "BERT": text("bert", "encoder.layer.?"),
    "ModernBERT": text("modernbert"),
    "T5, encoder": Family(models.t5, ("encoder.block.?",), pairs_of_texts),
    "T5, decoder": Family(models.t5, ("decoder.block.?",), pairs_of_texts),
    "BART, encoder": Family(models.bart, ("encoder.layers.?",), pairs_of_texts),
    "BART, decoder": Family(models.bart, ("decoder.layers.?",), pairs_of_texts),
    "CLIP, text": Family(models.clip, ("text_model.*layers.?",), captions, CAPTION),
    "CLIP, images": Family(models.clip, ("vision_model.*layers.?",), captions, CAPTION),
    "SigLIP, text": Family(
        models.siglip, ("text_model.*layers.?",), captions, CAPTION, {"prefix": 0}
    ),
    "SigLIP, images": Family(
        models.siglip, ("vision_model.*layers.?",), captions, CAPTION, {"prefix": 0}
    ),
    "LLaVA, language": Family(models.llava, ("language_model.layers.?",), questions, ANSWER),
    "ViTMAE": Family(models.vitmae, batch=masked_images, hints={"prefix": 1}),
    "Whisper, encoder": Family(
        lambda: models.whisper().get_encoder(),
        batch=spectra,
        mask=every_second,
        hints={"grid": (1, 12), **SEQUENCE},
        hears_padding=True,
    ),
    "Whisper, decoder": Family(
        models.whisper,
        ("decoder.layers.?",),
        transcripts,
        DECODER,
        {"grid": {"encoder*": (1, 12)}, **SEQUENCE},
    ),
    "wav2vec 2.0": Family(
        models.wav2vec2,
        ("encoder.layers.?",),
        waveforms,
        frames,
        {"grid": (1, 14), **SEQUENCE},
    ),
    "denoising U-Net": Family(
        models.unet, ("down_blocks.[01]", "mid_block", "up_blocks.[01]"), prompts
    ),
    "DiT": Family(models.dit, ("transformer_blocks.[01]",), noisy),
}


class LeftOut(Exception):
    """Raised if a result lacks blocks of its family, or if padding counts in it."""


@dataclass(frozen=True)
class Run:
    """A model, its batches, and whether the options of its family are passed."""

    model: nn.Module
    family: Family
    data: list[Batch]
    hinted: bool

    @property
    def layers(self) -> list[str]:
        names = [name for name, _ in self.model.named_modules()]
        return [n for n in names if any(fnmatchcase(n, each) for each in self.family.blocks)]

    def __call__(self, analysis: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return analysis(self.model, *args, **options, **quiet)

    def mask(self, layers: bool = False) -> dict[str, Any]:
        """Return the option ``mask``: of the whole model, or of the layers of the family."""
        mask = self.family.mask
        if not self.hinted or mask is None:
            return {}
        if layers and isinstance(mask, dict):
            mask = {k: v for k, v in mask.items() if any(fnmatchcase(n, k) for n in self.layers)}
        return {"mask": mask or None}

    def hints(self, *names: str) -> dict[str, Any]:
        return {k: v for k, v in self.family.hints.items() if self.hinted and k in names}

    def check(self, names: Any) -> None:
        """Check that a result of the whole model holds something of every block of the family."""
        for layer in self.layers:
            if not any(str(name).startswith(layer) for name in np.asarray(names)):
                raise LeftOut(f"{layer} is left out")


def compared(run: Run, **options: Any) -> Any:
    mask = run.mask(layers=True)
    result = run(repsim.compare, data=run.data, layers=run.layers, **mask, **options)
    assert sorted(result.layer_x.values.tolist()) == sorted(run.layers)
    return result.cka


def extracted(run: Run) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        stored = run(
            repsim.extract,
            run.data,
            run.layers,
            out=Path(folder, "store.zarr"),
            samples="tokens",
            **run.mask(layers=True),
        )
        return np.concatenate([stored[name].values for name in run.layers], axis=1)


def distances(run: Run) -> Any:
    hints = run.hints("grid", "patch_size", "prefix")
    result = run(repsim.attention_distance, run.data, **run.mask(), **hints)
    if not all(n.startswith("mid_block") for n in result.layer.values):  # a U-Net has one
        run.check(result.layer)
    return result.distance


def heads(run: Run) -> Any:
    seen: list[str] = []
    with (
        torch.no_grad(),
        repsim.capture.AttentionRecorder(run.model, handle=lambda call: seen.append(call.label)),
    ):
        run.model(**run.data[0])
    within = [label for label in seen if label.startswith(run.layers[0])] or seen
    hints = run.hints("grid", "patch_size", "prefix")
    options = {
        "layer": within[0],
        "layers_y": run.layers,
        "transform": "mean",
        "transform_x": "mean",
        **{k: v for k, v in hints.items() if not isinstance(v, dict)},
    }
    return run(repsim.head_subset_cka, run.model, run.data, **options, **run.mask(layers=True)).cka


def ratios(run: Run) -> Any:
    result = run(repsim.residual_ratios, run.data, **run.mask(), **run.hints("prefix"))
    run.check(result.site)
    return result.ratio.isel(token=slice(3))


def influences(run: Run) -> Any:
    result = run(repsim.block_influence, run.data, **run.mask())
    run.check(result.block)
    return result.influence


def removed(run: Run) -> Any:
    def output(context: contextlib.AbstractContextManager[Any]) -> torch.Tensor:
        with torch.no_grad(), repsim.Recorder(run.model, run.layers) as recorder, context:
            run.model(**run.data[0])
        return recorder[list(recorder)[-1]][:, :3]  # the first tokens are real in every text

    without = output(repsim.without_residual(run.model, run.layers))
    assert (without - output(contextlib.nullcontext())).abs().max() > 0
    return without


def probed(run: Run) -> Any:
    data = [{**batch, "labels": torch.arange(N) % 2} for batch in run.data]
    return run(
        repsim.linear_probe,
        data,
        data,
        layers=run.layers,
        tokens=("mean",),
        **run.mask(layers=True),
    ).accuracy


ANALYSES: dict[str, Callable[[Run], Any]] = {
    '`compare`, "mean"': partial(compared, transform="mean"),
    '`compare`, "last"': partial(compared, transform="last"),
    "`compare`, tokens": partial(compared, samples="tokens"),
    "`extract`, tokens": extracted,
    "`attention_distance`": distances,
    "`head_subset_cka`": heads,
    "`residual_ratios`": ratios,
    "`block_influence`": influences,
    "`without_residual`": removed,
    "`linear_probe`": probed,
}
HEADS = list(ANALYSES)


def value(model: nn.Module, family: Family, analysis: str, fill: int, hinted: bool) -> Any:
    """Run an analysis on a model of a family; ``fill`` is the value of padding."""
    data = [family.batch(seed, fill) for seed in (1, 2)]
    found = np.asarray(ANALYSES[analysis](Run(model, family, data, hinted)))
    assert np.isfinite(found).any(), f"{analysis} returned no number"
    return found


def outcome(model: nn.Module, family: Family, analysis: str) -> tuple[str, str]:
    """Run a cell; return its text in the table, and the reason unless it is a plain yes."""
    why = ""
    for hinted in (False, True) if family.mask or family.hints else (False,):
        try:
            found = value(model, family, analysis, 0, hinted)
            if family.padded:
                other = value(model, family, analysis, 7, hinted)
                if found.shape != other.shape or not np.allclose(found, other, equal_nan=True):
                    raise LeftOut("padding counts")
            return (HINTED if hinted else YES), why
        except (repsim.RepsimError, LeftOut) as error:
            why = str(error)
    return short(why), why


def short(why: str) -> str:
    found = [brief for phrase, brief in REASONS.items() if phrase in why]
    assert found, f"an error that the table does not know:\n{why}"
    return found[0]


def row(name: str) -> tuple[str, dict[str, str]]:
    """Return the row of a family in the table, and the reasons unless a cell is a plain yes."""
    family = FAMILIES[name]
    model = built(family)  # one for all cells: every analysis leaves it as found
    cells, reasons = [], {}
    for analysis in ANALYSES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", repsim.RepsimWarning)
            cell, why = outcome(model, family, analysis)
        cells.append(cell)
        if why:
            reasons[analysis] = why
    return f"| {name} | {' | '.join(cells)} |", reasons
