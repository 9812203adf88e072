"""Every analysis on the emulated device: the values of the CPU, and no wait inside the loop.

The values differ by rounding, because torch has faster ways for tensors in main memory (attention
in one kernel), and because repsim reads values there to choose the cheapest exact way to a Gram.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import repsim
from emulated.models import Batches, bert, images, labelled, resnet, texts, vit

CONVOLUTIONS, BLOCKS = ["layer1", "layer2"], ["blocks.0", "blocks.1"]
TEXT = ["encoder.layer.0", "encoder.layer.1"]
PICTURES = {"layers": CONVOLUTIONS, "layers_y": BLOCKS}


class Run:
    """Where models run, and the data that they were given."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.given: list[Batches] = []

    def model(self, model: Any) -> Any:
        return model.to(self.device)

    def data(self, batches: list[Any]) -> Batches:
        self.given.append(Batches(batches))
        return self.given[-1]


Case = Callable[[Run], Any]


def compare(**options: Any) -> Case:
    return lambda run: repsim.compare(
        run.model(resnet()), run.model(vit()), run.data(images()), progress=False, **options
    )


def compare_texts(**options: Any) -> Case:
    return lambda run: repsim.compare(
        run.model(bert()), data=run.data(texts()), progress=False, **options
    )


def of_one(analysis: Any, model: Any, data: Any, **options: Any) -> Case:
    return lambda run: analysis(run.model(model()), run.data(data()), progress=False, **options)


def probe(model: Any, data: Any, **options: Any) -> Case:
    return lambda run: repsim.linear_probe(
        run.model(model()), run.data(data()), run.data(data()), progress=False, **options
    )


def stitch(model: Any, layer: str, data: Any, **options: Any) -> Case:
    return lambda run: repsim.stitch(
        run.model(model(1)), layer, run.model(model()), layer, run.data(data()),
        fit=run.data(data()), progress=False, **options,
    )  # fmt: skip


def heads(run: Run) -> Any:
    return repsim.head_subset_cka(
        run.model(vit()), run.model(resnet()), run.data(images()), layer="blocks.1.attn",
        layers_y=CONVOLUTIONS, progress=False,
    )  # fmt: skip


def data_scale(run: Run) -> Any:
    models = {0.1: run.model(vit(1)), 1.0: run.model(vit(2))}
    return repsim.data_scale(
        models, run.model(vit()), run.data(images()), layers=BLOCKS, progress=False
    )


def trajectory(**options: Any) -> Case:
    return lambda run: repsim.trajectory(
        {step: run.model(vit(step)) for step in (0, 1, 2)}, run.data(images()), layers=BLOCKS,
        progress=False, **options,
    )  # fmt: skip


CASES: dict[str, Case] = {
    "compare": compare(),
    "compare, rbf": compare(kernel="rbf", **PICTURES),
    "compare, z-scores": compare(z_scores=True, **PICTURES),
    "compare, texts": compare_texts(transform="mean"),
    "compare, last tokens": compare_texts(transform="last", layers=TEXT),
    "compare, tokens": compare_texts(samples="tokens", layers=TEXT),
    "compare, tokens of other texts": compare_texts(
        samples="tokens", pairs="between", max_samples=30, layers=TEXT
    ),
    "linear_probe": probe(vit, labelled, layers=BLOCKS),
    "linear_probe, each": probe(resnet, labelled, layers=["layer3"], tokens=["mean", "each"]),
    "linear_probe, texts": probe(
        bert, lambda: texts(labels=True), layers=TEXT, tokens="all", n_classes=3
    ),
    "attention_distance": of_one(repsim.attention_distance, vit, images),
    "attention_distance, texts": of_one(repsim.attention_distance, bert, texts),
    "head_subset_cka": heads,
    "residual_ratios": of_one(repsim.residual_ratios, vit, images),
    "residual_ratios, maps": of_one(repsim.residual_ratios, resnet, images),
    "residual_ratios, texts": of_one(repsim.residual_ratios, bert, texts),
    "block_influence": of_one(repsim.block_influence, vit, images),
    "block_influence, texts": of_one(repsim.block_influence, bert, texts, tokens="last"),
    "effective_receptive_field": of_one(
        repsim.effective_receptive_field, resnet, images, layers=CONVOLUTIONS, n_probes=2
    ),
    "effective_receptive_field, tokens": of_one(
        repsim.effective_receptive_field, vit, images, layers=BLOCKS, n_probes=2
    ),
    "token_localization": of_one(repsim.token_localization, vit, images, layers=BLOCKS),
    "token_localization, maps": of_one(
        repsim.token_localization, resnet, images, layers=["layer1"], patches=2
    ),
    "data_scale": data_scale,
    "trajectory": trajectory(),
    "stitch": stitch(vit, "blocks.0", images),
    "stitch, labels": stitch(resnet, "layer2", labelled, controls=["random"]),
    "stitch, texts": stitch(
        bert,
        TEXT[0],
        texts,
        controls=[],
        logits=lambda output: output.last_hidden_state[..., :3],
    ),
}


