"""A warning points at the line of the caller, through our own frames and torch's."""

import _thread
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim import DegenerateWarning, RepsimWarning

constant = np.ones((6, 3))
varied = np.random.default_rng(0).standard_normal((6, 3))


def single_batch():
    repsim.compare(nn.Sequential(nn.Linear(3, 2)), data=[torch.randn(8, 3)], progress=False)


def one_batch_of_an_accumulator():
    accumulator = repsim.MinibatchCKA()
    accumulator.update({"a": varied})
    accumulator.standard_error()


def short_batch():
    accumulator = repsim.MinibatchCKA()
    for rows in (6, 3):
        accumulator.update({"a": varied[:rows]})
    accumulator.compute()


def constant_array():
    repsim.cka(constant, varied)


def tokens_first():
    net = nn.Sequential(nn.Linear(3, 2), nn.Flatten(0, 1))
    with repsim.Recorder(net, "*"):
        net(torch.randn(4, 5, 3))


class OfTexts(nn.Module):
    """Its forward is code between our call of the model and our hooks."""

    def __init__(self):
        super().__init__()
        self.words, self.block = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, input_ids, attention_mask):
        return self.block(self.words(input_ids))


def padding_in_a_model():
    mask = (torch.arange(6) < torch.tensor([[3], [4], [5], [6]])).long()
    data = [{"input_ids": torch.randint(9, (4, 6)), "attention_mask": mask} for _ in range(2)]
    repsim.compare(OfTexts(), data=data, progress=False)


@pytest.mark.parametrize(
    "act",
    [
        single_batch,
        one_batch_of_an_accumulator,
        short_batch,
        constant_array,
        tokens_first,
        padding_in_a_model,
    ],
)
def test_it_points_at_the_caller(act):
    with pytest.warns(RepsimWarning) as caught:
        act()
    assert {warning.filename for warning in caught} == {__file__}
    first, last = act.__code__.co_firstlineno, max(n for *_, n in act.__code__.co_lines() if n)
    assert all(first < warning.lineno <= last for warning in caught)


def test_from_a_frame_without_a_caller():
    """Threads of the interpreter, and programs that embed it, call us from C."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _thread.start_new_thread(repsim.cka, (constant, varied))
        until = time.monotonic() + 10
        while not caught and time.monotonic() < until:
            time.sleep(0.001)
    assert [warning.category for warning in caught] == [DegenerateWarning]
    assert "x is constant" in str(caught[0].message)


def test_the_category_is_kept():
    with pytest.warns(DegenerateWarning):
        constant_array()
