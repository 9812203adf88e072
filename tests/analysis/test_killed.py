"""After SIGKILL at random moments, the same call returns the bits of a run without a kill."""

from __future__ import annotations

import time

import pytest

from kills import kill_until_done

KILLS = 30


@pytest.mark.slow
@pytest.mark.parametrize("work", ["compare", "cka_matrix", "extract"])
def test_killed_thirty_times(tmp_path, work):
    seed = time.time_ns()  # other moments every time
    print(f"seed {seed}")
    counts = kill_until_done(f"analysis.killed:{work}", tmp_path, KILLS, seed)
    assert sum(counts) >= KILLS
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.npy")}
    assert whole
    for place in range(len(counts)):
        found = {path.name: path.read_bytes() for path in (tmp_path / str(place)).glob("*.npy")}
        assert found == whole, f"{counts[place]} kills in {place}"
    assert not list(tmp_path.rglob("*.partial"))
