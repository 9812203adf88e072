"""The cases of the emulated device on a real one: values, and no wait from the second batch on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from emulated import on_analyses  # noqa: E402
from emulated.models import Batches  # noqa: E402

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Guarded(Batches):
    """Batches; from the second one on, an operation that waits for CUDA raises an error."""

    def __iter__(self) -> Iterator[Any]:
        first, *rest = self.data
        yield first
        for batch in rest:
            with waiting_is_an_error():
                yield batch


class Run(on_analyses.Run):
    def __init__(self, *, guarded: bool) -> None:
        super().__init__("cuda")
        self.kind = Guarded if guarded else Batches

    def data(self, batches: list[Any]) -> Batches:
        self.given.append(self.kind(batches))
        return self.given[-1]


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


@pytest.mark.parametrize("name", on_analyses.CASES)
@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_as_on_the_cpu_without_waiting(name):
    of_text = "text" in name or "token" in name.partition(", ")[2]
    # The model of texts reads its mask in its own forward.
    near, far = on_analyses.Run("cpu"), Run(guarded=not of_text)
    wanted, found = (on_analyses.CASES[name](run) for run in (near, far))
    for variable, values in wanted.data_vars.items():
        np.testing.assert_allclose(
            found[variable], values, rtol=1e-4, atol=1e-4, err_msg=str(variable)
        )
