"""``measure`` and ``compare`` refer to each other for operands of the other kind."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest

MODEL = "cli.tiny_models:mlp"
SAME = "the same line, but for the name of the command"


def test_the_other_command_is_named_with_the_line_that_works(
    repsim_command, arrays, layers, inputs, tmp_path
):
    np.save(tmp_path / "z.npy", arrays[0])
    for typed, works in {
        "compare x.npy y.npy": SAME,
        "compare --kernel rbf x.npy y.npy --json": "measure x.npy y.npy --kernel rbf --json",
        "compare x.npy y.npy --test --permutations 9": SAME,
        "compare layers.npz --measure nbs --no-progress": SAME,
        "compare x.npy y.npy z.npy --no-progress": SAME,
        "compare x.npy y.npy --measure rsa --option rdm=cosine --option comparison=pearson": SAME,
        "compare x.npy y.npy --layers a --seed 3 --test --out run": (
            "measure x.npy y.npy --seed 3 --test"
        ),
        f"measure {MODEL} {MODEL} --data inputs.npz": SAME,
        f"measure {MODEL} --layers 0 --layers 2 --data inputs.npz --measure nbs": SAME,
    }.items():
        if works is SAME:
            command, _, rest = typed.partition(" ")
            works = f"{'measure' if command == 'compare' else 'compare'} {rest}"
        refused = repsim_command(*shlex.split(typed))
        assert refused.code == 2, typed
        assert refused.out == ""
        assert re.findall("Run: repsim (.*)", refused.err) == [works]
        assert repsim_command(*shlex.split(works)).code == 0, works


def test_three_models_are_too_many(repsim_command):
    models = ("timm:resnet18", "timm:resnet34", "timm:resnet50")
    for command in ("measure", "compare"):
        ran = repsim_command(command, *models, "--data", "digits")
        assert ran.code == 2
        assert "compare: takes one or two models.\n  got timm:resnet18 and" in ran.err


def test_without_a_command_the_line_that_works_is_named(repsim_command, arrays):
    for typed, works in {
        "x.npy y.npy --test": "measure x.npy y.npy --test",
        f"{MODEL} --data inputs.npz": f"compare {MODEL} --data inputs.npz",
    }.items():
        ran = repsim_command(*shlex.split(typed))
        assert (ran.code, ran.out) == (2, "")
        assert re.findall("Run: repsim (.*)", ran.err) == [works]


def test_options_that_the_other_command_does_not_have_are_named(repsim_command, arrays):
    ran = repsim_command("compare", "x.npy", "y.npy", "--layers", "a", "--out", "run")
    assert "measure has no --layers, --out." in ran.err


def test_models_without_data_are_reported(repsim_command):
    ran = repsim_command("measure", "timm:resnet18", "timm:resnet34", "--test")
    assert ran.code == 2
    assert "Run: repsim compare timm:resnet18 timm:resnet34 --data DATA" in ran.err


@pytest.mark.parametrize("command", ["measure", "compare"])
def test_an_array_and_a_model_cannot_be_compared(repsim_command, arrays, command):
    for operands in (("x.npy", "timm:resnet18"), ("timm:resnet18", "x.npy")):
        ran = repsim_command(command, *operands)
        assert ran.code == 2
        assert f"{command}: a file of arrays and a model cannot be compared" in ran.err


def test_help_and_unknown_options_are_those_of_the_command_that_was_typed(repsim_command):
    shown = repsim_command("compare", "x.npy", "y.npy", "--help")
    assert shown.code == 0
    assert "--layers" in shown.out
    assert "--estimator" not in shown.out
    refused = repsim_command("compare", "x.npy", "y.npy", "--tset")
    assert refused.code == 2
    assert "--tset" in refused.err
