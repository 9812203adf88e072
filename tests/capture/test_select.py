"""The modules that a string, an expression, a type or a predicate selects."""

import re

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from analysis.coverage_table import FAMILIES as IMAGES
from analysis.coverage_text import FAMILIES as TEXTS
from analysis.text_models import language_model
from packages import timm, torchvision, transformers
from repsim import CaptureError, InputError, LayerNotFoundError, RepsimWarning
from repsim.capture import Recorder, named_layers, select_layers, unwrap


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU())


@pytest.fixture
def net() -> nn.Module:
    return nn.ModuleDict(
        {
            "stem": nn.Linear(4, 4),
            "blocks": nn.Sequential(block(), block()),
            "head": nn.Linear(4, 2),
        }
    )


ALL = ["stem", "blocks", "blocks.0", "blocks.0.0", "blocks.0.1"]
ALL += ["blocks.1", "blocks.1.0", "blocks.1.1", "head"]


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("*", ALL),
        ("blocks.0", ["blocks.0"]),
        ("blocks.*", ALL[2:8]),
        ("*.1", ["blocks.0.1", "blocks.1", "blocks.1.1"]),
        ("blocks.[1-9]", ["blocks.1"]),
        ("s???", ["stem"]),
        (re.compile(r"blocks\.\d"), ["blocks.0", "blocks.1"]),
        (re.compile("blocks"), ["blocks"]),
        (nn.ReLU, ["blocks.0.1", "blocks.1.1"]),
        (nn.Module, ALL),
        (lambda name, module: name.startswith("h"), ["head"]),
        (lambda name, module: isinstance(module, nn.Linear) and "." not in name, ["stem", "head"]),
        (["head", "stem"], ["stem", "head"]),
        (("head", "h*", nn.Linear), ["stem", "blocks.0.0", "blocks.1.0", "head"]),
    ],
)
def test_requests_select_these_layers(net, layers, names):
    assert list(select_layers(net, layers).names) == names


def test_walk_is_named_modules_without_the_root(net):
    expected = dict(net.named_modules())
    del expected[""]
    assert named_layers(net) == expected


def test_exact_names_are_required_and_patterns_are_not(net):
    required = {each.name: each.required for each in select_layers(net, ["head", "*"])}
    assert required["head"] == {None}
    assert not any(required[name] for name in ALL[:-1])


def test_calls(net):
    (layer,) = select_layers(net, "head:1")
    assert (layer.calls, layer.required) == ({1}, {1})
    (layer,) = select_layers(net, ["head:1", "head:0"])
    assert layer.calls == {0, 1}
    (layer,) = select_layers(net, ["head:1", "h*"])
    assert layer.calls is None
    assert layer.requires(1)
    assert not layer.requires(0)
    assert [each.calls for each in select_layers(net, "*.1:2")] == [{2}] * 3


def test_a_name_with_a_colon_or_a_star_is_a_name():
    net = nn.Module()
    for name in ("a:1", "a", "b*", "bc"):
        net.add_module(name, nn.Linear(1, 1))
    (layer,) = select_layers(net, "a:1")
    assert (layer.name, layer.calls) == ("a:1", None)
    assert select_layers(net, "b*").names == ("b*",)


