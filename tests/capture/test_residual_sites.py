"""The residual connections found in models that people use, and their labels."""

import warnings
from collections import Counter

import pytest
import torch
from torch import nn

import repsim
from packages import timm, torchvision, transformers
from repsim.capture import SiteFinder

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TEXT = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(1))
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
IMAGE = {**TINY, "image_size": 32, "patch_size": 16}
TEXTS = {**TINY, "vocab_size": 50, "pad_token_id": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50}
GPT |= {"bos_token_id": 0, "eos_token_id": 1}
SWIN = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "num_classes": 3}
SWIN |= {"img_size": 32, "patch_size": 2, "window_size": 4}
SMALL = {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 2}


def create(name, **options):
    return lambda: timm.create_model(name, pretrained=False, **options)


def vit(**options):
    return create("vit_tiny_patch16_224", **SMALL, **options)


def vit_of(block):
    """A ViT with the kind of block that timm calls by this name."""
    return lambda: vit(block_fn=getattr(timm.models.vision_transformer, block))()


def of_torchvision(name, **options):
    return lambda: getattr(torchvision.models, name)(**options)


def torchvision_convnext():
    """convnext_tiny with narrower blocks."""
    setting = torchvision.models.convnext.CNBlockConfig
    widths = [8, 16, 24, 32, None]
    return torchvision.models.ConvNeXt(
        [setting(*each) for each in zip(widths, widths[1:], (3, 3, 9, 3), strict=False)]
    )


def hugging(kind, **options):
    def make():
        config = getattr(transformers, f"{kind}Config")(**options)
        return getattr(transformers, f"{kind}Model")(config)

    return make


