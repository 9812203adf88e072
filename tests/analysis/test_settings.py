"""What resuming compares of functions and modules besides names, options and weights."""

from __future__ import annotations

import itertools
import time

import pytest
import torch
from torch import nn

import repsim
from repsim.analysis.run.settings import code_digest, settings_digest

# The digest of `prepare` changes with each of these changes to its source.
CHANGES = [
    ("prepare = lambda x: 2 * x", "2", "3"),
    ("prepare = lambda x: x.sin()", "sin", "cos"),
    ("def prepare(x, factor=2): return factor * x", "2", "2.5"),
    ("def prepare(x, *, shifted=True): return x + shifted", "True", "False"),
    ("FACTOR = 2\ndef prepare(x): return FACTOR * x", "2", "3"),
    ("MEANS = [1, 2]\ndef prepare(x): return x - sum(MEANS)", "[1", "[2"),
    ("NORM = {'mean': 1, 'std': 2}\ndef prepare(x): return x - NORM['mean']", "1", "3"),
    ("import torch\nm = torch.ones(3)\ndef prepare(x): return x - m", "ones", "zeros"),
    ("def helper(x): return x + 1\ndef prepare(x): return helper(x)", "1", "2"),
    ("def made(k):\n  def prepare(x): return k * x\n  return prepare\nprepare = made(2)", "2", "3"),
    ("import torch\n@torch.no_grad()\ndef prepare(x): return x + 1", "1", "2"),
    ("import torch, functools\nprepare = functools.partial(torch.clamp, max=2)", "2", "3"),
    ("import torch\nfrom functools import partial\nprepare = partial(torch.sin)", "sin", "cos"),
    ("class A:\n  k = 1\n  def __call__(self, x): return 2 * x\nprepare = A()", "2", "3"),
    ("import operator\nprepare = operator.itemgetter(0)", "0", "1"),
    (
        "from dataclasses import dataclass\n@dataclass(slots=True)\nclass A:\n  k: int\n"
        "  def __call__(self, x): return self.k * x\nprepare = A(2)",
        "(2)",
        "(3)",
    ),
    (
        "class A:\n  def __init__(self, k): self.k = k\n"
        "  def of(self, x): return self.k * x\nprepare = A(2).of",
        "(2)",
        "(3)",
    ),
    (
        "from types import SimpleNamespace\nargs = SimpleNamespace(k=2, seed=1)\n"
        "def prepare(x): return args.k * x",
        "k=2",
        "k=3",
    ),
    (
        "import torch\nsteps = [torch.nn.ConstantPad1d(1, 2.0)]\n"
        "def prepare(x):\n  for each in steps: x = each(x)\n  return x",
        "2.0",
        "3.0",
    ),
    ("import torch\nnet = torch.nn.Linear(1, 1)\nprepare = lambda x: net(x)", "(1, 1)", "(1, 2)"),
]

# These are other sources, or other states, of one function.
THE_SAME = [
    ("def prepare(x): return 2 * x", "x", "given"),
    ("def prepare(x):\n  return (x +\n  1)", "return (x +\n  1)", "'Text.'\n  return x + 1"),
    ("n = 0\ndef prepare(x):\n  global n\n  n += 1\n  return x", "n = 0", "n = 5"),
    ("seen = []\ndef prepare(x):\n  seen.append(1)\n  return x", "[]", "[1]"),
    ("began = 1.7e9\ndef prepare(x): return print(began) or x", "1.7", "1.8"),
    ("to = 'cuda:0'\ndef prepare(x): return x.to(to)", "0", "1"),
    ("other = 1\ndef prepare(x): return x + 1", "= 1", "= 2"),
    ("mean = 1\ndef prepare(x): return x - x.mean()", "= 1", "= 2"),
    ("s = frozenset(['a', 'b'])\ndef prepare(x): return s and x", "'a', 'b'", "'b', 'a'"),
    (
        "from types import SimpleNamespace\nargs = SimpleNamespace(k=2, resume=False)\n"
        "def prepare(x): return args.k * x",
        "False",
        "True",
    ),
    (
        "class A:\n  calls = 0\n  def __call__(self, x):\n    self.calls += 1\n    return x\n"
        "prepare = A()\nprepare.calls = 0",
        "calls = 0",
        "calls = 3",
    ),
]  # fmt: skip


