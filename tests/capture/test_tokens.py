"""The rules of token geometry, as a table: sizes in, grid, prefix and step out. No model runs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from torch import nn

from repsim.capture.tokens import (
    Convolution,
    Move,
    between_frames,
    declared_prefix,
    divided,
    grid_of_map,
    grid_of_sequence,
    grid_of_video,
    maps_of_image,
    prefix_of_sequence,
    real_in_windows,
    reduction,
    steps_of,
    tiles,
    video_of,
    window_of,
)


def chain(image, *links):
    """Convolutions one after the other, each (result, stride)."""
    out, source = [], image
    for result, stride in links:
        out.append(Convolution(source, result, (stride, stride)))
        source = result
    return out


SEQUENCES = {
    # name: (tokens, maps, caller's prefix, model's prefix) → (grid, prefix)
    "CLS, and a later map that is smaller": ((17, [(4, 4), (2, 2)], None, None), ((4, 4), 1)),
    "the same, as the model says": ((17, [(4, 4), (2, 2)], None, 1), ((4, 4), 1)),
    "before CLS is added": ((196, [(14, 14)], None, 1), ((14, 14), 0)),
    "four registers and CLS": ((201, [(14, 14)], None, None), ((14, 14), 5)),
    "sixteen are the most": ((32, [(4, 4)], None, None), ((4, 4), 16)),
    "seventeen are too many": ((33, [(4, 4)], None, None), None),
    "prompts of SAM, more than patches": ((15, [(4, 4), (2, 2)], None, None), None),
    "not what the model says": ((7, [(2, 2)], None, 1), None),
    "the caller knows": ((36, [(6, 6), (5, 5)], 11, None), ((5, 5), 11)),
    "of two equal areas the latest": ((36, [(4, 9), (6, 6)], None, None), ((6, 6), 0)),
    "patches merged by two": ((49, [(56, 56), (56, 56)], None, None), ((7, 7), 0)),
    "merged with a rest": ((169, [(25, 25)], None, None), ((13, 13), 0)),
    "merged thrice with a rest": ((16, [(25, 25)], None, None), ((4, 4), 0)),
    "a single token is pooled": ((1, [(4, 4)], None, None), None),
    "no map": ((17, [], None, 1), None),
}


def test_grid_and_prefix_of_a_sequence():
    for name, ((n, maps, prefix, declared), expected) in SEQUENCES.items():
        found = grid_of_sequence(n, maps, prefix=prefix, declared=declared)
        assert found == expected, name


def test_prefix_that_a_module_around_declares():
    plain, declaring, outer, odd = (nn.Identity() for _ in range(4))
    declaring.num_prefix_tokens, outer.num_prefix_tokens, odd.num_prefix_tokens = 5, 1, True
    assert declared_prefix([plain, odd, declaring, outer]) == 5
    assert declared_prefix([plain, odd]) is None


def test_prefix_where_the_grid_is_unknown():
    table = {
        "the caller knows": ((9, [(2, 2)], 3, None, None), 3),
        "more than there are": ((2, [(2, 2)], 3, None, None), None),
        "a module around, tokens dropped": ((9, [(4, 4)], None, None, 1), 1),
        "a module around, CLS alone": ((1, [(4, 4)], None, None, 1), 1),
        "a module around, before CLS is added": ((16, [(4, 4)], None, None, 1), 0),
        "a module around without any": ((16, [], None, 1, 0), 0),
        "parameters alone do not tell": ((9, [(2, 2)], None, 1, None), None),
        "text": ((9, [], None, None, None), None),
    }
    for name, ((n, maps, prefix, declared, around), expected) in table.items():
        found = prefix_of_sequence(n, maps, prefix=prefix, declared=declared, around=around)
        assert found == expected, name


STEPS = {
    # name: (map, image, convolutions) → pixels
    "the stride, not the image over the map": (
        ((25, 25), (100, 100), chain((100, 100), ((25, 25), 4))), 4,
    ),
    "merged with a rest: Swin at 100 pixels": (
        ((4, 4), (100, 100), chain((100, 100), ((25, 25), 4))), 32,
    ),
    "a product of strides: 250 pixels": (
        ((8, 8), (250, 250),
         chain((250, 250), ((62, 62), 4), ((31, 31), 2), ((16, 16), 2), ((8, 8), 2))), 32,
    ),
    "the image padded to whole patches": (
        ((7, 7), (97, 97), [Convolution((112, 112), (7, 7), (16, 16))]), 16,
    ),
    "pooled between two convolutions": (
        ((28, 28), (225, 225),
         [Convolution((225, 225), (113, 113), (2, 2)), Convolution((57, 57), (28, 28), (2, 2))]), 8,
    ),
    "pooled to 3×3": (((3, 3), (48, 48), chain((48, 48), ((12, 12), 4))), 16),
    "overlapping patches are a stride apart": (
        ((7, 7), (32, 32), chain((32, 32), ((7, 7), 4))), 4,
    ),
    "the input itself": (((8, 8), (8, 8), []), 1),
    "the image is what the first convolution was given": (
        ((4, 4), None, chain((16, 16), ((4, 4), 4))), 4,
    ),
    "no integer leads there": (((5, 7), (48, 48), chain((48, 48), ((12, 12), 4))), None),
    "another input has a convolution too": (
        ((8, 8), (32, 32), [Convolution((9, 70), (8, 8), (2, 2)), *chain((32, 32), ((8, 8), 4))]),
        4,
    ),
    "no image": (((4, 4), None, []), None),
}  # fmt: skip


def test_pixels_from_a_token_to_the_next():
    for name, ((size, image, convolutions), expected) in STEPS.items():
        found = steps_of(size, image, convolutions)
        assert found == (None if expected is None else (expected, expected)), name
    sides = [Convolution((32, 64), (8, 4), (4, 16))]
    assert steps_of((8, 4), (32, 64), sides) == (4, 16)


def test_maps_of_rearranged_positions_are_not_of_the_image():
    def along(*sizes):
        return [Convolution(a, b, (1, 1)) for a, b in pairwise(sizes)]

    pooled = [*along((224, 224), (112, 112)), *along((56, 56), (28, 28))]
    table = {
        "a chain, and pooled": (pooled, (224, 224), [(112, 112), (28, 28)]),
        "pixels of patches by patches": (
            [*along((64, 64), (8, 8)), *along((4, 16), (4, 16))], (64, 64), [(8, 8)],
        ),
        "a spectrogram folded into a square": (along((32, 32), (8, 8)), (100, 8), []),
        "the image resized": (along((224, 224), (14, 14)), (32, 32), [(14, 14)]),
        "the image padded": (along((112, 112), (7, 7)), (97, 100), [(7, 7)]),
        "no image": (along((32, 32), (8, 8)), None, [(8, 8)]),
    }  # fmt: skip
    for name, (convolutions, image, expected) in table.items():
        assert maps_of_image(convolutions, image) == expected, name


def test_reductions():
    table = {
        ((12, 12), (12, 12)): 1, ((12, 12), (3, 3)): 4, ((25, 25), (4, 4)): 8, ((7, 7), (3, 3)): 2,
        ((9, 9), (2, 2)): None, ((12, 18), (4, 6)): 3, ((12, 12), (13, 13)): None,
        ((12, 12), (6, 4)): None, ((11, 11), (3, 3)): 4,
    }  # fmt: skip
    for (size, smaller), by in table.items():
        assert reduction(size, smaller) == by, (size, smaller)


def test_maps():
    image = (32, 32)
    table = {
        "channels first": (((64, 8, 8), image, [], None, True), ((8, 8), True)),
        "channels last": (((8, 8, 64), image, [], None, True), ((8, 8), False)),
        "a cube in a model of one kind": (((8, 8, 8), image, [], None, False), ((8, 8), True)),
        "a cube in a mixed model": (((8, 8, 8), image, [(8, 8)], None, True), None),
        "a map of another aspect": (((8, 4, 4), (32, 32), [], None, True), ((4, 4), True)),
        "told by a convolution": (((8, 8, 4), None, [(16, 16)], None, True), ((8, 8), False)),
        "told by the caller": (((8, 8, 8), image, [], True, True), ((8, 8), False)),
        "the aspect decides nothing": (((5, 6, 7), image, [], None, True), None),
    }
    for name, ((axes, given, maps, last, mixed), expected) in table.items():
        found = grid_of_map(axes, given, maps, channels_last=last, mixed=mixed)
        assert found == expected, name


def test_tiles_and_windows():
    assert tiles(16, (32, 32)) == (4, 4)
    assert tiles(8, (16, 32)) == (2, 4)
    assert tiles(15, (32, 32)) is None
    assert tiles(0, (32, 32)) is None
    assert tiles(9, (3, 12)) is tiles(9, (12, 3)) is None
    assert divided((32, 64), (4, 4)) == (8, 16)
    assert divided((33, 64), (4, 4)) is divided((32, 65), (4, 4)) is None
    assert window_of(49, [(8, 8), (7, 7)]) == (7, 7)
    assert window_of(50, [(7, 7)]) is None


def test_padding_in_windows():
    """4×4 tokens in windows of 3: padded below and to the right, then shifted by one."""
    pad = Move((2, 4, 4, 8), (2, 6, 6, 8), (0, 0, 0, 0))
    shift = Move((2, 6, 6, 8), (2, 6, 6, 8), (0, -1, -1, 0))
    plain = real_in_windows((4, 4), (3, 3), [pad])
    assert plain.sum(1).tolist() == [9, 3, 3, 1]
    np.testing.assert_array_equal(np.flatnonzero(plain[1]), [0, 3, 6])
    shifted = real_in_windows((4, 4), (3, 3), [pad, shift])
    # Rows 1, 2, 3 are in the first window, row 0 is the last of the second.
    assert shifted.sum(1).tolist() == [9, 3, 3, 1]
    np.testing.assert_array_equal(np.flatnonzero(shifted[1]), [2, 5, 8])
    np.testing.assert_array_equal(np.flatnonzero(shifted[3]), [8])
    # The shift back of the block before is none of this block's.
    np.testing.assert_array_equal(real_in_windows((4, 4), (3, 3), [shift, pad]), plain)
    first = Move((2, 8, 4, 4), (2, 8, 6, 6), (0, 0, 0, 0))
    np.testing.assert_array_equal(real_in_windows((4, 4), (3, 3), [first]), plain)
    centred = Move((2, 4, 4, 8), (2, 6, 6, 8), (0, 1, 1, 0))
    assert real_in_windows((4, 4), (3, 3), [centred]).sum(1).tolist() == [4, 4, 4, 4]
    assert real_in_windows((6, 6), (3, 3), []).all()
    assert real_in_windows((4, 4), (3, 3), []) is None


def test_videos():
    shapes = {
        "channels before frames": ((2, 3, 8, 16, 20), (8, 16, 20)),
        "frames before channels": ((2, 8, 3, 16, 20), (8, 16, 20)),
        "channels last": ((2, 8, 16, 20, 3), (8, 16, 20)),
        "a volume": ((2, 1, 32, 16, 16), (32, 16, 16)),
        "three frames of three channels": ((2, 3, 3, 16, 20), None),
        "no channels": ((2, 8, 9, 16, 20), None),
        "an image": ((2, 3, 16, 20), None),
    }
    for name, (shape, expected) in shapes.items():
        assert video_of(shape) == expected, name
    assert between_frames(16, 8) == 2
    assert between_frames(15, 8) is None


def test_the_part_of_a_video_that_attends_is_found():
    grid = (4, 2, 3)
    table = {
        # name: (keys, sequences a sample, grid, prefix) → (part, prefix)
        "the video": ((24, 1, grid, None), (grid, 0)),
        "the video and CLS": ((25, 1, grid, None), (grid, 1)),
        "CLS, as the caller says": ((25, 1, grid, 1), (grid, 1)),
        "not what the caller says": ((26, 1, grid, 1), None),
        "more than 16 others": ((41, 1, grid, None), None),
        "each frame": ((6, 4, grid, None), ((1, 2, 3), 0)),
        "each frame and CLS": ((7, 4, grid, None), ((1, 2, 3), 1)),
        "each place along time": ((4, 6, grid, None), ((4, 1, 1), 0)),
        "along time, and frames have CLS": ((4, 6, grid, 1), ((4, 1, 1), 0)),
        "as many frames as places": ((4, 4, (4, 2, 2), None), None),
        "windows": ((8, 3, grid, None), None),
    }
    for name, ((keys, sequences, of, prefix), expected) in table.items():
        assert grid_of_video(keys, sequences, of, prefix=prefix) == expected, name
