"""Reducers: what they compute, and which shapes they refuse."""

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