def prepare_of(source):
    names: dict = {"__name__": "__main__"}
    torch.manual_seed(0)
    exec(source, names)
    return names["prepare"]


def test_the_digest_of_a_function_follows_its_code_and_what_it_reads_but_no_state_of_a_run():
    for source, before, after in CHANGES:
        assert before in source
        other = source.replace(before, after)
        assert code_digest(prepare_of(source)) == code_digest(prepare_of(source)), source
        assert code_digest(prepare_of(source)) != code_digest(prepare_of(other)), source
    for source, before, after in THE_SAME:
        assert before in source
        other = source.replace(before, after)
        assert code_digest(prepare_of(source)) == code_digest(prepare_of(other)), source


class Scaled(nn.Module):
    def __init__(self, factor=2.0, shift=1.0, act=torch.sin):
        super().__init__()
        self.factor, self.calls, self.act = factor, 0, act
        self.shift = torch.tensor([shift])
        self.began, self.device, self.label = time.time(), "cuda:0", next(NUMBERS)

    def forward(self, x):
        self._count()
        return self.act(x.to("cpu" if self.device else None) * self.factor + self.shift)

    def _count(self):
        self.calls += 1


NUMBERS = itertools.count()


class Doubled(Scaled):
    def forward(self, x):
        return 2 * super().forward(x)


def test_the_digest_of_modules_follows_the_attributes_that_their_forwards_read():
    def heads(n, *, first=False):
        return nn.TransformerEncoderLayer(8, n, norm_first=first)

    made = [
        Scaled, lambda: Scaled(2.5), lambda: Scaled(shift=2.0), lambda: Scaled(act=torch.cos),
        lambda: Scaled(act=lambda x: x + 1), lambda: Scaled(act=lambda x: x + 2), Doubled,
        lambda: heads(2), lambda: heads(4), lambda: heads(2, first=True),
    ]  # fmt: skip
    for factor in (2, 3):

        def hooked(factor=factor):
            model = Scaled()
            model.register_forward_hook(lambda _module, _inputs, output: factor * output)
            return model

        made.append(hooked)
    found = []
    for make in made:
        model = nn.Sequential(make())
        found.append(settings_digest(model))
        assert settings_digest(nn.Sequential(make())) == found[-1]
        model.eval()(torch.ones(1, 1, 8))
        assert settings_digest(model) == found[-1]
    assert len(set(found)) == len(made)


def until(number):
    generator = torch.Generator().manual_seed(0)
    for i in range(4):
        if i == number:
            raise OSError("disk")
        yield torch.randn(5, 3, generator=generator)


def model_of(factor):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), Scaled(factor))


def test_a_run_does_not_go_on_with_other_code_or_attributes(tmp_path):
    changes = [
        ("attributes and code", {}, {}, 3.0),
        ("code and values of prepare", {"prepare": lambda x: x + 1}, {"prepare": lambda x: x}, 2.0),
        ("autocast", {}, {}, 2.0),
        ("of transform", {"transform": lambda x: x + 1}, {"transform": lambda x: x}, 2.0),
    ]
    for call, place in {repsim.extract: "out", repsim.compare: "checkpoint"}.items():
        for number, (says, first, second, factor) in enumerate(changes):
            if call is repsim.compare:
                first, second = (
                    {k.replace("are", "are_x"): f for k, f in each.items()}
                    for each in (first, second)
                )
            options = {place: tmp_path / f"{call.__name__}{number}", "progress": False}
            with pytest.raises(OSError, match="disk"):
                call(model_of(2.0), data=until(2), **options, **first)
            half = torch.autocast("cpu", torch.bfloat16, enabled=says == "autocast")
            with half, pytest.raises(repsim.StateError, match=says):
                call(model_of(factor), data=until(4), **options, **second)
            assert call(model_of(2.0), data=until(4), **options, **first).attrs["n_batches"] == 4
