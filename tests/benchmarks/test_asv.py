"""Every benchmark of the asv suites runs, on its smallest parameters."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pkgutil
import sys
from pathlib import Path

import pytest

ASV = Path(__file__).parents[2] / "benchmarks" / "asv"
KINDS = ("time_", "peakmem_", "track_")
MODELS = "models"
"""Needs torch and timm, and takes longer than the others."""


@pytest.fixture
def suites(monkeypatch):
    monkeypatch.syspath_prepend(str(ASV))
    yield importlib.import_module("suites")
    for name in [name for name in sys.modules if name.partition(".")[0] == "suites"]:
        del sys.modules[name]


def names():
    found = [info.name for info in pkgutil.iter_modules([str(ASV / "suites")])]
    return [
        pytest.param(name, marks=pytest.mark.slow) if name == MODELS else name
        for name in found
        if not name.startswith("_")
    ]


def classes(module):
    return [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def test_there_are_suites():
    assert len(names()) >= 5


def test_the_settings_name_existing_files():
    settings = json.loads((ASV / "asv.conf.json").read_text())
    assert (ASV / settings["benchmark_dir"] / "__init__.py").is_file()
    assert (ASV / settings["repo"] / "pyproject.toml").is_file()


@pytest.mark.parametrize("name", names())
def test_every_benchmark_runs(name, suites):
    if name == MODELS:
        pytest.importorskip("timm")
    module = importlib.import_module(f"suites.{name}")
    found = classes(module)
    assert found
    for suite in found:
        assert len(suite.params) == len(suite.param_names)
        smallest = [values[0] for values in suite.params]
        benchmarks = [name for name in dir(suite) if name.startswith(KINDS)]
        assert benchmarks
        for benchmark in benchmarks:
            instance = suite()
            instance.setup(*smallest)
            value = getattr(instance, benchmark)(*smallest)
            if benchmark.startswith("track_"):
                assert getattr(suite, benchmark).unit == "ratio"
                assert 0 < value < math.inf
            else:
                assert value is None


def test_a_ratio_is_one_of_work_to_floor(suites, monkeypatch):
    module = importlib.import_module("suites._ratio")
    calls: list[float] = []
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    now = [0.0]

    def takes(seconds):
        def call():
            calls.append(seconds)
            now[0] += seconds

        return call

    assert module.ratio(takes(6.0), takes(2.0)) == 3.0
    assert calls == [6.0, 2.0] * (module.ROUNDS + 1)  # in turn, the first ones not counted
