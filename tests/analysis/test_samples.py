"""What the samples of a batch are: found by running the model on 2 and on 3 of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import Copy
from cases import each
from repsim import CaptureError, InputError, RepsimWarning, compare

quiet = {"progress": False}


def rows(*shape: int, batches: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator) for _ in range(batches)]


def tokens(*shape: int, batches: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(50, shape, generator=generator) for _ in range(batches)]


def layers_of(result) -> list[str]:
    return result.layer_x.values.tolist()


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU())


class Text(nn.Module):
    """Words and positions, batch first or sequence first inside."""

    def __init__(self, *, sequence_first: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(50, 8), nn.Embedding(64, 8)
        self.out, self.sequence_first = nn.Linear(8, 8), sequence_first

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        return self.out(x.transpose(0, 1) if self.sequence_first else x)


class Windows(nn.Module):
    """Four windows of four numbers for each sample, together as in Swin or apart as in crops."""

    def __init__(self, *, apart: bool = False) -> None:
        super().__init__()
        self.windows, self.out, self.apart = nn.Linear(4, 3), Copy(), apart

    def forward(self, x):
        n = len(x)
        parts = torch.cat(x.chunk(4, 1)) if self.apart else x.reshape(4 * n, 4)
        y = self.windows(parts)
        y = y.reshape(4, n, 3).transpose(0, 1) if self.apart else y.reshape(n, 4, 3)
        return self.out(y.reshape(n, 12))


class TestWhatFollowsNoSample:
    def test_weights_are_never_a_layer(self):
        from torch.nn.utils.parametrizations import spectral_norm

        net = nn.Sequential(
            nn.Flatten(), spectral_norm(nn.Linear(48, 64)), nn.ReLU(),
            spectral_norm(nn.Linear(64, 64)),
        )  # fmt: skip
        for n in (64, 32):
            assert layers_of(compare(net, data=rows(n, 3, 4, 4), **quiet)) == ["0", "1", "2", "3"]

    def test_a_position_table_as_long_as_the_batch_is_left_out(self):
        with pytest.warns(RepsimWarning, match=r"wpe \(64, 8\) follows no sample"):
            result = compare(Text(), data=tokens(64, 64), **quiet)
        assert layers_of(result) == ["wte", "out"]
        with pytest.raises(CaptureError, match="layer 'wpe' follows no sample"):
            compare(Text(), data=tokens(64, 64), layers=["wte", "wpe"], **quiet)
        # An explicit option is followed.
        result = compare(
            Text(), data=tokens(64, 64), layers=["wte", "wpe"], batch_dim={"wpe": 0}, **quiet
        )
        assert layers_of(result) == ["wpe", "wte"] or layers_of(result) == ["wte", "wpe"]

    def test_relative_positions_of_swin(self):
        from torchvision.models.swin_transformer import SwinTransformer, SwinTransformerBlockV2

        net = SwinTransformer(
            [4, 4], 8, [2], [2], [4, 4], num_classes=3, block=SwinTransformerBlockV2
        ).eval()
        data = rows(4, 3, 32, 32, batches=2)
        found = layers_of(compare(net, data=data, **quiet))
        assert not [name for name in found if "cpb" in name]
        with pytest.raises(CaptureError, match="follows no sample"):
            compare(net, data=data, layers=["features.1.0.attn.cpb_mlp"], **quiet)


class TestRowsOfASample:
    @each("apart", [False, True])
    def test_are_its_features(self, apart, tmp_path):
        net, data = Windows(apart=apart), rows(16, 16)
        result = compare(net, data=data, **quiet)
        assert result.attrs["n_samples"] == 48
        assert layers_of(result) == ["windows", "out"]
        # The same numbers in another shape.
        np.testing.assert_allclose(result.cka.values, 1, atol=1e-6)
        stored = repsim.extract(net, data, out=tmp_path / f"{apart}.zarr", **quiet)
        assert stored["windows"].shape == (48, 4, 3)
        np.testing.assert_array_equal(
            stored["windows"].values.reshape(48, 12), stored["out"].values
        )

    @each("windows", [(4, 4), (16,)])
    def test_means_are_over_all_of_them(self, windows):
        class Windowed(nn.Module):
            """Four windows of a map, channels last or as tokens."""

            def __init__(self):
                super().__init__()
                self.patches = nn.Conv2d(3, 6, 4, stride=4)
                self.inside, self.out = nn.Linear(6, 6), Copy()

            def forward(self, x):
                x = self.patches(x).permute(0, 2, 3, 1).reshape(-1, 2, 4, 2, 4, 6)
                x = self.inside(x.transpose(2, 3).reshape(-1, *windows, 6))
                return self.out(x.reshape(-1, 64, 6).mean(1))

        net, data = Windowed(), rows(16, 3, 32, 32)
        result = compare(net, data=data, transform="mean", **quiet)
        np.testing.assert_allclose(result.cka.sel(layer_x="inside", layer_y="out"), 1, atol=1e-6)
        with pytest.raises(CaptureError, match=r"inside: \(16, .*(windows|takes tokens)"):
            compare(net, data=data, transform="first", **quiet)

    def test_tokens_on_the_axis_of_the_samples_in_texts_of_any_length(self):
        """As in the gate of Mixtral, whose rows are the tokens of all texts."""

        class Gated(nn.Module):
            def __init__(self):
                super().__init__()
                self.wte, self.gate = nn.Embedding(50, 8), nn.Linear(8, 4)
                self.out = Copy()

            def forward(self, input_ids, attention_mask):
                x = self.wte(input_ids)
                return self.out(self.gate(x.flatten(0, 1)).unflatten(0, x.shape[:2]))

        data = []
        for length in (6, 9, 12):
            mask = torch.ones(16, length, dtype=torch.long)
            mask[::2, length // 2 :] = 0
            data.append({"input_ids": tokens(16, length)[0], "attention_mask": mask})
        net = Gated()
        result = compare(net, data=data, transform="mean", **quiet)
        assert layers_of(result) == ["wte", "gate", "out"]
        np.testing.assert_allclose(result.cka.sel(layer_x="gate", layer_y="out"), 1, atol=1e-6)
        by_tokens = compare(net, data=data, samples="tokens", **quiet)
        np.testing.assert_allclose(by_tokens.cka.sel(layer_x="gate", layer_y="out"), 1, atol=1e-6)

    def test_means_of_maps_are_over_all_crops(self):
        class Crops(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.out = nn.Conv2d(3, 4, 3, padding=1), Copy()

            def forward(self, x):
                y = self.conv(torch.cat([x[..., :4], x[..., 4:]]))
                return self.out(y.unflatten(0, (2, len(x))).mean((0, 3, 4)))

        result = compare(Crops(), data=rows(16, 3, 8, 8), transform="mean", **quiet)
        np.testing.assert_allclose(result.cka.values, 1, atol=1e-6)

    def test_rows_that_values_do_not_place_are_left_out(self):
        class Mixed(Windows):
            def forward(self, x):
                return super().forward(x * x.mean() * len(x))

        with pytest.warns(RepsimWarning, match="which of 4 rows are of one sample is unknown"):
            assert layers_of(compare(Mixed(), data=rows(16, 16), **quiet)) == ["out"]

    def test_axes_of_a_sequence_first_tower_of_images_are_found_even_if_square(self):
        class Tower(nn.Module):
            def __init__(self):
                super().__init__()
                self.patch, self.mix = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8)

            def forward(self, x):
                return self.mix(self.patch(x).flatten(2).permute(2, 0, 1)).mean(0)

        net, data = Tower(), rows(16, 3, 16, 16)  # 16 tokens
        result = compare(net, data=data, transform=lambda x: x.flatten(1), **quiet)
        features = [net.mix(net.patch(x).flatten(2).mT).detach().flatten(1) for x in data]
        acc = repsim.MinibatchCKA()
        for x, batch in zip(features, data, strict=True):
            acc.update({"mix": x}, {"patch": net.patch(batch).detach().flatten(1)})
        np.testing.assert_allclose(
            result.cka.sel(layer_x="mix", layer_y="patch").item(), acc.compute().item(), rtol=1e-5
        )


@dataclasses.dataclass
class Ids:
    ids: torch.Tensor
    source: str = "wikipedia"


class Object:
    def __init__(self, x) -> None:
        self.x = x


class TestBatchesOfAnyForm:
    def test_a_list_of_images(self):
        class Stacking(nn.Sequential):
            def forward(self, images):
                return super().forward(torch.stack(images))

        net = Stacking(nn.Conv2d(3, 4, 3), nn.ReLU())
        data = [list(batch) for batch in rows(5, 3, 8, 8)]
        for options in ({}, {"batch_dim": 0}, {"batch_size": 5}, {"batch_size": len}):
            result = compare(net, data=data, forward=lambda m, b: m(b), **options, **quiet)
            assert result.attrs["n_samples"] == 15, options
            assert layers_of(result) == ["0", "1"]

    def test_a_dataclass_into_a_sequence_first_model(self):
        class Unpacking(Text):
            def forward(self, batch):
                return super().forward(batch.ids)

        data = [Ids(ids) for ids in tokens(16, 7)]
        net = Unpacking(sequence_first=True)
        result = compare(net, data=data, layers=["wte", "out"], forward=lambda m, b: m(b), **quiet)
        assert result.attrs["n_samples"] == 48

    def test_an_object_that_forward_takes_apart(self):
        data = [Object(x) for x in rows(16, 6)]
        result = compare(two_layers(), data=data, forward=lambda m, b: m(b.x), **quiet)
        assert result.attrs["n_samples"] == 48

    def test_a_batch_that_forward_unpacks(self):
        result = compare(two_layers(), data=rows(1, 16, 6), forward=lambda m, b: m(b[0]), **quiet)
        assert result.attrs["n_samples"] == 48

    def test_rows_of_samples_packed_along_one_axis(self):
        """Patches of images, 16 each, as in the vision tower of Qwen2-VL."""

        class Packed(nn.Module):
            def __init__(self):
                super().__init__()
                self.patches, self.pooled = nn.Linear(6, 5), Copy()

            def forward(self, pixel_values, grid_thw):
                x = self.patches(pixel_values)
                sizes = grid_thw.prod(1).tolist()
                return self.pooled(torch.stack([each.mean(0) for each in x.split(sizes)]))

        grid = torch.tensor([[1, 4, 4]] * 12)
        data = [{"pixel_values": x, "grid_thw": grid} for x in rows(192, 6)]
        result = compare(Packed(), data=data, **quiet)
        assert result.attrs["n_samples"] == 36
        assert layers_of(result) == ["patches", "pooled"]
        with pytest.raises(CaptureError, match=r"differ in size"):
            uneven = torch.tensor([[1, 4, 4]] * 10 + [[1, 4, 2], [1, 4, 6]])
            compare(Packed(), data=[*data, {**data[0], "grid_thw": uneven}], **quiet)
        # Images of different sizes have different numbers of features.
        uneven = torch.tensor([[1, 4, 4]] * 10 + [[1, 4, 2], [1, 4, 6]])
        data = [{"pixel_values": x, "grid_thw": uneven} for x in rows(192, 6)]
        with pytest.warns(RepsimWarning, match=r"patches \(192, 5\)"):
            result = compare(Packed(), data=data, batch_size=12, layers="p*", **quiet)
        assert layers_of(result) == ["pooled"]

    def test_a_list_of_crops_asks(self):
        """Six crops of each of five images had been six samples."""

        class Crops(nn.Module):
            def __init__(self):
                super().__init__()
                self.map, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

            def forward(self, crops):
                return self.head(torch.cat([self.map(crop).mean((2, 3)) for crop in crops]))

        data = [list(torch.randn(6, 5, 3, 8, 8)) for _ in range(2)]
        options = {"forward": lambda model, batch: model(batch), **quiet}
        with pytest.raises(CaptureError, match=r"6 crops of 5 samples(.|\n)*batch_size=6 or"):
            compare(Crops(), data=data, layers="head", **options)
        found = compare(Crops(), data=data, layers="head", batch_size=5, **options)
        assert found.attrs["n_samples"] == 10
        # Six images in a list are six samples, although each has three rows, its channels.
        images = [list(batch) for batch in torch.randn(2, 6, 3, 8, 8)]
        options["forward"] = lambda model, batch: model(torch.stack(batch))
        found = compare(nn.Sequential(nn.Conv2d(3, 6, 3)), data=images, layers="0", **options)
        assert found.attrs["n_samples"] == 12

    def test_packed_images_beside_texts_of_any_length(self):
        """Images of one size have the same number of patches, however long their texts are."""

        class Described(nn.Module):
            def __init__(self):
                super().__init__()
                self.words, self.patches = nn.Embedding(9, 5), nn.Linear(6, 5)

            def forward(self, input_ids, pixel_values, grid_thw):
                images = self.patches(pixel_values).reshape(len(input_ids), 4, 5)
                return self.words(input_ids) + images.mean(1, keepdim=True)

        model = Described()
        grid = torch.tensor([[1, 2, 2]] * 6)
        data = [
            {"input_ids": torch.randint(9, (6, length)), "pixel_values": x, "grid_thw": grid}
            for length, x in zip((7, 8, 5), rows(24, 6), strict=True)
        ]
        own = compare(model, data=data, layers="patches", **quiet)
        apart = [batch["pixel_values"].reshape(6, 4, 6) for batch in data]
        expected = compare(nn.Sequential(model.patches), data=apart, layers="0", **quiet)
        np.testing.assert_allclose(own.cka, expected.cka, rtol=1e-5)
        assert own.attrs["n_samples"] == 18

    def test_the_vision_tower_of_qwen2_vl(self):
        pytest.importorskip("transformers")
        from transformers.models.qwen2_vl import modeling_qwen2_vl as qwen
        from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig

        torch.manual_seed(0)
        config = Qwen2VLVisionConfig(
            depth=1, embed_dim=16, hidden_size=16, num_heads=2, patch_size=4, mlp_ratio=2
        )
        net = qwen.Qwen2VisionTransformerPretrainedModel(config).eval()
        grid = torch.tensor([[1, 4, 4]] * 12)
        data = [{"hidden_states": x, "grid_thw": grid} for x in rows(192, 96)]
        layers = ["patch_embed", "blocks.0", "merger"]
        result = compare(net, data=data, layers=layers, **quiet)
        assert result.attrs["n_samples"] == 36
        # One by one, the same images have the same features.
        acc = repsim.MinibatchCKA()
        for batch in data:
            found = {}
            for layer in layers:
                parts = []
                for image in batch["hidden_states"].split(16):
                    with torch.no_grad(), repsim.Recorder(net, layer, batch_dim=0) as rec:
                        net(image, grid_thw=grid[:1])
                    parts.append(rec[layer].flatten())
                found[layer] = torch.stack(parts)
            acc.update(found)
        np.testing.assert_allclose(result.cka.values, acc.compute().values, atol=1e-5)

    def test_the_nodes_of_graphs_ask(self):
        class Graphs(nn.Module):
            def __init__(self):
                super().__init__()
                self.nodes, self.pooled = nn.Linear(6, 5), Copy()

            def forward(self, x, edges, graph):
                h = self.nodes(x)
                h = h.index_add(0, edges[0], h[edges[1]])
                return self.pooled(torch.zeros(12, 5).index_add(0, graph, h))

        graph = torch.arange(48) // 4
        data = [{"x": x, "edges": torch.randint(48, (2, 100)), "graph": graph} for x in rows(48, 6)]
        with pytest.raises(CaptureError, match=r"could not be found(.|\n)*Pass batch_size="):
            compare(Graphs(), data=data, **quiet)
        for n in (12, lambda batch: int(batch["graph"].max()) + 1):
            result = compare(Graphs(), data=data, batch_size=n, layers="pooled", **quiet)
            assert result.attrs["n_samples"] == 36
        with pytest.raises(CaptureError, match=r"axis 0 of layer 'nodes' is not the batch"):
            compare(Graphs(), data=data, batch_size=12, layers="nodes", **quiet)

    def test_a_packed_text_asks(self):
        with pytest.raises(InputError, match=r"at least 4 samples(.|\n)*batch_size="):
            compare(Text(), data=tokens(1, 60, batches=9), layers=["wte", "out"], **quiet)

    def test_texts_without_their_padding_are_never_mixed(self):
        """Packed real tokens may be a multiple of the samples by accident."""

        class Unpadded(nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding, self.out = nn.Embedding(9, 4), nn.Linear(4, 3)

            def forward(self, ids, real):
                return self.out(self.embedding(ids)[real])

        def batch(lengths, longest):
            lengths = torch.tensor(lengths)[:, None]
            ids = torch.arange(len(lengths) * longest).reshape(len(lengths), longest) % 9
            return {"ids": ids, "real": torch.arange(longest) < lengths}

        def rows_of(*batches):
            result = compare(Unpadded(), data=batches, layers=["out"], **quiet)
            return result.attrs["n_samples"]

        full = batch([6] * 8, 6)
        assert rows_of(full, full, batch([9] * 8, 9), batch([3] * 4, 3)) == 28
        for lengths, longest in (([6] * 6 + [2] * 2, 6), ([8] * 4 + [4] * 4, 8), ([1, 9] * 4, 9)):
            with pytest.raises(CaptureError, match="missing|n=8 of equal rows"):
                rows_of(full, batch(lengths, longest))

    def test_a_model_that_refuses_few_samples_is_named(self):
        class Contrasting(nn.Sequential):
            def forward(self, x):
                if len(x) < 4:
                    raise RuntimeError("needs four samples")
                return super().forward(x)

        net = Contrasting(nn.Linear(6, 5), nn.ReLU())
        with pytest.warns(RepsimWarning, match=r"needs four samples(.|\n)*Pass batch_size="):
            result = compare(net, data=rows(16, 6), **quiet)
        expected = compare(nn.Sequential(*net), data=rows(16, 6), **quiet)
        np.testing.assert_array_equal(result.cka.values, expected.cka.values)
        compare(net, data=rows(16, 6), batch_size=16, **quiet)  # no warning

    def test_an_error_of_the_machine_on_few_samples_is_no_answer(self):
        """Nor is one that the model raises on every batch."""

        class Failing(nn.Module):
            """A text with a residual connection that raises on fewer than `most` samples."""

            def __init__(self, error, most):
                super().__init__()
                self.words, self.mix = nn.Embedding(50, 8), nn.Linear(8, 8)
                self.error, self.most = error, most

            def forward(self, input_ids, attention_mask=None, decoder_input_ids=None):
                x = self.words(input_ids)
                if len(input_ids) < self.most:
                    raise self.error
                return x + self.mix(x)

        ids = torch.randint(50, (8, 6))
        plain = [{"input_ids": ids}]
        several = [
            {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
        ]
        sequences = {"transform": "mean", "batch_dim": 0}
        calls = (
            (repsim.compare, plain, {}),
            (repsim.compare, several, sequences),
            (repsim.residual_ratios, plain, {}),
            (repsim.block_influence, plain, {"blocks": "mix"}),
        )
        of_the_machine = (
            MemoryError("no room"),
            torch.OutOfMemoryError("CUDA out of memory."),
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            RuntimeError("CUDA error: device-side assert triggered"),
            torch.distributed.DistError("a rank died"),
            KeyboardInterrupt(),
        )
        for analysis, data, options in calls:
            for error in of_the_machine:
                with pytest.raises(type(error)) as raised:
                    analysis(Failing(error, most=8), data=data, **options, **quiet)
                assert raised.value is error
                if isinstance(error, Exception):
                    assert error.__notes__[-1].startswith("repsim: in a forward of")
            error = ValueError("on every batch")
            with pytest.raises(ValueError, match="on every batch"):
                analysis(Failing(error, most=9), data=data, **options, **quiet)

    def test_rows_of_a_sample_beside_an_axis_of_two_are_left_out_and_named(self):
        """The forward of two samples does not tell which axis holds them."""

        class Views(nn.Module):
            def __init__(self):
                super().__init__()
                self.rows, self.views = nn.Linear(6, 8), nn.Linear(2, 2)

            def forward(self, x):
                y = self.rows(x).reshape(-1, 2)
                return self.views(torch.stack([y, -y]))

        with pytest.warns(RepsimWarning, match="which of 4 rows are of one sample is unknown"):
            assert layers_of(compare(Views(), data=rows(16, 6), **quiet)) == ["rows"]

    def test_an_invalid_batch_size_is_refused(self):
        for wrong in (0, True, "16", 1.5):
            with pytest.raises(InputError, match="batch_size must be"):
                compare(two_layers(), data=rows(16, 6), batch_size=wrong, **quiet)
        with pytest.raises(InputError, match="batch_size must return"):
            compare(two_layers(), data=rows(16, 6), batch_size=lambda b: b.mean(), **quiet)


class TestEveryAnalysisAsks:
    """The table `wpe` has as many rows as the batch, but it is not taken for samples."""

    def test_all_of_them(self, tmp_path):
        data, net = tokens(64, 64, batches=2), Text()
        labelled = [(ids, torch.arange(64) % 2) for ids in data]

        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.wte = nn.Embedding(50, 8)
                self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

            def forward(self, ids):
                x = self.wte(ids)
                return self.attention(x, x, x)[0]

        found = {
            "extract": lambda: list(repsim.extract(net, data, out=tmp_path / "a.zarr", **quiet)),
            "data_scale": lambda: repsim.data_scale(
                {0.5: net}, Text(), data, layers="*", **quiet
            ).layer.values.tolist(),
            "linear_probe": lambda: repsim.linear_probe(
                net, labelled, labelled, layers="*", tokens="mean", **quiet
            ).layer.values.tolist(),
            "head_subset_cka": lambda: repsim.head_subset_cka(
                Attention(), net, data, layer="attention", layers_y="*", **quiet
            ).layer_y.values.tolist(),
        }
        for name, run in found.items():
            with pytest.warns(RepsimWarning, match="wpe .* follows no sample"):
                assert run() == ["wte", "out"], name


class TestSeveralCallsInForward:
    def test_are_numbered(self, tmp_path):
        net, data = two_layers(), list(zip(rows(16, 6), rows(16, 6, batches=6)[3:], strict=True))
        forward = {"forward": lambda m, b: (m(b[0]), m(b[1]))}
        result = compare(net, data=data, **forward, **quiet)
        assert layers_of(result) == ["0:0", "1:0", "0:1", "1:1"]
        first = compare(net, data=[x for x, _ in data], **quiet)
        np.testing.assert_allclose(
            result.cka.sel(layer_x="0:0", layer_y="1:0"), first.cka.sel(layer_x="0", layer_y="1")
        )
        stored = repsim.extract(net, data, out=tmp_path / "a.zarr", **forward, **quiet)
        np.testing.assert_array_equal(stored["0:1"][:16].values, net[0](data[0][1]).detach())
        # Outside of an analysis a call replaces the one before.
        with repsim.Recorder(net) as rec:
            net(data[0][0])
            net(data[0][1])
        assert list(rec) == ["0", "1"]

    def test_the_prompt_of_generate_is_its_first_call(self):
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, eos_token_id=None, bos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        net = transformers.LlamaForCausalLM(config).eval()
        data = [{"input_ids": ids.clamp(min=1)} for ids in tokens(8, 5)]
        layers = ["model.layers.0", "model.layers.1"]
        plain = compare(net, data=data, layers=layers, **quiet)
        generated = compare(
            net, data=data, layers=layers, **quiet,
            forward=lambda m, b: m.generate(**b, max_new_tokens=2, do_sample=False),
        )  # fmt: skip
        assert layers_of(generated) == [f"{layer}:{call}" for call in (0, 1) for layer in layers]
        np.testing.assert_allclose(generated.cka.values[:2, :2], plain.cka.values, rtol=1e-4)


class TestLayersThatAreNotFinite:
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.scores, self.out = nn.Linear(6, 6), Copy(), nn.Linear(6, 5)

        def forward(self, x):
            mask = torch.full((6, 6), -torch.inf).triu(1)
            weights = self.scores(self.q(x)[:, :, None] * x[:, None] + mask).softmax(-1)
            return self.out((weights @ x[:, :, None])[..., 0])

    def test_are_left_out_under_a_glob(self, tmp_path):
        net, data = self.Masked(), rows(16, 6)
        with pytest.warns(RepsimWarning, match="scores has NaN or infinity"):
            assert layers_of(compare(net, data=data, **quiet)) == ["q", "out"]
        with pytest.warns(RepsimWarning, match="scores has NaN or infinity"):
            assert list(repsim.extract(net, data, out=tmp_path / "a", **quiet)) == ["q", "out"]
        with pytest.raises(repsim.NonFiniteError, match="'scores'"):
            compare(net, data=data, layers=["q", "scores"], **quiet)

    def test_an_error_is_raised_if_all_are(self):
        with pytest.raises(repsim.NonFiniteError, match="batch 0"):
            compare(two_layers(), data=[x / 0 for x in rows(16, 6)], **quiet)


class TestLayersThatChange:
    """A fresh store has no other call to blame."""

    def test_width(self, tmp_path):
        net = nn.Sequential(nn.ReLU())
        with pytest.raises(
            InputError, match=r"layer '0': \(5,\) float32 in the first batch\n  \(7,\) .* batch 1"
        ):
            repsim.extract(net, [*rows(8, 5), *rows(8, 7)][2:], out=tmp_path / "a", **quiet)

    def test_length_of_texts(self, tmp_path):
        texts = [*tokens(8, 5), *tokens(8, 7)]
        options = {"layers": ["wte", "out"], **quiet}
        with pytest.raises(InputError, match=r"layer 'wte': \(5, 8\)(.|\n)*samples=\"tokens\""):
            repsim.extract(Text(), texts, out=tmp_path / "a", **options)
        stored = repsim.extract(Text(), texts, out=tmp_path / "b", transform="mean", **options)
        assert stored.sizes["sample"] == 48

    def test_a_layer_that_skips_a_batch(self, tmp_path):
        class Skipping(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 5)

            def forward(self, x):
                y = self.a(x)
                return self.b(y) if x[0, 0] > -5 else y

        data = rows(16, 6)
        data[1][0, 0] = -9.0
        with pytest.raises(CaptureError, match=r"batch 1 \(counted from 0\): without \['b'\]"):
            repsim.extract(Skipping(), data, out=tmp_path / "a", **quiet)


class TestTooFewSamples:
    def test_are_reported_at_the_first_batches(self):
        seen = []

        def short():
            for x in rows(3, 6, batches=20):
                seen.append(x)
                yield x

        for analysis in (
            lambda data: compare(two_layers(), data=data, **quiet),
            lambda data: repsim.data_scale(
                {0.5: two_layers()}, two_layers(), data, layers="*", **quiet
            ),
        ):
            seen.clear()
            with pytest.raises(InputError, match=r"at least 4 samples.\n  the first 4 have fewer"):
                analysis(short())
            assert len(seen) == 4

    def test_a_short_beginning_is_no_error(self):
        data = [*rows(2, 6), *rows(16, 6)]
        with pytest.warns(RepsimWarning, match="fewer than 4"):
            assert compare(two_layers(), data=data, **quiet).attrs["n_samples"] == 48


class TestTheModelIsAsFound:
    def test_random_state_buffers_and_cached_tensors_come_back(self):
        class Stateful(nn.Module):
            """Its state must have as many rows as the batch after."""

            def __init__(self):
                super().__init__()
                self.a, self.state, self.calls = nn.Linear(6, 5), None, 0
                self.register_buffer("seen", torch.zeros(()))
                self.ready, self.scale = False, 1.0

            def forward(self, x):
                self.calls += 1
                self.seen += len(x)
                if not self.ready:  # a scale of the first batch
                    self.ready, self.scale = True, float(x.std())
                h = self.a(x / self.scale) + torch.rand(len(x), 1)
                h = h if self.state is None else h + self.state
                self.state = h.detach()
                return h

        def run(**options):
            torch.manual_seed(0)
            net = Stateful()
            return net, compare(net, data=rows(16, 6), **options, **quiet)

        net, result = run()
        assert (net.calls, net.seen.item(), net.state.shape) == (3, 48, (16, 5))
        _, declared = run(batch_dim=0)  # nothing to find
        np.testing.assert_array_equal(result.cka.values, declared.cka.values)
        assert not net.a._forward_hooks
        assert not net._forward_pre_hooks


class Experts(nn.Module):
    """Each token goes to the expert of its first number, as in Switch Transformers."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.experts, self.out = nn.ModuleList(nn.Linear(3, 4) for _ in range(count)), Copy()

    def forward(self, x):
        y = x.new_zeros(*x.shape[:2], 4)
        for number, expert in enumerate(self.experts):
            chosen = x[..., 0] == number
            if chosen.any():
                y[chosen] = expert(x[chosen])
        return self.out(y)


