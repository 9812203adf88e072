"""Reducers: what they compute, and which shapes they refuse."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from repsim import CaptureError, InputError
from repsim.capture import REDUCERS, Recorder, token

VECTOR, TOKENS, MAP = torch.randn(2, 5), torch.randn(2, 3, 5), torch.randn(2, 5, 3, 4)


@pytest.mark.parametrize(
    ("reducer", "x", "expected"),
    [
        (REDUCERS["flatten"], VECTOR[:, 0], VECTOR[:, :1]),
        (REDUCERS["flatten"], VECTOR, VECTOR),
        (REDUCERS["flatten"], TOKENS, TOKENS.reshape(2, 15)),
        (REDUCERS["flatten"], MAP, MAP.reshape(2, 60)),
        (REDUCERS["cls"], TOKENS, TOKENS[:, 0]),
        (REDUCERS["mean"], VECTOR, VECTOR),
        (REDUCERS["mean"], TOKENS, sum(TOKENS.unbind(1)) / 3),
        (REDUCERS["mean"], MAP, sum(MAP.flatten(2).unbind(2)) / 12),
        (partial(REDUCERS["mean"], features_first=False), MAP, MAP.mean((1, 2))),
        (partial(REDUCERS["mean"], features_first=True), TOKENS, TOKENS.mean(2)),
        (token(0), TOKENS, TOKENS[:, 0]),
        (token(-1), TOKENS, TOKENS[:, 2]),
    ],
)
def test_values(reducer, x, expected):
    torch.testing.assert_close(reducer(x), expected)


@pytest.mark.parametrize(
    ("reducer", "x"),
    [
        (REDUCERS["cls"], VECTOR),
        (REDUCERS["cls"], MAP),
        (REDUCERS["mean"], VECTOR[0]),
        (REDUCERS["mean"], MAP[None, None]),
        (token(1), VECTOR),
        (token(1), MAP),
        (token(3), TOKENS),
        (token(-4), TOKENS),
    ],
)
def test_other_shapes_are_refused(reducer, x):
    with pytest.raises(CaptureError, match=rf"\({', '.join(map(str, x.shape))},?\)"):
        reducer(x)


def test_in_a_recorder_the_error_names_the_layer():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with (
        Recorder(net, "0", transform="cls"),
        pytest.raises(CaptureError, match="cls: layer '0' returned"),
    ):
        net(torch.ones(2, 3, 8, 8))


def test_an_index_is_an_int():
    with pytest.raises(InputError, match="must be an int"):
        token("cls")


def test_the_table_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        REDUCERS["mine"] = REDUCERS["cls"]


def test_means_that_differ_by_rounding_alone_are_equal():
    """Norms of photographs in values up to 255 leave more than 64 roundings, and less than 128."""
    pictures = pytest.importorskip("sklearn.datasets").load_sample_images().images
    generator = np.random.default_rng(0)
    crops = []
    for picture in pictures * 64:
        row, column = (generator.integers(0, side - 15) for side in picture.shape[:2])
        crops.append(picture[row : row + 16, column : column + 16])
    maps = torch.tensor(np.stack(crops)).permute(0, 3, 1, 2).float()
    torch.manual_seed(1)
    with torch.no_grad():
        normed = nn.Sequential(nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16))(maps)
    mean = normed.mean((2, 3))
    spread = (mean - mean.mean(0)).abs() / normed[0].abs().amax((1, 2)) / torch.finfo().eps
    assert 64 < spread.max() < 128
    assert (REDUCERS["mean"](normed) == mean[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_half_precision_keep_their_digits(dtype):
    """With a mask or without: rounded to half precision, these means would be equal."""
    torch.manual_seed(0)
    tokens = (1 + 0.01 * torch.randn(4, 49, 5)).to(dtype)
    expected = tokens.double().mean(1)
    assert expected.to(dtype).unique().numel() < 12
    for mask in (None, torch.ones(4, 49, dtype=torch.bool)):
        found = REDUCERS["mean"](tokens, mask=mask)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_small_differences_of_means_are_data():
    """A spread of 1e-4 of the values is 840 roundings; in whole batches, and sample by sample."""
    torch.manual_seed(0)
    levels = 1 + 1e-4 * torch.randn(9, 5, 1)
    tokens = levels.transpose(1, 2).expand(9, 8, 5).contiguous()
    assert REDUCERS["mean"](tokens).unique().numel() == 45
    model = nn.Sequential(nn.Linear(5, 5))
    nn.init.eye_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    found = []
    with torch.no_grad(), Recorder(model, "0", transform="mean", mask=None) as recorder:
        for size in (4, 1, 1, 3):
            model(tokens[len(found) : len(found) + size])
            found += recorder["0"]
    torch.testing.assert_close(torch.stack(found), levels[..., 0], rtol=1e-6, atol=0)


def test_gradients_of_means_stay_in_their_batch():
    """Means that are equal to those of a batch before have the gradients of their own batch."""
    model, x = nn.Sequential(nn.Linear(3, 4)), torch.ones(2, 5, 3)
    with Recorder(model, "0", transform="mean", mask=None, detach=False) as recorder:
        for _ in range(2):
            model.zero_grad()
            model(x)
            recorder["0"].sum().backward()
            torch.testing.assert_close(model[0].bias.grad, torch.full((4,), 2.0))
