"""Batches for the table of text, speech and multimodal models, with padding on the right.

Each function takes a seed, and the value that stands at the padding of token ids and waveforms.
"""

from __future__ import annotations

from typing import Any

import torch

from analysis import multimodal_models as models

N, LONGEST, VOCABULARY = 8, 9, 40  # the last token ids are left to images

Batch = dict[str, Any]


def padded(length: int = LONGEST, shortest: int = 3, fill: int = 0, seed: int = 0) -> Any:
    """Token ids (N, length), padded on the right, and their mask; padding is ``fill``."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, length + 1, (N, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    ids = torch.randint(3, VOCABULARY, (N, length), generator=generator)
    return torch.where(mask.bool(), ids, fill), mask


def texts(seed: int, fill: int) -> Batch:
    ids, mask = padded(fill=fill, seed=seed)
    return {"input_ids": ids, "attention_mask": mask}


def pairs_of_texts(seed: int, fill: int) -> Batch:
    ids, mask = padded(7, fill=fill, seed=seed + 50)
    return {**texts(seed, fill), "decoder_input_ids": ids, "decoder_attention_mask": mask}


def images(seed: int, _fill: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return {"pixel_values": torch.randn(N, 3, 32, 32, generator=generator)}


def captions(seed: int, fill: int) -> Batch:
    return {**texts(seed, fill), **images(seed, fill)}


def masked_images(seed: int, fill: int) -> Batch:
    noise = torch.rand(1, 16, generator=torch.Generator().manual_seed(0)).expand(N, 16)
    return {**images(seed, fill), "noise": noise}  # all images keep the same patches


def questions(seed: int, fill: int) -> Batch:
    """An image of 16 tokens, followed by a text."""
    ids, mask = padded(fill=fill, seed=seed)
    ids = torch.cat([torch.full((N, 16), models.VOCABULARY - 1), ids], 1)
    mask = torch.cat([torch.ones(N, 16, dtype=torch.long), mask], 1)
    return {**images(seed, fill), "input_ids": ids, "attention_mask": mask}


def waveforms(seed: int, fill: int) -> Batch:
    _, mask = padded(120, 60, seed=seed)
    sound = torch.randn(N, 120, generator=torch.Generator().manual_seed(seed))
    return {"input_values": torch.where(mask.bool(), sound, fill), "attention_mask": mask}


def spectra(seed: int, _fill: int) -> Batch:
    _, mask = padded(24, 12, seed=seed)
    sound = torch.randn(N, 8, 24, generator=torch.Generator().manual_seed(seed))
    return {"input_features": sound * mask[:, None], "attention_mask": mask}


def transcripts(seed: int, fill: int) -> Batch:
    ids, mask = padded(7, fill=fill, seed=seed + 50)
    given = spectra(seed, fill)["input_features"]
    return {"input_features": given, "decoder_input_ids": ids, "decoder_attention_mask": mask}


def noisy(seed: int, fill: int) -> Batch:
    x = images(seed, fill)["pixel_values"]
    return {"hidden_states": x, "timestep": torch.arange(N), "class_labels": torch.arange(N) % 10}


def prompts(seed: int, fill: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(N, 5, 8, generator=generator)
    x = images(seed, fill)["pixel_values"][:, :, ::2, ::2]
    return {"sample": x, "timestep": torch.arange(N), "encoder_hidden_states": text}


def every_second(batch: Batch) -> torch.Tensor:
    return batch["attention_mask"][:, ::2]


def frames(batch: Batch) -> torch.Tensor:
    """Which frames are real, after two convolutions of width 8 and 3 with steps of 4 and 2."""
    samples = batch["attention_mask"].sum(1)
    counts = ((samples - 8) // 4 + 1 - 3) // 2 + 1
    n = ((batch["attention_mask"].shape[1] - 8) // 4 + 1 - 3) // 2 + 1
    return torch.arange(n) < counts[:, None]
