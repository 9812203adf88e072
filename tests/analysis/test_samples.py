"""What the samples of a batch are: found by running the model on 2 and on 3 of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import repsim
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
        self.windows, self.out, self.apart = nn.Linear(4, 3), nn.Identity(), apart

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
        # Who insists gets it.
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
                self.patches, self.pooled = nn.Linear(6, 5), nn.Identity()

            def forward(self, pixel_values, grid_thw):
                x = self.patches(pixel_values)
                sizes = grid_thw.prod(1).tolist()
                return self.pooled(torch.stack([each.mean(0) for each in x.split(sizes)]))

        grid = torch.tensor([[1, 4, 4]] * 12)
        data = [{"pixel_values": x, "grid_thw": grid} for x in rows(192, 6)]
        result = compare(Packed(), data=data, **quiet)
        assert result.attrs["n_samples"] == 36
        assert layers_of(result) == ["patches", "pooled"]
        # Images of different sizes cannot be features of one length.
        uneven = torch.tensor([[1, 4, 4]] * 10 + [[1, 4, 2], [1, 4, 6]])
        data = [{"pixel_values": x, "grid_thw": uneven} for x in rows(192, 6)]
        with pytest.warns(RepsimWarning, match=r"patches \(192, 5\)"):
            result = compare(Packed(), data=data, batch_size=12, layers="p*", **quiet)
        assert layers_of(result) == ["pooled"]

    def test_the_nodes_of_graphs_ask(self):
        class Graphs(nn.Module):
            def __init__(self):
                super().__init__()
                self.nodes, self.pooled = nn.Linear(6, 5), nn.Identity()

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

    def test_a_model_that_refuses_few_samples_is_said_to(self):
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

    def test_a_batch_size_that_is_none(self):
        for wrong in (0, True, "16", 1.5):
            with pytest.raises(InputError, match="batch_size must be"):
                compare(two_layers(), data=rows(16, 6), batch_size=wrong, **quiet)
        with pytest.raises(InputError, match="batch_size must return"):
            compare(two_layers(), data=rows(16, 6), batch_size=lambda b: b.mean(), **quiet)


class TestEveryAnalysisAsks:
    """`wpe` has as many rows as the batch, and is taken by none."""

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


class TestTheModelIsAsFound:
    def test_random_state_buffers_and_what_forwards_keep(self):
        class Stateful(nn.Module):
            """Its state must have as many rows as the batch after."""

            def __init__(self):
                super().__init__()
                self.a, self.state, self.calls = nn.Linear(6, 5), None, 0
                self.register_buffer("seen", torch.zeros(()))

            def forward(self, x):
                self.calls += 1
                self.seen += len(x)
                h = self.a(x) + torch.rand(len(x), 1)
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