# name: (how to make it, its input, how many identity, projection and parallel sites)
MODELS = {
    "timm vit": (vit(), IMAGES, 4),
    "timm vit, LayerScale": (vit(init_values=0.1), IMAGES, 4),
    "timm vit, DropPath": (vit(drop_path_rate=0.3), IMAGES, 4),
    "timm vit, post-norm": (vit_of("ResPostBlock"), IMAGES, 4),
    "timm vit, parallel attention and MLP": (
        vit_of("ParallelScalingBlock"),
        IMAGES,
        (0, 0, 4),
    ),
    "timm vit, parallel pairs": (create("vit_small_patch16_18x2_224", **SMALL), IMAGES, 4),
    "timm DINOv3": (create("vit_small_patch16_dinov3", **SMALL), IMAGES, 4),
    "timm EVA": (
        create("eva02_tiny_patch14_224", **SMALL | {"img_size": 28}),
        IMAGES[..., :28, :28],
        4,
    ),
    "timm BEiT": (create("beit_base_patch16_224", **SMALL), IMAGES, 4),
    "timm NaFlexViT": (
        create("naflexvit_base_patch16_gap", depth=2, embed_dim=48, num_heads=2),
        IMAGES,
        4,
    ),
    # The class token is a constant until it is mixed with the image: its first skip is none.
    "timm CaiT": (create("cait_xxs24_224", **SMALL), IMAGES, 7),
    "timm Swin": (lambda: timm.models.SwinTransformer(**SWIN), IMAGES, 8),
    "timm Swin v2": (lambda: timm.models.swin_transformer_v2.SwinTransformerV2(**SWIN), IMAGES, 8),
    "timm ConvNeXt": (create("convnext_atto", depths=(1, 2, 1, 1), dims=(8, 8, 16, 16)), IMAGES, 5),
    "timm ConvNeXt v2": (
        create("convnextv2_atto", depths=(1, 2, 1, 1), dims=(8, 8, 16, 16)),
        IMAGES,
        5,
    ),
    "timm ResNet": (create("resnet18"), IMAGES, (5, 3)),
    "timm ResNet-D": (create("resnet26d", channels=(8, 8, 16, 16)), IMAGES, (4, 4)),
    "timm pre-activation ResNet": (
        create("resnetv2_50", layers=(2, 1, 1, 1), channels=(16, 16, 16, 16)),
        IMAGES,
        (1, 4),
    ),
    "timm SE-ResNet": (create("seresnet18"), IMAGES, (5, 3)),
    "timm Res2Net": (create("res2net50_26w_4s"), IMAGES, (12, 4)),
    "timm normaliser-free ResNet": (create("nf_resnet26"), IMAGES, (4, 4)),
    "timm EfficientNet": (create("efficientnet_b0"), IMAGES, 9),
    "timm GhostNet": (create("ghostnet_050"), IMAGES, (11, 5)),
    "timm RegNet": (create("regnetx_002"), IMAGES, (9, 4)),
    "timm RegNet, SE": (create("regnety_002"), IMAGES, (9, 4)),
    "timm RepVGG, no identity path": (create("repvgg_a0"), IMAGES, 0),
    "timm Mixer": (
        lambda: timm.models.mlp_mixer.MlpMixer(
            img_size=32, patch_size=16, num_blocks=2, embed_dim=16, num_classes=3
        ),
        IMAGES,
        4,
    ),
    "timm DenseNet": (create("densenet121"), IMAGES, 0),
    "timm VGG": (
        lambda: nn.Sequential(timm.create_model("vgg11").features),
        IMAGES,
        0,
    ),
    "torchvision ResNet": (of_torchvision("resnet18"), IMAGES, (5, 3)),
    "torchvision ViT": (
        lambda: torchvision.models.VisionTransformer(
            image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
        ),
        IMAGES,
        4,
    ),
    "torchvision Swin": (
        lambda: torchvision.models.SwinTransformer(
            patch_size=[2, 2], embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=[4, 4]
        ),
        IMAGES,
        8,
    ),
    "torchvision ConvNeXt": (torchvision_convnext, IMAGES, 18),
    "torchvision MobileNet v2": (of_torchvision("mobilenet_v2"), IMAGES, 10),
    "torchvision MobileNet v3": (of_torchvision("mobilenet_v3_small"), IMAGES, 6),
    "HF ViT": (hugging("ViT", **IMAGE), IMAGES, 4),
    "HF DINOv2": (hugging("Dinov2", **{**IMAGE, "mlp_ratio": 2}), IMAGES, 4),
    "HF CLIP": (hugging("CLIPVision", **IMAGE), IMAGES, 4),
    "HF BEiT": (hugging("Beit", **IMAGE), IMAGES, 4),
    "HF BERT": (hugging("Bert", **TEXTS), TEXT, 4),
    "HF RoBERTa": (hugging("Roberta", **TEXTS), TEXT, 4),
    "HF ALBERT": (hugging("Albert", embedding_size=16, **TEXTS), TEXT, 4),
    "HF ResNet": (
        hugging(
            "ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic"
        ),
        IMAGES,
        (3, 1),
    ),
    "HF GPT2": (hugging("GPT2", **GPT), TEXT, 4),
    "HF GPT-J, attention next to the MLP": (
        hugging("GPTJ", rotary_dim=8, **GPT),
        TEXT,
        (0, 0, 4),
    ),
    "HF Phi, attention next to the MLP": (hugging("Phi", **TEXTS), TEXT, (0, 0, 4)),
    "HF Cohere, two branches on one skip": (hugging("Cohere", **TEXTS), TEXT, (0, 0, 4)),
    "HF Llama": (hugging("Llama", **TEXTS), TEXT, 4),
    "HF T5 encoder": (
        lambda: transformers.T5EncoderModel(
            transformers.T5Config(
                d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, vocab_size=50
            )
        ),
        TEXT,
        4,
    ),
}
QUICK = ["timm vit, LayerScale", "timm Swin", "torchvision ResNet", "HF ViT", "HF BERT"]


def counts(sites):
    seen = Counter(site.kind for site in sites)
    return seen["identity"], seen["projection"], seen["parallel"]


def expected(number):
    number = (number,) if isinstance(number, int) else number
    return (*number, 0, 0)[:3]


def check(name):
    make, example, number = MODELS[name]
    torch.manual_seed(0)
    model = make()
    sites = repsim.residual_sites(model, example)
    assert counts(sites) == expected(number), f"\n{sites}"
    assert len(set(sites.labels)) == len(sites)
    names = dict(model.named_modules())
    for site in sites:
        assert site.block in names
        assert site.label.rpartition(":")[0] in names or site.label in names
    # In training too: dropout and drop path must not hide a skip.
    with SiteFinder(model.train()) as finder:
        model(example)
    assert [(s.label, s.kind) for s in finder.sites()] == [(s.label, s.kind) for s in sites]
    finder.warn("test")


@pytest.mark.parametrize("name", QUICK)
def test_sites_of_some_models(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name not in QUICK])
def test_sites_of_models(name):
    check(name)


def test_names_are_those_that_a_user_knows():
    sites = repsim.residual_sites(vit()(), IMAGES)
    assert sites.labels == ("blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp")
    assert sites[1].block == "blocks.0"
    assert sites[1].branch == "mlp"
    assert sites[1].shape == (2, 5, 48)

    sites = repsim.residual_sites(hugging("Bert", **TEXTS)(), TEXT)
    assert sites.labels[:2] == (
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.0.output.dense",
    )
    assert sites[0].block == "encoder.layer.0.attention.output"
    assert sites[0].branch == "dense"