def alignment(run: Run) -> Any:
    return repsim.alignment(
        {"x": run.model(resnet()), "y": run.model(vit())}, data=run.data(images()), k=3,
        layers={"x": CONVOLUTIONS, "y": BLOCKS}, permutations=19, progress=False,
    )  # fmt: skip


def extract(folder: Any) -> Case:
    def case(run: Run) -> Any:
        out = folder / f"{run.device}.zarr"
        stored = repsim.extract(
            run.model(resnet()), run.data(images()), CONVOLUTIONS, out=out, progress=False
        )
        return stored[CONVOLUTIONS].load()

    return case


def on_both(case: Case) -> tuple[Any, Any, list[Batches]]:
    """The result of the CPU, that of the device, and the batches that it was given there."""
    near, far = Run("cpu"), Run("sim")
    results = case(near), case(far)
    assert far.given
    assert all(len(each.waits) == len(each) for each in far.given)
    return *results, far.given


def agree(near: Any, far: Any) -> None:
    assert list(near.data_vars) == list(far.data_vars)
    numbers = {name for name, values in near.data_vars.items() if values.dtype.kind in "fiub"}
    assert any(np.isfinite(near[name]).any() for name in numbers)
    for name, values in near.data_vars.items():
        assert values.dtype == far[name].dtype
        if name in numbers:
            np.testing.assert_allclose(far[name], values, rtol=2e-6, atol=2e-6, err_msg=str(name))
        else:
            np.testing.assert_array_equal(far[name], values)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_as_on_the_cpu_without_waiting(name):
    near, far, given = on_both(CASES[name])
    agree(near, far)
    for batches in given:  # during the first one, models are asked where their samples are
        assert batches.waits[1:] == [[]] * (len(batches) - 1)


@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_a_mask_that_the_forward_changes_is_read_again():
    def forward(model: Any, batch: Any) -> None:
        batch["attention_mask"][:, 5:] = 0
        model(**batch)

    near, far, given = on_both(
        compare_texts(samples="tokens", layers=TEXT, batch_size=8, forward=forward)
    )
    assert far.attrs["n_samples"] == 5 * sum(map(len, (b["input_ids"] for b in given[0].data)))
    agree(near, far)
    for waits in given[0].waits[1:]:
        assert all("values_of:" in wait for wait in waits)
        assert waits


class FarRun(Run):
    """Data that are on the device from the start."""

    def data(self, batches: list[Any]) -> Batches:
        def moved(batch: Any) -> Any:
            if isinstance(batch, dict):
                return {name: x.to(self.device) for name, x in batch.items()}
            if isinstance(batch, tuple):
                return tuple(x.to(self.device) for x in batch)
            return batch.to(self.device)

        return super().data([moved(batch) for batch in batches])


@pytest.mark.parametrize(
    ("name", "reads"),
    [
        ("compare", 0),
        ("compare, tokens", 1),
        ("linear_probe, texts", 2),
        ("attention_distance, texts", 1),
        ("token_localization", 0),
        ("stitch, labels", 1),
    ],
)
@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_masks_and_labels_that_are_on_the_device_are_read_once(name, reads):
    far = FarRun("sim")
    CASES[name](far)
    for batches in far.given:
        for waits in batches.waits[1:]:
            assert len(waits) == reads
            assert all("values_of:" in wait for wait in waits)


KEEPING: dict[str, tuple[Callable[[Any], Case], int]] = {
    "compare, mutual_knn": (lambda _: compare(measure="mutual_knn", k=3, **PICTURES), 4),
    "extract": (extract, 2),
    "alignment": (lambda _: alignment, 4),
    "trajectory, mutual_knn": (lambda _: trajectory(measure="mutual_knn", k=3), 6),
}
"""Analyses that keep features in main memory or on disk, and their number of layers."""


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_features_are_copied_once(name, tmp_path):
    case, layers = KEEPING[name]
    near, far, given = on_both(case(tmp_path))
    agree(near, far)
    for batches in given:
        for waits in batches.waits[1:]:
            assert len(waits) == layers
            assert len(set(waits)) == 1
            assert 'to("cpu"' in waits[0]


def test_every_analysis_of_models_has_a_case():
    analyses = {
        name
        for name in repsim.analysis.__all__
        if {"data", "train"} & signature(getattr(repsim.analysis, name)).keys()
    }
    known = {name.partition(",")[0] for name in (*CASES, *KEEPING)}
    assert "compare" in analyses
    assert analyses - {"probe_activations"} == known  # it takes no model; see on_arrays.py


def signature(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)
