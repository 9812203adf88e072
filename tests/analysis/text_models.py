"""Language models of transformers from small configurations, and texts to give them."""

from __future__ import annotations

import torch
from torch import nn

from packages import transformers

VOCABULARY = 50


def texts(side, batches=2, n=4, shortest=3, longest=9, seed=1, **extra):
    """Batches of texts of 3 to 9 tokens, padded on one side; the same texts for both sides."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        ids = torch.zeros(n, longest, dtype=torch.long)
        mask = torch.zeros(n, longest, dtype=torch.long)
        for row in range(n):
            length = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
            real = slice(length) if side == "right" else slice(longest - length, None)
            ids[row, real] = torch.randint(1, VOCABULARY, (length,), generator=generator)
            mask[row, real] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        made.append({"input_ids": ids, "attention_mask": mask, "position_ids": positions, **extra})
    return made


def one_by_one(batches):
    """The same texts without padding: each alone in a batch."""
    return [
        {"input_ids": ids[mask.bool()][None]}
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


def language_model(kind: str, layers: int = 2, **options) -> nn.Module:
    """Build the base model of a family, with random weights and no dropout."""
    wide = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": layers, "num_attention_heads": 4, "max_position_embeddings": 64,
    }  # fmt: skip
    grouped = {**wide, "num_key_value_heads": 2}
    gpt = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": layers, "n_head": 4}
    falcon = {k: v for k, v in wide.items() if k not in ("intermediate_size",)}
    experts = {**grouped, "num_experts_per_tok": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config, given = {
        "bert": ("BertConfig", wide),
        "cohere": ("CohereConfig", {**grouped, "pad_token_id": 0}),
        "falcon": ("FalconConfig", {**falcon, "ffn_hidden_size": 48}),
        "gemma": ("GemmaConfig", {**grouped, **special, "head_dim": 8}),
        "gpt2": ("GPT2Config", {**gpt, "n_positions": 64}),
        "gptj": ("GPTJConfig", {**gpt, "n_positions": 64, "n_inner": 48, "rotary_dim": 4}),
        "gptoss": (
            "GptOssConfig",
            {**experts, **special, "num_local_experts": 4, "head_dim": 8, "sliding_window": 4},
        ),
        "llama": ("LlamaConfig", grouped),
        "mamba": (
            "MambaConfig",
            {
                "vocab_size": VOCABULARY,
                "hidden_size": 32,
                "state_size": 4,
                "num_hidden_layers": layers,
            },
        ),
        "mistral": ("MistralConfig", {**grouped, "sliding_window": 4}),
        "mixtral": ("MixtralConfig", {**experts, "num_local_experts": 4}),
        "modernbert": (
            "ModernBertConfig",
            {**wide, **special, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4},
        ),
        "neox": ("GPTNeoXConfig", wide),
        "olmoe": ("OlmoeConfig", {**experts, "num_experts": 4, **special}),
        "phi": ("PhiConfig", wide),
        "qwen2": ("Qwen2Config", grouped),
    }[kind]
    torch.manual_seed(0)
    made = getattr(transformers, config)(**{**given, **options})
    return transformers.AutoModel.from_config(made).eval()


class Streams(nn.Module):
    """Texts with three streams of 8 features for each token, (B, N, 3, 8), without a LayerNorm."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp, self.weights = nn.Linear(8, 8), nn.Parameter(torch.randn(3, 1))

        def forward(self, x):
            return x + self.weights * self.mlp(x.mean(2))[:, :, None]

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, 24)
        self.layers = nn.ModuleList([self.Block(), self.Block()])

    def forward(self, ids):
        x = self.embed(ids).unflatten(2, (3, 8))
        for layer in self.layers:
            x = layer(x)
        return x