def test_a_block_that_comes_back_is_numbered():
    sites = repsim.residual_sites(hugging("Albert", embedding_size=16, **TEXTS)(), TEXT)
    layer = "encoder.albert_layer_groups.0.albert_layers.0"
    assert sites.labels == tuple(
        f"{layer}.{part}:{k}" for k in (0, 1) for part in ("attention.dense", "ffn_output")
    )


def test_printing():
    sites = repsim.residual_sites(vit()(), IMAGES)
    assert str(sites) == repr(sites)
    assert str(sites).splitlines()[:2] == [
        "site           block     branch  kind      shape",
        "blocks.0.attn  blocks.0  attn    identity  (2, 5, 48)",
    ]
    assert (
        str(repsim.residual_sites(nn.Linear(2, 2), torch.ones(1, 2))) == "no residual connections"
    )


class Residual(nn.Module):
    """A block around a branch, with the addition written in some way."""

    def __init__(self, add=torch.add):
        super().__init__()
        self.mlp = nn.Linear(4, 4)
        self.add = add

    def forward(self, x):
        return self.add(x, self.mlp(x))


class Add(nn.Module):
    def forward(self, x, f):
        return x + f


def test_an_addition_in_a_module_of_its_own():
    (site,) = repsim.residual_sites(nn.Sequential(Residual(Add())), torch.ones(2, 4))
    assert (site.label, site.block, site.branch) == ("0.mlp", "0.add", "0.mlp")


def test_an_addition_in_the_model_itself():
    (site,) = repsim.residual_sites(Residual(), torch.ones(2, 4))
    assert (site.label, site.block, site.branch) == ("mlp", "", "mlp")


def test_a_branch_without_a_module():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            x = x + x @ self.weight
            return x + x @ self.weight

    sites = repsim.residual_sites(nn.Sequential(Plain()), torch.ones(2, 4))
    assert sites.labels == ("0:0", "0:1")


def test_a_module_that_fails_may_be_skipped_by_its_parent():
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError

    class Tries(nn.Module):
        def __init__(self):
            super().__init__()
            self.fails, self.mlp = Fails(), nn.Linear(4, 4)

        def forward(self, x):
            try:
                return self.fails(x)
            except ValueError:
                return x + self.mlp(x)

    (site,) = repsim.residual_sites(nn.Sequential(Tries()), torch.ones(2, 4))
    assert (site.label, site.block) == ("0.mlp", "0")


def test_a_graph_module_keeps_its_names():
    graph = torch.fx.symbolic_trace(torchvision.models.resnet18().eval())
    sites = repsim.residual_sites(graph, IMAGES)
    assert counts(sites) == (5, 3, 0)
    assert sites.labels[0] == "layer1.0.conv2"


def test_wrappers(unchanged):
    model = vit()()
    plain = repsim.residual_sites(model, IMAGES)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        with unchanged(model):
            assert repsim.residual_sites(wrapped, IMAGES) == plain


def test_the_model_comes_back_unchanged(unchanged):
    model = vit(drop_path_rate=0.5)().train()
    model.blocks[0].eval()
    with unchanged(model):
        repsim.residual_sites(model, IMAGES)
        with pytest.raises(RuntimeError):
            repsim.residual_sites(model, IMAGES[:, :2])
    assert torch.overrides._get_current_function_mode() is None
    y = model(IMAGES)
    assert not vars(y)


def test_the_model_is_called_with_any_form_of_input():
    model = vit()()
    plain = repsim.residual_sites(model, IMAGES)
    assert repsim.residual_sites(model, (IMAGES, torch.zeros(2))) == plain
    assert repsim.residual_sites(model, {"x": IMAGES}) == plain
    assert repsim.residual_sites(model, [IMAGES], prepare=lambda b: b[0]) == plain
    features = repsim.residual_sites(model, IMAGES, forward=lambda m, b: m.forward_features(b))
    assert features == plain
    parts = repsim.residual_sites(model, IMAGES, forward=lambda m, b: m.blocks(m.patch_embed(b)))
    assert parts.labels == plain.labels
    with pytest.raises(repsim.InputError, match="residual_sites: model must be a torch.nn.Module"):
        repsim.residual_sites("vit", IMAGES)
    with pytest.raises(repsim.InputError, match=r"residual_sites: a batch must be .*\n.*got int"):
        repsim.residual_sites(model, 3)