class TestMistakes:
    def test_misspelt_name(self, net):
        with pytest.raises(LayerNotFoundError) as caught:
            select_layers(net, "blocks.0.O")
        assert str(caught.value) == (
            "select_layers: no layer is called 'blocks.0.O'.\n"
            "  Did you mean 'blocks.0.1' or 'blocks.0.0' or 'blocks.0'?\n"
            "  ModuleDict has 9 layers: 'stem', 'blocks', 'blocks.0', 'blocks.0.0', 'blocks.0.1', "
            "'blocks.1', 'blocks.1.0', 'blocks.1.1' and 1 more\n"
            '  Pass "blocks", a name of model.named_modules(), a glob like "*", a type or a '
            "callable."
        )

    @pytest.mark.parametrize("good", ["head", "*", nn.Linear])
    def test_misspelt_name_beside_good_ones(self, net, good):
        with pytest.raises(LayerNotFoundError, match=r"'haed'.\n  Did you mean 'head'"):
            select_layers(net, [good, "haed"])

    @pytest.mark.parametrize("name", ["", "head.", ".head", "blocks..0", "stem.weight"])
    def test_an_argument_that_is_not_a_name(self, net, name):
        with pytest.raises(LayerNotFoundError):
            select_layers(net, name)

    @pytest.mark.parametrize(
        ("layers", "shown"),
        [
            ("layer*", "no layer matches 'layer*'"),
            (nn.Conv2d, "no layer matches Conv2d"),
            ([nn.Conv2d, "q*"], "no layer matches Conv2d, 'q*'"),
            (re.compile("block"), "no layer matches re.compile('block')"),
        ],
    )
    def test_nothing_matches(self, net, layers, shown):
        with pytest.raises(LayerNotFoundError, match=re.escape(shown)):
            select_layers(net, layers)

    def test_model_without_submodules(self):
        with pytest.raises(LayerNotFoundError, match="Linear has no layers"):
            select_layers(nn.Linear(1, 1), "*")

    def test_a_glob_that_matches_nothing_beside_one_that_does_is_fine(self, net):
        assert select_layers(net, ["layer*", "head"]).names == ("head",)

    @pytest.mark.parametrize("layers", [3, None, int, [["head"]], {"head"}])
    def test_wrong_type(self, net, layers):
        with pytest.raises(InputError, match="layers must be a name, a glob"):
            select_layers(net, layers)

    def test_a_module_is_not_a_predicate(self, net):
        with pytest.raises(InputError, match="Pass the module's name"):
            select_layers(net, net["head"])

    def test_empty(self, net):
        with pytest.raises(InputError, match="layers is empty"):
            select_layers(net, [])

    def test_no_model(self):
        with pytest.raises(InputError, match="got str"):
            select_layers("resnet18", "*")


class TestWrappers:
    def test_unwrap_is_the_model_itself_where_there_is_no_wrapper(self, net):
        assert unwrap(net) is net

    @pytest.mark.parametrize(
        "wrap",
        [
            nn.DataParallel,
            checkpoint_wrapper,
            lambda m: torch.compile(m, backend="eager"),
            lambda m: torch.compile(nn.DataParallel(checkpoint_wrapper(m)), backend="eager"),
        ],
    )
    def test_names_go_without_wrappers_at_any_depth(self, wrap):
        plain = nn.Sequential(block(), nn.Sequential(nn.Linear(4, 4)))
        names = list(named_layers(plain))
        inner = plain[1][0]
        plain[1][0] = wrap(inner)
        plain[1] = wrap(plain[1])
        wrapped = wrap(plain)
        assert unwrap(wrapped) is plain
        assert list(named_layers(wrapped)) == names
        assert named_layers(wrapped)["1.0"] is inner
        (layer,) = select_layers(wrapped, "1.0")
        assert layer.module is inner

    def test_averaged_weights_are_in_layers_of_the_same_names(self, net):
        names = list(named_layers(net))
        for wrap in (AveragedModel, timm.utils.ModelEmaV2, timm.utils.ModelEmaV3):
            assert list(named_layers(wrap(net))) == names

    @pytest.mark.parametrize("name", ["module", "_orig_mod", "_fsdp_wrapped_module"])
    def test_a_users_own_child_of_such_a_name_stays(self, name):
        net = nn.Module()
        net.add_module(name, nn.Sequential(nn.Linear(1, 1)))
        assert unwrap(net) is net
        assert list(named_layers(net)) == [name, f"{name}.0"]

    def test_subclass_of_a_wrapper(self):
        class Mine(nn.DataParallel):
            pass

        inner = nn.Linear(1, 1)
        assert unwrap(Mine(inner)) is inner


