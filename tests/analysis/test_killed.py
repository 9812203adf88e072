"""After SIGKILL at each place that changes files, the same call returns the bits of a whole run."""

from __future__ import annotations

import time

import pytest

from kills import LEAST, kill_at_each_place


@pytest.mark.slow
@pytest.mark.parametrize("work", ["compare", "cka_matrix", "extract"])
def test_killed_at_each_place(tmp_path, work):
    seed = time.time_ns()  # other calls every time
    print(f"seed {seed}")
    counts = kill_at_each_place(f"analysis.killed:{work}", tmp_path, seed)
    assert sum(counts) >= LEAST
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.npy")}
    assert whole
    for place in range(len(counts)):
        found = {path.name: path.read_bytes() for path in (tmp_path / str(place)).glob("*.npy")}
        assert found == whole, f"{counts[place]} kills in {place}"
    assert not list(tmp_path.rglob("*.partial"))
