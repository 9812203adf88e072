"""Bad values for every option of every public function: an error of repsim, or a value."""

from __future__ import annotations

import pytest

import fuzz

FEW, MANY = 300, 6000


@pytest.mark.parametrize("tries", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_no_other_error_comes_out(tries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts, faults = fuzz.fuzz(tries, seed=tries)
    assert not faults, "\n".join(map(str, faults[:20]))
    assert sum(counts.values()) == tries
    assert not list(tmp_path.iterdir()), "a bad value was taken for the name of a file"


def test_a_fault_is_found():
    """The test above can fail: here an error of Python comes out."""

    def function(k: int) -> list[int]:
        return [0] * k

    case = fuzz.case("function", function, lambda: {"k": 1})
    fault = fuzz.attempt(case, "k", "text")
    assert fault is not None
    assert fault.error.startswith("TypeError")
    assert fuzz.attempt(case, "k", 3) is None