class TestSharedModules:
    @pytest.fixture
    def tied(self) -> nn.Module:
        net = nn.ModuleDict({"encoder": block()})
        net["decoder"] = net["encoder"]
        net["head"] = nn.Sequential(net["encoder"][1])
        net["parallel"] = nn.DataParallel(net["encoder"])
        return net

    def test_appears_once_under_its_first_name(self, tied):
        assert list(named_layers(tied)) == ["encoder", "encoder.0", "encoder.1", "head"]

    @pytest.mark.parametrize(
        ("alias", "first"),
        [
            ("decoder", "encoder"),
            ("decoder.0", "encoder.0"),
            ("head.0", "encoder.1"),
            ("parallel.0", "encoder.0"),
        ],
    )
    def test_an_alias_means_the_same_module(self, tied, alias, first):
        (layer,) = select_layers(tied, alias)
        assert layer.name == first
        assert layer.module is tied.get_submodule(first)
        assert layer.required == {None}
        assert select_layers(tied, [f"{alias}:1", first]).names == (first,)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("how", ["script", "trace"])
class TestScriptModules:
    @staticmethod
    def frozen(how: str) -> nn.Module:
        if how == "script":
            return torch.jit.script(block())
        return torch.jit.trace(block(), torch.ones(1, 4))

    @pytest.mark.parametrize("layers", ["*", "1", nn.Module])
    def test_are_refused(self, how, layers, unchanged):
        net = nn.Sequential(nn.Linear(4, 4), self.frozen(how))
        with unchanged(net), pytest.raises(CaptureError, match="scripted or traced") as caught:
            select_layers(net, layers)
        assert "torch.jit.ScriptModule" in str(caught.value)

    def test_may_be_in_the_model(self, how):
        net = nn.Sequential(nn.Linear(4, 4), self.frozen(how))
        assert select_layers(net, "0").names == ("0",)


def test_weights_of_parametrised_modules_are_not_layers():
    """A batch of 64 and a weight of 64 rows: the rows are not samples."""
    spectral_norm = torch.nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(
        nn.Flatten(), spectral_norm(nn.Linear(48, 64)), nn.ReLU(), spectral_norm(nn.Linear(64, 64))
    )
    with Recorder(net) as rec:
        net(torch.randn(64, 3, 4, 4))
    assert list(rec) == ["0", "1", "2", "3"]
    assert list(select_layers(net, "*").names) == ["0", "1", "2", "3"]
    with pytest.raises(LayerNotFoundError):
        select_layers(net, "1.parametrizations.weight.0")