def test_tokens_of_experts_are_not_samples():
    """Expert 0 gets five tokens of five samples, and one of each of the first three by accident.

    Expert 3 gets five tokens too, and none of the first three samples.
    """
    x = rows(5, 6, 3)
    for batch in x:
        batch[..., 0] = 2
        batch[0, :2, 0] = batch[1, :3, 0] = batch[2, 0, 0] = 1  # not as many of each sample
        batch[:3, 5, 0] = batch[3, :2, 0] = 0
        batch[4, :5, 0] = 3
    model = Experts(4)
    with pytest.warns(RepsimWarning, match=r"experts.0 \(5, 4\) follows no sample"):
        assert layers_of(compare(model, data=x, **quiet)) == ["out"]
    # Two experts that complement each other: two tokens a sample on average, in each forward.
    pair = rows(5, 4, 3)
    for batch in pair:
        for sample, count in zip(batch, (1, 3, 2, 1, 3), strict=True):
            sample[:, 0] = torch.arange(4) >= count
    with pytest.warns(
        RepsimWarning, match=r"experts.0 \(10, 4\): which of 2 rows are of one sample"
    ):
        assert layers_of(compare(Experts(2), data=pair, **quiet)) == ["out"]
    # If every sample has as many tokens for each expert, these are its rows.
    for batch in x:
        batch[..., 0] = torch.tensor([0.0, 0, 1, 2, 3, 3])
    found = compare(model, data=x, **quiet)
    assert layers_of(found) == ["experts.0", "experts.1", "experts.2", "experts.3", "out"]


def test_a_layer_that_runs_once_for_each_sample_is_not_left_out_silently():
    class Each(nn.Module):
        def __init__(self):
            super().__init__()
            self.each, self.out = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.out(torch.cat([self.each(row[None]) for row in x]))

    with pytest.warns(RepsimWarning, match=r"each \(1, 4\) follows no sample") as caught:
        assert layers_of(compare(Each(), data=rows(5, 6), **quiet)) == ["out"]
    assert len(caught) == 1
    assert str(caught[0].message).count("each (1, 4)") == 1