@pytest.mark.parametrize(
    ("add", "what"),
    [
        (lambda x, f: torch.stack([x, f]).sum(0), "sum of a stack"),
        (lambda x, f: x - (-f), "sub in place of an addition"),
    ],
)
def test_sums_that_look_residual_are_reported(add, what):
    model = nn.Sequential(Residual(), Residual(add))
    with pytest.warns(repsim.RepsimWarning, match=rf"residual_sites: these look.*\n  1: {what}"):
        sites = repsim.residual_sites(model, torch.ones(2, 4))
    assert sites.labels == ("0.mlp",)


def test_a_skip_that_the_branch_subtracts_is_none():
    """Quantisers write q as x + (q - x), for its gradient: those of DAC counted as blocks."""
    for add, sites in (
        (lambda x, f: x + (f - x).detach(), 0),
        (lambda x, f: torch.rsub(x, f) + x, 0),
        (lambda x, f: x + 0.5 * (f - x), 1),
        (lambda x, f: 2 * x + (f - x), 1),
        (lambda x, f: x + (f - 2 * x), 1),
        (lambda x, f: x + torch.sub(f, x, alpha=2), 1),
    ):
        found = repsim.residual_sites(nn.Sequential(Residual(), Residual(add)), torch.ones(2, 4))
        assert found.labels == ("0.mlp", "1.mlp")[: 1 + sites]


def scripted(thing):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(thing)


def add(x: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    return x + f


def test_scripted_additions_are_reported():
    model = nn.Sequential(Residual(), Residual(scripted(add)))
    with pytest.warns(repsim.RepsimWarning, match="  1: its output was computed out of sight"):
        assert repsim.residual_sites(model, torch.ones(2, 4)).labels == ("0.mlp",)
    model = nn.Sequential(Residual(), scripted(nn.Sequential(nn.Linear(4, 4))))
    with pytest.warns(repsim.RepsimWarning, match="  1: it is scripted, its inside cannot be seen"):
        repsim.residual_sites(model, torch.ones(2, 4))


def silu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


class Mlp(nn.Module):
    """x + f(a(g(x)))."""

    def __init__(self, act):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(4, 8), act, nn.Linear(8, 4)

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


class Between(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.function, self.b = Mlp(silu), function, Mlp(silu)

    def forward(self, x):
        return self.b(self.function(self.a(x)))


def test_results_out_of_sight_are_reported():
    """Scripted functions and modules, NumPy, and vmap: what follows cannot be followed."""
    after = "its input was computed out of sight"
    hidden = {
        "function": scripted(silu),
        "module": scripted(nn.SiLU()),
        "numpy": lambda x: torch.from_numpy(x.detach().numpy() / 2),
        "vmap": torch.vmap(silu),
    }
    x = torch.ones(3, 4)
    for act in hidden.values():
        model = nn.Sequential(Mlp(silu), Mlp(act))
        with pytest.warns(repsim.RepsimWarning, match=f"  1.down: {after}"):
            assert repsim.residual_sites(model, x).labels == ("0.down",)
        with pytest.warns(repsim.RepsimWarning, match=f"block_influence: .*\n  b.up: {after}"):
            found = repsim.block_influence(Between(act), [x], progress=False)
        assert found.block.values.tolist() == ["a"]
    model = nn.Sequential(nn.Linear(4, 8), Seen(scripted(silu)), nn.Linear(8, 4), Residual())
    assert repsim.residual_sites(model, x).labels == ("3.mlp",)


class Seen(nn.Module):
    """A module around a function: its hooks see what goes in and what comes out."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Two(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.mlp, self.last, self.join = Mlp(silu), nn.Linear(4, 4), join

    def forward(self, x):
        x = self.mlp(x)
        return self.join(x, self.last(x))


def test_a_skip_out_of_sight_stays_with_a_warning():
    model, x = nn.Sequential(Two(scripted(add))), torch.ones(3, 4)
    with (
        pytest.warns(repsim.RepsimWarning, match="without_residual: these look.*\n  0: its output"),
        repsim.without_residual(model, "0") as removal,
    ):
        model(x)
    assert removal.sites.labels == ("0.mlp.down",)


def test_the_warning_points_at_the_caller():
    model = Residual(lambda x, f: x - (-f))
    with pytest.warns(repsim.RepsimWarning, match="the model itself: sub") as caught:
        repsim.residual_sites(model, torch.ones(2, 4))
    assert caught[0].filename == __file__