class TestBlocks:
    """The word "blocks" means the repeated blocks, whatever they are called."""

    def test_vision_models(self):
        expected = {
            "vit_base_patch16_224": (12, "blocks.0", "blocks.11"),
            "swin_tiny_patch4_window7_224": (12, "layers.0.blocks.0", "layers.3.blocks.1"),
            "convnext_tiny": (18, "stages.0.blocks.0", "stages.3.blocks.2"),
            "efficientnet_b0": (16, "blocks.0.0", "blocks.6.0"),
            "coatnet_0_224": (12, "stages.0.blocks.0", "stages.3.blocks.1"),
            "nextvit_small": (20, "stages.0.blocks.0", "stages.3.blocks.2"),
            "maxvit_tiny_tf_224": (11, "stages.0.blocks.0", "stages.3.blocks.1"),
            "resnet50": (16, "layer1.0", "layer4.2"),
            "densenet121": (
                58, "features.denseblock1.denselayer1", "features.denseblock4.denselayer16",
            ),
            "regnety_002": (13, "s1.b1", "s4.b7"),
            "mixer_s16_224": (8, "blocks.0", "blocks.7"),
        }  # fmt: skip
        for name, (count, first, last) in expected.items():
            with torch.device("meta"):
                names = select_layers(timm.create_model(name), "blocks").names
            assert (len(names), names[0], names[-1]) == (count, first, last), name

    def test_torchvision_and_its_parts_of_blocks(self):
        """Inside these blocks are numbered lists too: convolutions with their norms, branches."""
        expected = {
            "vit_b_16": (12, "encoder.layers.encoder_layer_0"),
            "efficientnet_b0": (16, "features.1.0"),
            "mobilenet_v3_small": (11, "features.1"),
            "shufflenet_v2_x0_5": (16, "stage2.0"),
            "regnet_y_400mf": (16, "trunk_output.block1.block1-0"),
            "swin_t": (12, "features.1.0"),
        }
        for name, (count, first) in expected.items():
            names = select_layers(getattr(torchvision.models, name)(), "blocks").names
            assert (len(names), names[0]) == (count, first), name

    @pytest.mark.slow
    def test_every_family_of_the_coverage_page(self):
        for name, family in {**IMAGES, **TEXTS}.items():
            model = family.build()
            names = select_layers(model, "blocks").names
            assert len(names) >= 2, name
            modules = dict(model.named_modules())
            assert not [n for n in names for other in names if other.startswith(f"{n}.")], name
            assert all(any(True for _ in modules[n].parameters()) for n in names), name

    def test_experts_heads_and_towers(self):
        experts = language_model("mixtral")
        assert select_layers(experts, "blocks").names == ("layers.0", "layers.1")
        t5 = transformers.T5Model(
            transformers.T5Config(
                vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2,
                decoder_start_token_id=0,
            )
        )  # fmt: skip
        assert select_layers(t5, "blocks").names == (
            "encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1",
        )  # fmt: skip

    def test_numbered_parts_of_a_block(self):
        """Conformers have a feed-forward network on both sides of attention."""

        def ffn():
            return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

        for name in ("ffn", "feed_forward"):
            layers = [
                nn.ModuleDict({f"{name}1": ffn(), "attn": nn.Linear(2, 2), f"{name}2": ffn()})
                for _ in range(2)
            ]
            assert select_layers(nn.Sequential(*layers), "blocks").names == ("0", "1"), name

    def test_wrappers_and_further_layers(self):
        model = torch.nn.DataParallel(timm.create_model("vit_tiny_patch16_224", depth=3))
        names = select_layers(model, ["blocks", "head"]).names
        assert names == ("blocks.0", "blocks.1", "blocks.2", "head")

    def test_without_blocks_the_word_is_a_name_or_an_error(self, net):
        assert select_layers(net, "blocks").names == ("blocks",)
        with pytest.raises(LayerNotFoundError, match="no layer is called 'blocks'"):
            select_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), "blocks")

    def test_the_container_itself(self):
        model = timm.create_model("vit_tiny_patch16_224", depth=3)
        assert select_layers(model, re.compile("blocks")).names == ("blocks",)


class TestOneDigit:
    """A ? takes blocks 0 to 9 of twelve."""

    def test_a_pattern_that_ends_at_nine_warns(self):
        with torch.device("meta"):
            model = timm.create_model("vit_tiny_patch16_224", depth=12)
        for pattern in ("blocks.?", "blocks.[0-9]", "blocks.?.attn", "*.?.mlp"):
            with pytest.warns(RepsimWarning, match=r"leaves out 'blocks\.10.*'blocks\.11"):
                assert len(select_layers(model, pattern)) == 10, pattern

    def test_patterns_that_mean_it_do_not_warn(self):
        with torch.device("meta"):
            model = timm.create_model("vit_tiny_patch16_224", depth=12)
        for pattern, count in (
            ("blocks.[0-3]", 4), ("blocks.??", 2), ("blocks.1?", 2), ("blocks.1", 1),
            ("nor?", 1),
        ):  # fmt: skip
            assert len(select_layers(model, pattern)) == count, pattern
        with torch.device("meta"):
            short = timm.create_model("vit_tiny_patch16_224", depth=10)
        assert len(select_layers(short, "blocks.?")) == 10
