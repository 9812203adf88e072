"""After SIGKILL at each place that changes files, whole files are intact and the next call ends."""

from __future__ import annotations

import time

import pytest

from kills import LEAST, kill_at_each_place


@pytest.mark.slow
@pytest.mark.parametrize("work", ["save_result", "page"])
def test_killed_at_each_place(tmp_path, work):
    seed = time.time_ns()  # other calls every time
    print(f"seed {seed}")
    counts = kill_at_each_place(f"report.killed:{work}", tmp_path, seed)
    assert sum(counts) >= LEAST
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.npy")}
    assert whole
    for place in range(len(counts)):
        found = {path.name: path.read_bytes() for path in (tmp_path / str(place)).glob("*.npy")}
        assert found == whole, f"{counts[place]} kills in {place}"
