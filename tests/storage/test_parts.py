"""The parts of several ranks are one store, whatever the order and the repeats of their samples."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim.storage import begin_parts, check_parts, end_parts, part_name, place_of


class Double(nn.Module):
    """A layer that returns what identifies a row: its values."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x, attention_mask=None):
        return self.layer(2 * x)


def rows_of(ids, tokens=()):
    """Rows (n, *tokens, 5) whose values are their ids."""
    ids = torch.as_tensor(ids, dtype=torch.float32)
    return ids.reshape(-1, *(1 for _ in tokens), 1).expand(len(ids), *tokens, 5)


def written(folder, shares, *, named=True, end=True, **options):
    """Write a store of one part for each share of ids; without `named`, ranks count their own."""
    place = place_of("extract", "out", folder)
    begin_parts("extract", place, len(shares), named=named)
    counts = []
    for rank, batch in enumerate(shares):
        if not isinstance(batch, dict):
            batch = {"x": rows_of(batch), "ids": list(batch)}
        stored = repsim.extract(
            Double(),
            [batch],
            "layer",
            out=folder / part_name(rank, len(shares)),
            forward=lambda model, batch: model(batch["x"]),
            sample_ids=(lambda batch: batch["ids"]) if named else None,
            all_modules=True,
            progress=False,
            **options,
        )
        counts.append(stored.sizes["sample"])
    if end:
        end_parts("extract", place, counts)
    return place


def test_samples_are_in_the_order_of_their_ids_or_of_the_ranks(tmp_path):
    written(tmp_path / "named", [[9, 4, 0, 6, 2], [3, 0, 1], [6, 5]])
    written(tmp_path / "numbered", [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]], named=False)
    by_rank = {"named": [9, 4, 0, 6, 2, 3, 1, 5], "numbered": [0, 3, 6, 9, 1, 4, 7, 2, 5, 8]}
    for name, ranks in by_rank.items():
        for order, ids in (("id", sorted(ranks)), ("rank", ranks)):
            stored = repsim.open_activations(tmp_path / name, order=order)
            assert stored.sample.values.tolist() == ids
            layer, whole = stored["layer"], 2 * rows_of(ids).numpy()
            assert layer.dtype == whole.dtype
            for key in (
                *(slice(None), slice(1, 4), slice(4, 4), slice(None, None, -3), 0, -1),
                *([7, 2, 2, 0], [0, 7], [3], [], (slice(2, 7), 1), (5, slice(1, 3))),
            ):
                np.testing.assert_array_equal(layer[key], whole[key], err_msg=f"{name} {key}")
            assert stored.attrs["n_ranks"] == 3
            assert stored.attrs["n_samples"] == len(ids)
            assert stored.attrs.get("n_duplicates") == (2 if name == "named" else None)


def test_tokens_are_in_the_order_of_their_inputs(tmp_path):
    def texts(ids):  # input i has 1 + i % 3 real tokens
        real = torch.arange(3) < 1 + torch.tensor(ids)[:, None] % 3
        return {"x": rows_of(ids, (3,)), "attention_mask": real.long(), "ids": ids}

    written(tmp_path / "run", [texts([4, 0, 2]), texts([5, 0, 1])], samples="tokens")
    for order, inputs in (("id", [0, 1, 2, 4, 5]), ("rank", [4, 0, 2, 5, 1])):
        stored = repsim.open_activations(tmp_path / "run", order=order)
        sequences = [i for i in inputs for _ in range(1 + i % 3)]
        assert stored.sequence.values.tolist() == sequences
        assert stored.position.values.tolist() == [p for i in inputs for p in range(1 + i % 3)]
        assert stored.sample.values.tolist() == list(range(len(sequences)))
        np.testing.assert_array_equal(stored["layer"], 2 * rows_of(sequences))
        assert stored.attrs["n_duplicates"] == 1  # the input 0


def test_what_is_not_whole_is_refused(tmp_path):
    def refused(name, says):
        with pytest.raises(repsim.StateError, match=says):
            repsim.open_activations(tmp_path / name)

    written(tmp_path / "early", [[0], [1]], end=False)
    refused("early", "each part is finished, but the ranks did not come to their common end")
    written(tmp_path / "run", [[0], [1]])
    shutil.rmtree(tmp_path / "run" / "rank0of2")
    (tmp_path / "run" / "rank0of2.journal").unlink()
    refused("run", r"run: rank0of2 is missing\n")
    end_parts("extract", written(tmp_path / "less", [[0], [1]]), [1, 2])
    refused("less", "less: rank1of2 has 1 rows, and had 2 when all were finished")
    other = {"x": rows_of([1], (4,)), "ids": [1]}
    written(tmp_path / "other", [[0], other])
    refused("other", r"different layers.*\n.*from rank0of2 to rank1of2: layer: was \[\[5\]")


def test_a_place_is_taken_once_and_by_one_number_of_ranks(tmp_path):
    place = written(tmp_path / "run", [[0], [1]])
    begin_parts("extract", place, 2, named=True)  # to go on
    assert repsim.open_activations(tmp_path / "run").sizes["sample"] == 2
    with pytest.raises(repsim.StateError, match="parts of 2 ranks, and now there are 3"):
        check_parts("extract", place, 3)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "photo.png").touch()
    for name, says in (
        ("file", r"something else.*\n.*is not a folder\n  Name another"),
        ("folder", r"something else.*\n.*is not a folder\n  Name another"),
        ("run/rank0of2", "is of format 'repsim.activations/2'"),
    ):
        with pytest.raises(repsim.StateError, match=says):
            begin_parts("extract", place_of("extract", "out", tmp_path / name), 2, named=True)
    with pytest.raises(repsim.StateError, match=r"no store is here.*\n.*made by another rank"):
        check_parts("extract", place_of("extract", "out", tmp_path / "nowhere"), 2)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "zarr.json.1.partial").touch()  # a kill while the group was created
    written(tmp_path / "killed", [[0], [1]])
    assert repsim.open_activations(tmp_path / "killed").sizes["sample"] == 2
