"""Tokens are never compared as if they were samples."""

import logging

import pytest
import torch
from torch import nn

from repsim import CaptureError, InputError, LayerNotFoundError, RepsimWarning
from repsim.capture import Recorder


def encoder(**options) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Shapes(nn.Module):
    """Returns tensors of given shapes from named children."""

    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self):
            return self.value

    def __init__(self, **outputs):
        super().__init__()
        for name, value in outputs.items():
            value = torch.ones(value) if isinstance(value, tuple) else value
            self.add_module(name, self.Constant(value))

    def forward(self, x):
        for child in self.children():
            child()
        return x


class TestAxisZeroMustBeTheInputs:
    def test_by_name_an_error_that_names_layer_shape_and_repair(self):
        net = Shapes(windows=(6, 3, 4))
        with pytest.raises(CaptureError) as caught, Recorder(net, "windows"):
            net(torch.ones(3, 5))
        assert str(caught.value) == (
            "Recorder: axis 0 of layer 'windows' is not the batch.\n"
            "  it returned: (6, 3, 4)    the model's input: (3, 5) → n=3\n"
            "  Pass batch_dim=1 or batch_dim={'windows': 1}, or leave the layer out.\n"
            "  Where samples and tokens share an axis, select= can part them."
        )

    def test_by_pattern_left_out_with_one_warning_for_all(self, caplog):
        caplog.set_level(logging.INFO, "repsim")
        net = Shapes(good=(3, 2), windows=(6, 4), pos=(1, 7, 4), loss=torch.tensor(1.0), none=None)
        with Recorder(net) as rec:
            with pytest.warns(RepsimWarning) as caught:
                net(torch.ones(3, 5))
            net(torch.ones(3, 5))  # once per layer, and warnings are errors here
        assert list(rec) == ["good"]
        (warning,) = caught
        assert (
            "outputs that are not a batch that can be compared were left out:\n  windows (6, 4)\n"
            in str(warning.message)
        )
        (line,) = caplog.records
        assert line.getMessage() == "Recorder: returned no batch: 'pos', 'loss', 'none'"

    def test_a_layer_left_out_once_stays_out(self):
        net = Shapes(good=(3, 2), pos=(1, 7))
        with Recorder(net) as rec:
            net(torch.ones(3, 5))
            assert list(rec) == ["good"]
            net.good.value = torch.ones(1, 2)
            net(torch.ones(1, 5))  # a last batch of one sample, in which pos would pass
            assert list(rec) == ["good"]
        with pytest.raises(KeyError, match=r"'pos' was not recorded.\n  it was left out: \(1, 7\)"):
            rec["pos"]

    def test_a_second_batch_of_another_size_is_evidence(self):
        """A position table as long as the first batch: the recorder runs no forward to find out."""

        class Text(nn.Module):
            def __init__(self):
                super().__init__()
                self.wte, self.wpe = nn.Embedding(9, 4), nn.Embedding(8, 4)

            def forward(self, ids):
                return self.wte(ids) + self.wpe(torch.arange(8))

        net = Text()
        with Recorder(net) as rec:
            net(torch.zeros(8, 8, dtype=torch.long))
            with pytest.warns(RepsimWarning, match=r"wpe \(8, 4\)"):
                net(torch.zeros(6, 8, dtype=torch.long))
            assert list(rec) == ["wte"]
            net(torch.zeros(8, 8, dtype=torch.long))  # and it stays out
            assert list(rec) == ["wte"]

    def test_weights_are_never_taken(self):
        net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU())
        with Recorder(net) as rec:
            net(torch.ones(3, 4))
        assert list(rec) == ["0", "1"]

    def test_nothing_left(self):
        net = Shapes(a=(6, 4), b=(1, 4), c=None)
        nothing = pytest.raises(CaptureError, match="nothing is left to record")
        with nothing as caught, Recorder(net):
            net(torch.ones(3, 5))
        for line in ("a: (6, 4)", "b: (1, 4)", "c: returned NoneType", "batch_dim=1"):
            assert line in str(caught.value)

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((torch.ones(3),), {}),
            (({"ids": torch.ones(3, 7), "mask": torch.ones(3, 9)},), {}),
            ((), {"x": torch.ones(3, 7)}),
            ((), {"x": [None, 1.0, torch.tensor(2), torch.ones(3, 7)]}),
        ],
    )
    def test_the_input_may_come_in_any_way(self, args, kwargs):
        net = Shapes(a=(3, 4), b=(7, 4))
        with Recorder(net) as rec, pytest.warns(RepsimWarning, match=r"b \(7, 4\)"):
            net(*args, **kwargs)
        assert list(rec) == ["a"]

    def test_without_a_tensor_in_the_input_nothing_is_checked(self):
        net = Shapes(a=(3, 4))
        with Recorder(net, "a") as rec:
            net("text")
        assert rec["a"].shape == (3, 4)


