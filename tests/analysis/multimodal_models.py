"""Small models of text, speech and images together, with random weights, and batches for them.

transformers has most of these families. The last three are written out: a model in the manner of
TransformerLens, a denoising U-Net and a diffusion transformer, each with the mechanism that makes
its family special.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from packages import transformers

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


def timestep(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of a timestep."""
    angles = t[:, None] * torch.exp(-torch.arange(0, width, 2) / 4)
    return torch.cat([angles.sin(), angles.cos()], 1)


class ResidualBlock(nn.Module):
    """Two convolutions with the timestep between them, and a skip."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, width), nn.GroupNorm(4, out)
        self.conv1, self.conv2 = (nn.Conv2d(c, out, 3, padding=1) for c in (width, out))
        self.time = nn.Linear(16, out)
        self.shortcut = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x))) + self.time(t)[:, :, None, None]
        return self.shortcut(x) + self.conv2(functional.silu(self.norm2(h)))


class CrossBlock(nn.Module):
    """Attention among the positions of a map, then from these to a text."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, width)
        self.attn1, self.attn2 = (
            nn.MultiheadAttention(width, 4, batch_first=True, kdim=k, vdim=k) for k in (width, 8)
        )
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        a = self.norm1(tokens)
        tokens = tokens + self.attn1(a, a, a, need_weights=False)[0]
        tokens = tokens + self.attn2(self.norm2(tokens), context, context, need_weights=False)[0]
        return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class UNet(nn.Module):
    """A denoising U-Net: down, middle with attention, up with the skips of the way down."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.conv_out = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 3, 1)
        self.down_blocks = nn.ModuleList([ResidualBlock(24, 24), ResidualBlock(24, 48)])
        self.downsample = nn.Conv2d(24, 24, 3, stride=2, padding=1)
        self.mid_block = CrossBlock(48)
        self.up_blocks = nn.ModuleList([ResidualBlock(72, 24), ResidualBlock(48, 24)])

    def forward(self, sample: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        t = timestep(timesteps, 16)
        wide = self.down_blocks[0](self.conv_in(sample), t)
        small = self.downsample(wide)
        x = self.mid_block(self.down_blocks[1](small, t), context)
        x = self.up_blocks[0](torch.cat([x, small], 1), t)
        x = functional.interpolate(x, scale_factor=2)
        return self.conv_out(self.up_blocks[1](torch.cat([x, wide], 1), t))


class DiTBlock(nn.Module):
    """A block whose norms and branches are scaled by the timestep: adaLN-Zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attn = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        a, b, gate, d, e, gate2 = self.adaLN_modulation(c)[:, None].chunk(6, -1)
        h = self.norm1(x) * (1 + b) + a
        x = x + gate * self.attn(h, h, h, need_weights=False)[0]
        return x + gate2 * self.mlp(self.norm2(x) * (1 + e) + d)


class DiT(nn.Module):
    """A diffusion transformer over the patches of a noisy image."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.x_embedder = nn.Conv2d(3, width, 8, stride=8)
        self.pos_embed = nn.Parameter(torch.randn(1, 16, width) / 4)
        self.t_embedder = nn.Linear(16, width)
        self.blocks = nn.ModuleList(DiTBlock(width) for _ in range(2))
        self.final_layer = nn.Linear(width, 3 * 64)

    def forward(self, sample: Tensor, timesteps: Tensor) -> Tensor:
        x = self.x_embedder(sample).flatten(2).transpose(1, 2) + self.pos_embed
        c = self.t_embedder(timestep(timesteps, 16))
        for block in self.blocks:
            x = block(x, c)
        return self.final_layer(x)
