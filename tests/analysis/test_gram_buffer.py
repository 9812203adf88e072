"""Grams lie where those of the batch before lay."""

import torch

from repsim.analysis.maps._gram_buffer import BLOCK_BYTES, GramBuffer


def fill(buffer, count, n=8, dtype=torch.float32):
    grams = [torch.full((n, n), float(i), dtype=dtype) for i in range(count)]
    return [buffer.keep(gram) for gram in grams]


def test_values_hold_until_they_are_forgotten():
    buffer = GramBuffer()
    many = BLOCK_BYTES // (4 * 256 * 256) + 3  # more than one block
    kept = fill(buffer, many, n=256)
    assert [int(gram[0, -1]) for gram in kept] == list(range(many))
    assert all((gram == i).all() for i, gram in enumerate(kept))


def test_the_next_batch_takes_the_same_memory():
    buffer = GramBuffer()
    places = []
    for _ in range(3):
        places.append([gram.data_ptr() for gram in fill(buffer, 20)])
        assert len(set(places[-1])) == 20
        buffer.forget()
    assert places[0] == places[1] == places[2]


def test_a_gram_larger_than_a_block():
    buffer = GramBuffer()
    n = int((BLOCK_BYTES // 4) ** 0.5) + 1
    a, b = fill(buffer, 2, n=n)
    assert (a == 0).all()
    assert (b == 1).all()


def test_kinds_do_not_mix():
    buffer = GramBuffer()
    single, double, short = (
        fill(buffer, 2),
        fill(buffer, 2, dtype=torch.float64),
        fill(buffer, 2, n=3),
    )
    assert {gram.dtype for gram in double} == {torch.float64}
    for kept in (single, double, short):
        assert [int(gram[0, 0]) for gram in kept] == [0, 1]


def test_buffer_of_a_kind_that_no_longer_comes_is_given_back():
    buffer = GramBuffer()
    before = None
    for n in (8, 8, 3, 5, 7):
        buffer.forget()
        fill(buffer, 2, n=n)
        assert {shape[0] for shape, *_ in buffer._blocks} == {n, before or n}
        before = n
