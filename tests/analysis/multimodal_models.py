"""Small models of text, speech and images together, with random weights, and batches for them.

transformers and diffusers have these families. One is written out: a model in the manner of
TransformerLens, with weights per head and a hook on every tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from packages import diffusers, transformers

VOCABULARY = 50
SIZES = {"d_model": 32, "num_attention_heads": 4, "vocab_size": VOCABULARY}
TOWER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
LANGUAGE = {**TOWER, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def built(model: str, config: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**options)).eval()


def t5() -> nn.Module:
    return built(
        "T5Model", "T5Config", vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2,
        num_heads=4, **SPECIAL,
    )  # fmt: skip


def bart() -> nn.Module:
    return built(
        "BartModel", "BartConfig", vocab_size=VOCABULARY, d_model=32, encoder_layers=2,
        decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, **SPECIAL,
    )  # fmt: skip


def whisper() -> nn.Module:
    return built(
        "WhisperModel", "WhisperConfig", vocab_size=VOCABULARY, num_mel_bins=8, d_model=32,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, max_source_positions=12, max_target_positions=16,
        decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None, **SPECIAL,
    )  # fmt: skip


def wav2vec2() -> nn.Module:
    return built(
        "Wav2Vec2Model", "Wav2Vec2Config", **TOWER, conv_dim=(16, 16), conv_stride=(4, 2),
        conv_kernel=(8, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True,
    )  # fmt: skip


def clip() -> nn.Module:
    text, vision = {**LANGUAGE, **SPECIAL}, VISION
    return built("CLIPModel", "CLIPConfig", text_config=text, vision_config=vision)


def siglip() -> nn.Module:
    text, vision = {**LANGUAGE, **SPECIAL}, VISION
    return built("SiglipModel", "SiglipConfig", text_config=text, vision_config=vision)


def vitmae() -> nn.Module:
    return built(
        "ViTMAEModel", "ViTMAEConfig", **VISION, mask_ratio=0.5, decoder_hidden_size=16,
        decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip


def llava() -> nn.Module:
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=transformers.LlamaConfig(**LANGUAGE),
        image_token_index=VOCABULARY - 1,
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    torch.manual_seed(0)
    return transformers.LlavaModel(config).eval()


class HookPoint(nn.Identity):
    """Marks a tensor, as TransformerLens does throughout a model."""


class HookedBlock(nn.Module):
    """A block of TransformerLens: weights per head, and a hook on every intermediate."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        size = width // heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        for name in ("W_Q", "W_K", "W_V"):
            setattr(self, name, nn.Parameter(torch.randn(heads, width, size) / 4))
        self.W_O = nn.Parameter(torch.randn(heads, size, width) / 4)
        self.mlp = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))
        self.hook_attn_scores, self.hook_pattern, self.hook_z = (HookPoint() for _ in range(3))
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = (
            HookPoint() for _ in range(3)
        )

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        query, key, value = (
            torch.einsum("bpd,hdk->bphk", self.ln1(x), w) for w in (self.W_Q, self.W_K, self.W_V)
        )
        scores = torch.einsum("bqhk,bshk->bhqs", query, key) / query.shape[-1] ** 0.5
        scores = self.hook_attn_scores(scores.masked_fill(~allowed[:, None], -torch.inf))
        pattern = functional.softmax(scores, dim=-1)
        pattern = torch.where(torch.isnan(pattern), torch.zeros_like(pattern), pattern)
        pattern = self.hook_pattern(pattern)
        z = self.hook_z(torch.einsum("bshk,bhqs->bqhk", value, pattern))
        x = self.hook_resid_mid(x + torch.einsum("bqhk,hkd->bqd", z, self.W_O))
        return self.hook_resid_post(x + self.mlp(self.ln2(x)))


class Hooked(nn.Module):
    """A language model in the manner of TransformerLens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.pos_embed = nn.Embedding(VOCABULARY, 32), nn.Embedding(64, 32)
        self.blocks = nn.ModuleList(HookedBlock() for _ in range(2))
        self.ln_final = nn.LayerNorm(32)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        length = input_ids.shape[1]
        x = self.embed(input_ids) + self.pos_embed(torch.arange(length))
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = causal & attention_mask[:, None, :].bool()
        for block in self.blocks:
            x = block(x, allowed)
        return self.ln_final(x)


def unet() -> nn.Module:
    """A denoising U-Net with cross-attention to a text, as in latent diffusion."""
    return diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(24, 48),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


def dit() -> nn.Module:
    """A diffusion transformer, whose norms and branches are scaled by timestep and class."""
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=3,
        num_layers=2,
        sample_size=32,
        patch_size=8,
        num_embeds_ada_norm=10,
        norm_num_groups=8,
    ).eval()
