"""The frameworks that every test of arrays runs over, and the settings of the property tests."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import just

settings.register_profile(
    "repsim",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repsim")


def pytest_configure(config: pytest.Config) -> None:
    """Let jax compile quickly and once, because compiling is most of what its tests do.

    XLA still transforms the program. The flags turn off what makes machine code faster, which does
    not matter for arrays this small. An empty ``XLA_FLAGS`` tests with XLA's defaults.
    The compiled operations are kept, for the other workers and for the next run.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background jobs in this way, but tests interrupt themselves.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = " ".join(
            ("--xla_cpu_use_fusion_emitters=false", "--xla_backend_optimization_level=0")
        )
    kept = config.rootpath / ".pytest_cache" / "jax"
    for name, value in (
        ("JAX_COMPILATION_CACHE_DIR", str(kept)),
        ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
        ("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1"),
        ("JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS", "0"),  # those of pytest are long
    ):
        os.environ.setdefault(name, value)
    # By default, importing large packages looks through all their objects again and again.
    gc.set_threshold(5000, 20, 20)


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over what was imported, in this process and its forks.

    In its first test Hypothesis looks for what holds its generator, and would not find what is
    passed over.
    """
    given(just(0))(lambda _: None)()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Let jax translate all operations in one MLIR context.

    It makes a context for each operation and keeps it. That is a third of the time of a small
    operation whose machine code is kept, and a megabyte of memory. A jax that lost this private
    name is only slower.
    """
    mlir = sys.modules.get("jax._src.interpreters.mlir")
    make = getattr(mlir, "make_ir_context", None)
    if make is not None and not hasattr(make, "cache_clear"):
        mlir.make_ir_context = functools.cache(make)


HEAVY = (
    *("analysis/test_rank_batches.py", "benchmarks/test_raghu2021.py"),
    *("examples/test_digits.py", "emulated/test_emulated.py"),
    *("analysis/test_extract_ranks.py", "report/test_browser.py"),
    *("analysis/test_rank_analyses.py", "measures/test_transforms.py"),
    *("analysis/test_killed.py", "docs/test_screens.py"),
    *("streaming/test_shared_pairs.py", "docs/test_gallery.py"),
    *("streaming/test_all_reduce.py", "plot/test_pyplot.py"),
    *("report/test_killed.py", "report/test_screens.py"),
    *("cli/test_killed.py", "streaming/test_dask.py"),
    *("analysis/test_ranks.py", "docs/test_tasks.py"),
    *("docs/test_pages.py", "cli/test_run_folder.py"),
)
"""Files with tests or fixtures of many seconds, for two workers in turn, the longest first.

Those of the first fork processes from one that has loaded torch, and all but one of those in a
browser are of the second. So most of these two start once.
"""


def heavy_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Begin the share of each worker with files that take long.

    xdist deals equal numbers of tests in this order. A worker without tests takes the last half of
    what another has left. So it takes short tests, and no file whose fixtures it has to make again.
    """
    heavy: dict[str, list[pytest.Item]] = {name: [] for name in HEAVY}
    rest = []
    for item in items:
        heavy.get("/".join(item.path.parts[-2:]), rest).append(item)
    files, out = list(heavy.values()), []
    for worker in range(workers):
        out += [item for file in files[worker::workers] for item in file]
        room = max((worker + 1) * len(items) // workers - len(out), 0)
        out += rest[:room]
        del rest[:room]
    return out + rest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark cases on jax as slow, except those of tests that are marked ``quick_on_jax``.

    jax compiles every operation for every shape and every dtype. The other frameworks go through
    the same lines of repsim.
    """
    if hasattr(config, "workerinput"):
        items[:] = heavy_first(items, config.workerinput["workercount"])
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        on_jax = any(isinstance(p, str) and p in ("jax", "jax-jit") for p in parameters)
        if on_jax and not item.get_closest_marker("quick_on_jax"):
            item.add_marker(pytest.mark.slow)


class Backend:
    """A framework: makes its arrays from NumPy's, applies functions, and reads results."""

    name = "numpy"
    compiled = False

    def array(self, x: Any) -> Any:
        return np.asarray(x)

    def call(self, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        """Apply ``function`` to NumPy arrays brought to this framework."""
        return function(*map(self.array, arrays), **options)

    def numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def owns(self, x: Any) -> bool:
        return isinstance(x, np.ndarray | np.generic)

    def dtype(self, x: Any) -> str:
        return str(x.dtype).removeprefix("torch.").rpartition(".")[2]

    def device(self, x: Any) -> str:
        return str(x.device)

    def __repr__(self) -> str:
        return self.name


class Torch(Backend):
    def __init__(self, device: str) -> None:
        self.torch = pytest.importorskip("torch")
        if device == "cuda" and not self.torch.cuda.is_available():
            pytest.skip("no CUDA device")
        self.name = "torch" if device == "cpu" else "torch-cuda"
        self.where = device

    def array(self, x: Any) -> Any:
        return self.torch.tensor(np.asarray(x), device=self.where)

    def numpy(self, x: Any) -> np.ndarray:
        return x.detach().cpu().numpy()

    def owns(self, x: Any) -> bool:
        return isinstance(x, self.torch.Tensor)


class Jax(Backend):
    def __init__(self, compiled: bool) -> None:
        self.jax = pytest.importorskip("jax")
        self.name = "jax-jit" if compiled else "jax"
        self.compiled = compiled

    def array(self, x: Any) -> Any:
        return self.jax.numpy.asarray(x)

    def call(self, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
        def traced(*inputs: Any) -> Any:
            return function(*inputs, **options)

        apply = self.jax.jit(traced) if self.compiled else traced
        return apply(*map(self.array, arrays))

    def owns(self, x: Any) -> bool:
        return isinstance(x, self.jax.Array)


class Strict(Backend):
    name = "strict"

    def __init__(self) -> None:
        self.xp = pytest.importorskip("array_api_strict")

    def array(self, x: Any) -> Any:
        return self.xp.asarray(np.asarray(x))

    def numpy(self, x: Any) -> np.ndarray:
        return np.from_dlpack(x)

    def owns(self, x: Any) -> bool:
        return type(x) is type(self.xp.zeros(1))


BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": Backend,
    "torch": lambda: Torch("cpu"),
    "torch-cuda": lambda: Torch("cuda"),
    "jax": lambda: Jax(compiled=False),
    "jax-jit": lambda: Jax(compiled=True),
    "strict": Strict,
}


@contextlib.contextmanager
def double_precision(backend: Backend) -> Any:
    """jax has float64 only when asked to."""
    if isinstance(backend, Jax):
        with backend.jax.enable_x64(True):
            yield backend
    else:
        yield backend


def _parameters(*, eager: bool) -> list[Any]:
    names = [name for name in BACKENDS if not (eager and name == "jax-jit")]
    return [
        pytest.param(name, marks=pytest.mark.cuda) if name == "torch-cuda" else name
        for name in names
    ]


@pytest.fixture(params=_parameters(eager=False))
def backend(request: pytest.FixtureRequest) -> Any:
    """Each framework in turn, jax with and without ``jit``; float64 available."""
    with double_precision(BACKENDS[request.param]()) as out:
        yield out


@pytest.fixture(params=_parameters(eager=True))
def eager(request: pytest.FixtureRequest) -> Any:
    """Each framework whose values can be read, so errors and warnings are possible."""
    with double_precision(BACKENDS[request.param]()) as out:
        yield out