class TestClearSetsTheExpectation:
    def test_for_a_forward_that_does_not_call_the_root(self):
        net = Shapes(a=(3, 4))
        with Recorder(net, "a") as rec:
            net.a()
            assert list(rec) == ["a"]
            rec.clear(batch_size=3)
            net.a()
            assert list(rec) == ["a"]
            rec.clear(batch_size=4)
            with pytest.raises(CaptureError, match="expected: n=4"):
                net.a()
            rec.clear()
            net.a()

    def test_it_overrules_the_input(self):
        net = Shapes(a=(3, 4))
        with Recorder(net, "a") as rec:
            rec.clear(batch_size=3)
            net(torch.ones(6, 2))
            net(torch.ones(6, 2))
            rec.clear()
            with pytest.raises(CaptureError, match="n=6"):
                net(torch.ones(6, 2))


class TestBatchDim:
    def test_moves_the_axis_to_the_front_before_the_transform(self):
        net = encoder()
        x = torch.randn(5, 3, 8)
        with Recorder(net, "layers.*", batch_dim=1, transform="cls") as rec:
            y = net(x)
        assert len(rec) > 10
        torch.testing.assert_close(rec["layers.1"], y[0].detach())

    @pytest.mark.parametrize("axis", [1, -2])
    def test_same_values_as_a_batch_first_twin(self, axis):
        net, twin = encoder(), encoder(batch_first=True)
        twin.load_state_dict(net.state_dict())
        x = torch.randn(5, 3, 8)
        with Recorder(net, batch_dim=axis) as rec:
            net(x)
        with Recorder(twin) as reference:
            twin(x.movedim(1, 0))
        assert list(rec) == list(reference)
        for label in rec:
            torch.testing.assert_close(rec[label], reference[label])

    def test_by_name_or_glob(self):
        net = Shapes(tokens=(5, 3, 4), more=(5, 3, 2), pooled=(3, 8), five=(5, 7))
        with Recorder(net, batch_dim={"[tm]o*": 1, "pooled": 0}) as rec:
            net(torch.ones(5, 3, 4))
        shapes = {label: tuple(value.shape) for label, value in rec.items()}
        assert shapes == {"tokens": (3, 5, 4), "more": (3, 5, 2), "pooled": (3, 8), "five": (5, 7)}

    def test_an_exact_name_goes_before_a_glob(self):
        net = Shapes(a=(3, 5), b=(5, 3))
        with Recorder(net, batch_dim={"*": 1, "a": 0}) as rec:
            net(torch.ones(5, 3))
        assert {tuple(value.shape) for value in rec.values()} == {(3, 5)}

    def test_must_exist(self):
        net = Shapes(a=(5,))
        with (
            pytest.raises(CaptureError, match="has no axis 1"),
            Recorder(net, "a", batch_dim=1),
        ):
            net(torch.ones(5, 3, 4))

    def test_is_trusted(self):
        """The model stacks five images (3, 8, 8), and only the caller knows that."""
        net = Shapes(a=(5, 4), b=(5, 7))
        with Recorder(net, batch_dim=0) as rec:
            net([torch.ones(3, 8, 8)] * 5)
        assert {len(value) for value in rec.values()} == {5}
        with Recorder(net, "a", batch_dim=0) as rec:
            rec.clear(batch_size=4)
            with pytest.raises(CaptureError, match=r"axis 0 of layer 'a'(.|\n)*expected: n=4"):
                net(torch.ones(4))

    def test_where_layers_disagree_the_size_of_the_input_decides(self):
        net = Shapes(tokens=(5, 3, 4), pooled=(3, 8))
        with (
            Recorder(net, batch_dim=1) as rec,
            pytest.warns(RepsimWarning, match=r"pooled \(8, 3\)"),
        ):
            net(torch.ones(5, 3, 4))
        assert list(rec) == ["tokens"]
        with (
            pytest.raises(CaptureError, match="axis 1 of layer 'pooled' is not the batch"),
            Recorder(net, ["tokens", "pooled"], batch_dim=1),
        ):
            net(torch.ones(5, 3, 4))

    @pytest.mark.parametrize("batch_dim", ["1", 1.0, True, [0]])
    def test_of_another_type(self, batch_dim):
        with pytest.raises(InputError, match="batch_dim must be an axis"):
            Recorder(Shapes(a=(1,)), batch_dim=batch_dim)

    @pytest.mark.parametrize("batch_dim", [{3: 1}, {"a": "1"}, {"a": True}])
    def test_of_another_type_in_the_mapping(self, batch_dim):
        with pytest.raises(InputError, match="batch_dim must map names or globs of layers to axes"):
            Recorder(Shapes(a=(1,)), batch_dim=batch_dim)

    def test_misspelt_name_in_the_mapping(self):
        with pytest.raises(LayerNotFoundError, match="batch_dim names 'b'"):
            Recorder(Shapes(a=(1,)), batch_dim={"b": 1})


