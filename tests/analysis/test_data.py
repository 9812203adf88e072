"""``compare`` takes any iterable of batches, and reads all of it once in each pass."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import (
    Counted,
    Shuffled,
    agrees,
    inputs,
    net,
    reference,
    unchanged,
)
from repsim import InputError, compare
from repsim.kernels import RBF

quiet = {"progress": False}


def matrix(model_x, model_y, batches, **options):
    return compare(model_x, model_y, data=batches, **quiet, **options).cka


@pytest.mark.parametrize("make", [list, tuple, iter], ids=["list", "tuple", "iterator"])
def test_any_iterable(make):
    x, y, data = net(), net(seed=1), inputs()
    result = compare(x, y, data=make(data), **quiet)
    agrees(result, *reference(x, y, data))


def test_a_loader_of_pairs():
    x, y, data = net(), net(seed=1), inputs()
    rows = torch.cat(data)
    dataset = torch.utils.data.TensorDataset(rows, torch.arange(len(rows)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=8)
    agrees(compare(x, y, data=loader, **quiet), *reference(x, y, data))
    agrees(compare(x, y, data=[[b, None] for b in data], **quiet), *reference(x, y, data))


def test_a_loader_that_does_not_know_its_length():
    """A stream: ``len(loader)`` exists and raises."""

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from torch.cat(inputs())

    loader = torch.utils.data.DataLoader(Stream(), batch_size=8)
    x, y = net(), net(seed=1)
    for progress in (False, True):
        result = compare(x, y, data=loader, progress=progress)
        agrees(result, *reference(x, y, inputs()))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, left, *, right, scale=1.0):
        return self.a(left) * scale + self.b(right)


def test_a_mapping_is_passed_whole():
    model = TwoInputs()
    data = [
        {"left": a, "right": b, "scale": 2.0} for a, b in zip(inputs(), inputs(seed=2), strict=True)
    ]
    expected = reference(model, model, data, lambda m, b: m(**b), size=lambda b: len(b["left"]))
    agrees(compare(model, data=data, **quiet), *expected)


def test_a_hugging_face_batch():
    transformers = pytest.importorskip("transformers")
    model, data = (
        TwoInputs(),
        [dict(zip(("left", "right"), inputs(2, seed=s), strict=True)) for s in (1, 2)],
    )
    wrapped = [transformers.BatchEncoding(batch) for batch in data]
    np.testing.assert_array_equal(
        matrix(model, None, wrapped).values, matrix(model, None, data).values
    )


def test_items_of_a_batch_keep_their_class():
    """Outputs of another model have items that are attributes and numbered."""
    transformers = pytest.importorskip("transformers")

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, found):
            return self.a(found[0]) + self.b(found.last_hidden_state)

    model, data = Decoder(), inputs()
    batches = [
        {"found": transformers.modeling_outputs.BaseModelOutput(last_hidden_state=x)} for x in data
    ]
    expected = reference(model, model, batches, lambda m, b: m(**b), size=lambda b: 8)
    agrees(compare(model, data=batches, **quiet), *expected)


def test_forward_for_anything_else():
    model, data = TwoInputs(), list(zip(inputs(), inputs(seed=2), strict=True))
    seen = []

    def forward(module, batch):
        seen.append((module, type(batch)))
        return module(batch[0], right=batch[1])

    result = compare(model, data=data, forward=forward, **quiet)
    agrees(result, *reference(model, model, data, forward, size=lambda b: len(b[0])))
    assert seen == [(model, tuple)] * 4 + seen[4:]


def test_forward_may_call_a_part_of_the_model():
    x, data = net(), inputs()
    outer = Counted(x)
    result = compare(outer, data=data, forward=lambda m, b: m.inner(b), layers="inner.*", **quiet)
    assert outer.forwards == 0
    np.testing.assert_array_equal(result.cka.values, matrix(x, None, data).values)


def test_prepare_gives_each_model_its_own_batch():
    x, y, data = net(), net(seed=1, width=3), inputs()
    result = compare(x, y, data=data, prepare_y=lambda b: b[:, :3] * 2, **quiet)
    agrees(result, *reference(x, y, data, call_y=lambda m, b: m(b[:, :3] * 2)))
    result = compare(y, x, data=data, prepare_x=lambda b: b[:, :3] * 2, **quiet)
    agrees(result, *reference(y, x, data, lambda m, b: m(b[:, :3] * 2), lambda m, b: m(b)))


def test_prepare_comes_before_forward():
    x, data = net(), [{"pixels": b} for b in inputs()]
    result = compare(
        x, data=data, prepare_x=lambda b: (b["pixels"],), forward=lambda m, b: m(b[0]), **quiet
    )
    np.testing.assert_array_equal(result.cka.values, matrix(x, None, inputs()).values)


def test_prepare_y_without_a_second_model():
    """The same model on two inputs, such as clean and noisy ones; it must not run on one alone."""
    x, data = net(), inputs()
    result = compare(x, data=data, prepare_y=torch.flipud, **quiet)
    agrees(result, *reference(x, x, data, call_y=lambda m, b: m(torch.flipud(b))))


def test_every_batch_counts():
    x, data = net(), inputs(8)
    whole = matrix(x, None, data).values
    replaced = [*inputs(6, seed=9), *data[6:]]
    assert np.abs(whole - matrix(x, None, replaced).values).max() > 0.01
    for b in range(8):
        others = [*data[:b], inputs(1, seed=7)[0], *data[b + 1 :]]
        assert np.abs(whole - matrix(x, None, others).values).max() > 1e-4


def test_a_short_last_batch_is_reported():
    x, y, data = net(), net(seed=1), [*inputs(), inputs(1, 3, seed=5)[0]]
    with pytest.warns(repsim.RepsimWarning, match=r"1 batch\(es\) of fewer than 4") as caught:
        result = compare(x, y, data=data, **quiet)
    assert len(caught) == 1
    agrees(result, *reference(x, y, data))
    assert result.attrs["n_skipped_batches"] == 1
    assert result.attrs["n_skipped_samples"] == 3
    assert result.attrs["n_samples"] == 32


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "kernel", ["linear", "rbf", "laplacian", RBF(0.5, "off_diagonal")], ids=str
)
def test_a_short_first_batch_is_no_pilot(kernel, n):
    x, data = net(), inputs()
    expected = matrix(x, None, data, kernel=kernel).values
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        result = matrix(x, None, [inputs(1, n, seed=5)[0], *data], kernel=kernel).values
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_only_short_batches():
    with pytest.raises(repsim.StateError, match="got 2 batches with 6 samples"):
        compare(net(), data=inputs(2, 3), **quiet)


def test_batches_of_different_sizes():
    x, y = net(), net(seed=1)
    data = [inputs(1, n, seed=n)[0] for n in (4, 9, 16, 5)]
    agrees(compare(x, y, data=data, **quiet), *reference(x, y, data))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "no batch in pass 1"),
        (iter([]), "no batch in pass 1"),
        (torch.zeros(8, 6), "iterable of batches.\n  got Tensor"),
        ({"input": torch.zeros(8, 6)}, "iterable of batches.\n  got dict"),
        (None, "iterable of batches.\n  got NoneType"),
        (7, "iterable of batches.\n  got int"),
        ("images/", "iterable of batches.\n  got str"),
        ([np.zeros((8, 6))], "a batch must be a tensor"),
        ([["a.png", "b.png"]], "a batch must be a tensor"),
        ([["one text", "another"]], r"Convert it with prepare_x= .* tokenizer\(list\(texts\)"),
        ([[{"input": torch.zeros(6)}] * 8], "is dict, as are .*\n.*utils.data.default_collate"),
        ([({"input": torch.zeros(8, 6)},) * 2], "one mapping for each model by lambda two"),
        (["a text", "another"], "got a text in the place of a batch of texts"),
        ([{"id": 1, "image": torch.zeros(8, 6)}], r"holds 'id', 'image'\n.*\n.*batch\['image'\]"),
        ([{7: torch.zeros(8, 6)}], r"Sequential does not take these.\n  the batch holds 7\n"),
        ([[]], "a batch must be a tensor"),
        ([None], "a batch must be a tensor"),
    ],
)
def test_data_that_are_no_batches(data, says):
    model = net()
    with unchanged(model), pytest.raises(InputError, match=says):
        compare(model, data=data, **quiet)


def test_an_error_inside_a_model_that_takes_the_batch_is_its_own():
    class Failing(nn.Module):
        def forward(self, image):
            return image["no mapping"]

    with pytest.raises(TypeError, match="indices"):
        compare(nn.Sequential(Failing()), data=[{"input": [1, 2]}], **quiet)


def test_a_mapping_beside_its_label_is_the_mapping():
    x, y = net(), net(seed=1)
    alone = [{"input": each} for each in inputs()]
    labels = torch.arange(len(alone[0]["input"])) % 2
    labelled = [{**each, "label": labels} for each in alone]
    loader = torch.utils.data.DataLoader(
        [({"input": x}, label) for each in inputs() for x, label in zip(each, labels, strict=True)],
        batch_size=len(labels),
    )
    probed = repsim.linear_probe(x, labelled, labelled, layers="0", n_classes=2, **quiet)
    stitched = repsim.stitch(x, "0", y, "0", labelled, **quiet)
    for data in ([(each, labels) for each in alone], loader):
        assert compare(x, y, data=data, **quiet).cka.equals(compare(x, y, data=alone, **quiet).cka)
        found = repsim.linear_probe(x, data, data, layers="0", n_classes=2, **quiet)
        assert found.accuracy.equals(probed.accuracy)
        assert repsim.stitch(x, "0", y, "0", data, **quiet).equals(stitched)


def test_lists_in_a_mapping_are_named_beside_the_error_of_the_model():
    with pytest.raises(TypeError) as caught:
        compare(net(), data=[{"input": [[0.0] * 6] * 8}], **quiet)
    assert "'input'. A tokeniser returns tensors with" in caught.value.__notes__[0]


def test_an_error_of_a_model_says_which_model_and_what_it_got():
    for data in ([torch.ones(8, 7)], [(torch.ones(8, 7), 0)], [{"input": torch.ones(8, 7)}]):
        with pytest.raises(RuntimeError, match="shapes") as caught:
            compare(net(), data=data, **quiet)
        (note,) = caught.value.__notes__
        assert note.startswith("repsim: in a forward of Sequential, given ")
        assert "(8, 7) of torch.float32" in note


def test_an_error_of_a_function_of_the_caller_says_which_function_and_what_it_got():
    def wrong(*given):
        return given[-1]["image"]

    for option, name in (
        ({"prepare_x": wrong}, "prepare_x= and prepare_y="),
        ({"forward": wrong}, "forward="),
        ({"sample_ids": wrong}, "sample_ids="),
    ):
        with pytest.raises(TypeError) as caught:
            compare(net(), data=[(torch.ones(8, 6), 0)], **option, **quiet)
        (note,) = caught.value.__notes__
        assert note == f"repsim: in {name}, given tuple of an array (8, 6) of torch.float32, 0"


def test_names_of_models_are_no_models():
    with pytest.raises(
        InputError, match=r"model_x must be a torch.nn.Module.\n  got str\n  Load it"
    ):
        compare("gpt2", net(), data=[], **quiet)


def test_a_batch_without_samples():
    # it was a division by zero, an assertion or an error of torch, or counted for nothing
    x, y, batch = net(), net(seed=1), inputs()[0]
    calls = [
        lambda data: compare(x, y, data=data, **quiet),
        lambda data: compare(x, y, data=data, measure="nbs", **quiet),
        lambda data: repsim.trajectory({0: x, 1: y}, data, **quiet),
        lambda data: repsim.stitch(x, "0", y, "0", data, **quiet),
    ]
    pairs = [(each, torch.zeros(len(each), dtype=torch.long)) for each in (batch, batch[:0])]
    for data in ([batch, batch[:0]], pairs, [{"input": batch}, {"input": batch[:0]}]):
        for call in calls:
            with pytest.raises(InputError, match=r"must have samples\.\n  batch 1 "):
                call(data)


def test_no_data_at_all():
    with pytest.raises(InputError, match="data"):
        compare(net(), **quiet)


def test_the_loader_in_the_place_of_the_second_model():
    with pytest.raises(InputError, match="data go by keyword"):
        compare(net(), inputs(), **quiet)
    with pytest.raises(InputError, match="model_x must be"):
        compare("resnet18", data=inputs(), **quiet)


def test_one_iteration_serves_both_models():
    """A shuffling loader iterated twice would pair different samples."""
    rows = torch.cat(inputs(8))
    loader = Shuffled(rows, 8)
    x = net()
    result = compare(x, copy.deepcopy(x), data=loader, **quiet)
    assert loader.iterations == 1
    np.testing.assert_allclose(np.diagonal(result.cka.values), 1, atol=1e-9)
    loader = Shuffled(rows, 8)
    compare(x, net(seed=1), data=loader, passes=3, **quiet)
    assert loader.iterations == 3


def test_reshuffled_passes_converge_to_the_value_of_all_data():
    rows = torch.cat(inputs(5))
    x, y = net(), net(seed=1)
    _, _, full = reference(x, y, [rows])
    errors = {
        passes: np.mean(
            [
                np.abs(matrix(x, y, Shuffled(rows, 8, seed), passes=passes).values - full).max()
                for seed in range(seeds)
            ]
        )
        for passes, seeds in ((1, 6), (40, 1))
    }
    assert errors[40] < 0.4 * errors[1]
    assert errors[40] < 0.06


def test_a_shuffling_loader_gives_other_batches_in_every_pass():
    rows = torch.cat(inputs(5))
    loader = torch.utils.data.DataLoader(rows, batch_size=8, shuffle=True)
    x = net()
    with unchanged(x):
        result = compare(x, data=loader, passes=2, **quiet)  # no warning
    assert result.attrs["passes"] == 2
    assert result.attrs["n_samples"] == 80
    assert result.attrs["n_batches"] == 10


def test_passes_over_the_same_batches_warn():
    x, data = net(), inputs()
    with pytest.warns(repsim.RepsimWarning, match="all 3 passes saw the same") as caught:
        result = compare(x, data=data, passes=3, **quiet)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(result.cka.values, matrix(x, None, data).values, rtol=1e-12)


def test_the_standard_error_of_passes_is_that_of_one():
    rows, x, y = torch.cat(inputs(6)), net(), net(seed=1)
    loader = Shuffled(rows, 8)
    order = torch.Generator().manual_seed(0)
    each = []
    for _ in range(3):
        batches = rows[torch.randperm(48, generator=order)].split(8)
        each.append(compare(x, y, data=list(batches), **quiet))
    result = compare(x, y, data=loader, passes=3, **quiet)
    expected = np.sqrt(np.mean([e.standard_error.values**2 for e in each], axis=0))
    np.testing.assert_allclose(result.standard_error.values, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(result.cka.values - np.mean([e.cka.values for e in each], axis=0)).max() < 0.1


def test_a_generator_can_be_iterated_once():
    with pytest.raises(InputError, match=r"only once, and passes=2.\n  got generator"):
        compare(net(), data=(b for b in inputs()), passes=2, **quiet)


@pytest.mark.parametrize("passes", [0, -1, 1.5, "2", None])
def test_passes_must_be_a_positive_integer(passes):
    with pytest.raises(InputError, match="passes must be a positive integer"):
        compare(net(), data=inputs(), passes=passes, **quiet)


def test_a_later_pass_without_batches():
    class Once:
        def __init__(self):
            self.left = [inputs(), []]

        def __iter__(self):
            return iter(self.left.pop(0))

    with pytest.raises(InputError, match="no batch in pass 2"):
        compare(net(), data=Once(), passes=2, **quiet)


def test_data_are_left_at_once_when_an_analysis_fails(tmp_path):
    """Otherwise the workers of a loader would live as long as the error is kept."""

    class Stream:
        def __init__(self):
            self.open = 0

        def __iter__(self):
            self.open += 1
            try:
                for labels in (torch.tensor([0, 1, 0, 1]),) * 3:
                    yield torch.randn(4, 3, 8, 8), labels
            finally:
                self.open -= 1

    class Fails(nn.Sequential):
        def forward(self, images):
            raise RuntimeError("broken")

    model, stream = Fails(nn.Conv2d(3, 4, 3)), Stream()
    for analysis in (
        lambda: compare(model, data=stream, **quiet),
        lambda: repsim.extract(model, stream, out=tmp_path / "run.zarr", **quiet),
        lambda: repsim.data_scale({0.1: model}, model, stream, layers="*", **quiet),
        lambda: repsim.linear_probe(model, stream, stream, layers="*", **quiet),
        lambda: repsim.residual_ratios(model, stream, **quiet),
        lambda: repsim.token_localization(model, stream, layers="*", **quiet),
        lambda: repsim.effective_receptive_field(model, stream, layers="*", **quiet),
    ):
        with pytest.raises(RuntimeError, match="broken") as kept:
            analysis()
        assert stream.open == 0, kept


def test_passes_are_logged(caplog):
    caplog.set_level(logging.INFO, "repsim")
    compare(net(), data=Shuffled(torch.cat(inputs(5)), 8), passes=2, **quiet)
    lines = [record.getMessage() for record in caplog.records]
    assert "compare: pass 1 of 2 over the data" in lines
    assert [line for line in lines if line.startswith("compare: 5 batches in ")]
