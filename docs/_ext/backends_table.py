"""Which measure runs on which framework; every cell is a call made during the build."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from repsim.measures import MEASURES, Measure

__all__ = ["backends_page"]

RTOL = 1e-3
"""Tolerance for agreement with NumPy in float64, because jax uses float32 by default."""


def backends_page() -> str:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3))
    y = np.tanh(x @ rng.standard_normal((3, 4))) + 0.3 * rng.standard_normal((40, 4))
    heads = ["numpy", "torch", "torch gradient", "jax", "jax.jit"]
    lines = ["| measure | " + " | ".join(heads) + " |", "|---|" + ":-:|" * len(heads)]
    for m in MEASURES.values():
        cells = ["yes" if cell else "–" for cell in row(m, x, y)]
        options = ", ".join(f"{key}={value!r}" for key, value in m.preset.items())
        lines.append(f"| `{m.function.__name__}({options})` | " + " | ".join(cells) + " |")
    return (
        "# Frameworks\n\n"
        "Arrays of one framework in, a 0-d array of the same one out, on the same device. Each "
        "cell was run while this page was built: *yes* is the value that NumPy gives (to "
        f"{RTOL:g}), and in the gradient's column a finite derivative by `backward()`.\n\n"
        + "\n".join(lines)
        + "\n\nThe tests run the same on numpy, torch, jax (with and without `jit`) and the strict "
        "implementation of the array standard, in float32 and float64. CuPy arrays go through the "
        "same lines; the tests do not run them. Under `jax.jit` *yes* is that the measure can be "
        "traced; a dash, that SciPy solves a part of it. The same measures take the transforms of "
        "`torch.func`, `torch.vmap` and `torch.compile(fullgraph=True)`. A dash under the "
        "gradient: counts and ranks have no derivative.\n"
    )


def row(m: Measure, x: Any, y: Any) -> list[bool]:
    def call(a: Any, b: Any) -> Any:
        return m.function(a, b, **m.preset)

    expected = float(call(x, y))
    tensor = torch.tensor(x, requires_grad=True)
    value = call(tensor, torch.tensor(y))
    assert isinstance(value, torch.Tensor)
    gradient = False
    if value.requires_grad:
        value.backward()
        gradient = tensor.grad is not None and bool(torch.isfinite(tensor.grad).all())
    return [
        True,
        agrees(float(value.detach()), expected),
        gradient,
        agrees(float(call(jax.numpy.asarray(x), jax.numpy.asarray(y))), expected),
        traced(call, x, y),
    ]


def agrees(value: float, expected: float) -> bool:
    if not np.isclose(value, expected, rtol=RTOL):
        raise AssertionError(f"backends_table: {value} is not {expected}")
    return True


def traced(call: Callable[[Any, Any], Any], x: Any, y: Any) -> bool:
    """Whether the measure can be traced; any other failure stops the build."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values, which a traced array does not have
            jax.eval_shape(call, jax.numpy.asarray(x), jax.numpy.asarray(y))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, TypeError):
        return False
    return True