class TestSequenceFirstModels:
    """nn.TransformerEncoder's default: axis 0 is the sequence everywhere, so all sizes agree."""

    @pytest.mark.parametrize("layers", ["*", "layers.0", nn.Linear, "layers.0.linear1"])
    @pytest.mark.parametrize("shape", [(5, 3, 8), (4, 4, 8), (3, 5, 8), (1, 4, 8)])
    def test_are_an_error(self, layers, shape, unchanged):
        net, x = encoder(), torch.randn(shape)
        with (
            unchanged(net),
            pytest.raises(CaptureError, match=r"sequence first(.|\n)*Pass batch_dim=1"),
            Recorder(net, layers),
        ):
            net(x)

    def test_without_the_check_tokens_would_be_samples(self):
        net = encoder()
        with Recorder(net, "layers.0", batch_dim=0) as rec:  # an explicit axis is followed
            net(torch.randn(5, 3, 8))
        assert rec["layers.0"].shape == (5, 3, 8)

    def test_with_ids_as_input(self):
        net = nn.Sequential(nn.Embedding(10, 8), encoder())
        with pytest.raises(CaptureError, match="sequence first"), Recorder(net, "0"):
            net(torch.zeros(5, 3, dtype=torch.long))

    def test_with_a_token_added_inside(self):
        class Prefixed(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.encoder = nn.Linear(8, 8), encoder()

            def forward(self, x):
                x = self.stem(x)
                return self.encoder(torch.cat([x[:1], x]))

        for shape in ((5, 3, 8), (4, 4, 8)):
            net = Prefixed()
            with pytest.raises(CaptureError, match="sequence first"), Recorder(net, "stem"):
                net(torch.randn(shape))

    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    def test_recurrent_ones(self, kind):
        net = nn.ModuleDict({"rnn": kind(8, 4)})
        net.forward = lambda x: net["rnn"](x)
        with pytest.raises(CaptureError, match="sequence first"), Recorder(net, "rnn"):
            net(torch.randn(5, 3, 8))
        with Recorder(net, "rnn", batch_dim=1) as rec:
            net(torch.randn(5, 3, 8))
        assert rec["rnn"].shape == (3, 5, 4)

    @pytest.mark.parametrize("shape", [(5, 3, 8), (4, 4, 8)])
    def test_batch_first_ones_are_not(self, shape):
        net = encoder(batch_first=True)
        with Recorder(net, "layers.*") as rec:
            net(torch.randn(shape))
        assert rec["layers.1"].shape == shape

    def test_unbatched_attention_declares_nothing(self):
        class Pairwise(nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = nn.MultiheadAttention(8, 2)

            def forward(self, x):
                return self.attention(x, x, x)[0]  # samples attend to samples

        net = Pairwise()
        with Recorder(net, "attention") as rec:
            net(torch.randn(5, 8))
        assert rec["attention"].shape == (5, 8)


class Vision(nn.Module):
    """Batch-first images around sequence-first blocks, as in CLIP."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.blocks = nn.Conv2d(3, 8, 4, stride=4), encoder()
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.patch(x).flatten(2).permute(2, 0, 1)
        return self.head(self.norm(self.blocks(x).permute(1, 0, 2).mean(1)))


class TestSequenceFirstBlocksInABatchFirstModel:
    """16 tokens; only the axis of the blocks is wrong, for every batch size."""

    @pytest.mark.parametrize("n", [3, 5, 16])
    def test_batch_first_outputs_are_recorded(self, n):
        net = Vision()
        with Recorder(net, ["patch", "norm", "head"]) as rec:
            net(torch.randn(n, 3, 16, 16))
        assert {len(value) for value in rec.values()} == {n}

    @pytest.mark.parametrize("n", [5, 16])
    @pytest.mark.parametrize("layer", ["blocks.layers.0", "blocks.layers.1.linear1"])
    def test_a_block_is_an_error(self, n, layer):
        net = Vision()
        wrong = pytest.raises(CaptureError, match=rf"layer '{layer}'(.|\n)*batch_dim=")
        with wrong, Recorder(net, ["patch", layer]):
            net(torch.randn(n, 3, 16, 16))

    @pytest.mark.parametrize("n", [5, 16])
    def test_under_a_glob_the_blocks_are_left_out(self, n):
        net = Vision()
        with Recorder(net) as rec, pytest.warns(RepsimWarning, match=r"blocks\.layers\.0"):
            net(torch.randn(n, 3, 16, 16))
        assert list(rec) == ["patch", "norm", "head"]

    @pytest.mark.parametrize("n", [5, 16])
    def test_or_recorded_with_their_axis(self, n):
        net = Vision()
        with Recorder(net, batch_dim={"blocks*": 1}) as rec:  # and no warning, or it would raise
            net(torch.randn(n, 3, 16, 16))
        assert rec["blocks.layers.1"].shape == (n, 16, 8)
        torch.testing.assert_close(rec["norm"], net.norm(rec["blocks"].mean(1)).detach())

    @pytest.mark.parametrize("n", [5, 16])
    def test_without_a_call_of_the_root(self, n):
        net = Vision()
        wrong = pytest.raises(CaptureError, match="may be tokens, not samples")
        with wrong, Recorder(net, "blocks.layers.0"):
            net.blocks(torch.randn(16, n, 8))


def test_after_clear_a_part_of_the_model_may_have_other_samples():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.rnn = nn.Linear(3, 4), nn.GRU(3, 4)

        def forward(self, x):
            return self.part(x), self.rnn(x.transpose(0, 1))

    model = Model()
    with Recorder(model, "part") as rec:
        model(torch.randn(2, 6, 3))
        rec.clear()
        model.part(torch.randn(6, 2, 3))
    assert rec["part"].shape == (6, 2, 4)
