"""Fixtures for capturing: a model must come back unchanged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

HOOK_TABLES = [name for name in vars(nn.Module()) if "hook" in name]


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that capturing might leave behind."""
    return {
        name: (module.training, [list(getattr(module, table) or ()) for table in HOOK_TABLES])
        for name, module in model.named_modules()
    }


@contextlib.contextmanager
def check_unchanged(model: nn.Module) -> Iterator[None]:
    before, random_state = state(model), torch.get_rng_state()
    try:
        yield
    finally:
        assert state(model) == before
        assert torch.equal(torch.get_rng_state(), random_state)


@pytest.fixture
def unchanged() -> Callable[[nn.Module], contextlib.AbstractContextManager[None]]:
    """A block after which the model has the hooks and train/eval flags that it had before."""
    return check_unchanged


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
