"""Bad values for every option of every public function: does an error of repsim come out?

    python benchmarks/fuzz.py --tries 10000

Each try takes arguments that work, replaces one of them with a bad value, and calls the function.
It passes if the function returns, or raises an error of repsim. Anything else is a fault.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import inspect
import itertools
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import repsim
from repsim import inference, kernels, plot, report

BAD: tuple[Any, ...] = (
    # numbers
    *(None, True, False, 0, 1, -1, 3, 2**70, -(2**70), 10**400, 0.0, 0.5, -0.5, 1.0, 1j),
    *(1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
    *(np.int64(-3), np.float32("nan"), np.bool_(True), np.datetime64("NaT")),
    # texts
    *("", "nope", "99", "0.5", "\0", "\udcff", "x" * 5000, b"bytes"),
    # containers
    *((), [], {}, set(), [1, "a"], (1, 2), [0.5, 0.1], (float("nan"), 1.0), [None], [[]]),
    *({"a": 1}, {1: 2}, range(3), iter([1]), slice(3)),
    # arrays
    *(np.array([1, 2, 3]), np.array(3), np.array([]), np.array(["a"]), np.array([None])),
    *(np.array([[1.0, 2.0]]), xr.DataArray([1.0, 2.0]), xr.Dataset()),
    # functions and other objects
    *(lambda *_: None, lambda *_: "text", object(), Ellipsis, NotImplemented),
)

WHERE = {"out", "path", "folder", "checkpoint"}
"""Arguments that name files; a bad value may not make a file outside the folder of the tries."""


SECONDS = 2.0
"""A call that takes longer is a fault: a count that no computation can reach was taken."""


class Case(NamedTuple):
    """A function with arguments that work, and the options that are replaced."""

    name: str
    call: Callable[..., Any]
    given: Callable[[], dict[str, Any]]
    options: tuple[str, ...]


class Fault(NamedTuple):
    """An error that is not of repsim."""

    case: str
    option: str
    value: str
    error: str
    place: str


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((14, 5))
    return {"x": x, "y": x @ rng.standard_normal((5, 4)) + rng.standard_normal((14, 4))}


def subjects() -> dict[str, Any]:
    both = arrays()
    return {"x": both["x"], "ys": [both["y"], both["y"] ** 2, both["x"]]}


def layers() -> dict[str, Any]:
    both = arrays()
    return {"xs": {"a": both["x"], "b": np.tanh(both["y"])}}


def two_models() -> dict[str, Any]:
    return {"model_x": net(0), "model_y": net(1), "data": batches(), "progress": False}


def one_model() -> dict[str, Any]:
    return {"model": net(0), "data": batches(), "progress": False}


def net(seed: int) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))


def batches(count: int = 2) -> list[Any]:
    import torch

    torch.manual_seed(9)
    return [torch.randn(6, 5) for _ in range(count)]


def cases(folder: Path) -> Iterator[Case]:
    """Every public function that takes arrays, layers, models or results."""
    for name in repsim.__all__:
        thing = getattr(repsim, name)
        if inspect.isfunction(thing) and list(inspect.signature(thing).parameters)[:2] == [
            "x",
            "y",
        ]:
            yield case(name, thing, arrays)
    for name in ("pairwise", "cka_matrix", "max_t"):
        yield case(name, getattr(repsim, name), layers)
    models = {"a": {"x": arrays()["x"]}, "b": {"y": arrays()["y"]}}
    several = {"models": models, "measure": "nbs", "permutations": 19, "progress": False}
    yield case("alignment", repsim.alignment, lambda: dict(several))
    best = repsim.alignment(**several)
    chosen = {"result": best, "model_x": "a", "model_y": "b"}
    yield case("alignment_map", repsim.alignment_map, lambda: dict(chosen))
    for name in ("null_moments", "subsample"):
        yield case(f"inference.{name}", getattr(inference, name), arrays)
    for name in ("bootstrap_rsa", "jackknife_subjects"):
        yield case(f"inference.{name}", getattr(inference, name), subjects)
    yield case("noise_ceiling", repsim.noise_ceiling, lambda: {"repeats": subjects()["ys"]})
    sums = repsim.StreamingCovariance()
    sums.update(layers()["xs"])
    yield case("StreamingCovariance.compute", sums.compute, dict)
    for measure in ("cka", "mutual_knn", "rsa", "svcca", "linear_regression_r2"):
        options = tuple(inspect.signature(getattr(repsim, measure)).parameters)[2:]
        given = {"measure": measure, "permutations": 3}
        call = repsim.permutation_test
        yield Case(f"permutation_test({measure})", call, lambda g=given: arrays() | g, options)
        call = repsim.pairwise
        yield Case(
            f"pairwise({measure})", call, lambda m=measure: layers() | {"measure": m}, options
        )
    square = {"k": np.eye(6) + 1, "l": np.diag(np.arange(6.0)) + 2}
    yield case("cka_from_gram", repsim.cka_from_gram, lambda: dict(square))
    yield case("rdm", repsim.rdm, lambda: {"x": arrays()["x"]})
    yield case(
        "rsa_from_rdm",
        repsim.rsa_from_rdm,
        lambda: {"a": repsim.rdm(arrays()["x"]), "b": repsim.rdm(arrays()["y"])},
    )
    yield from kernel_cases()
    yield from attention_cases()
    yield from result_cases(folder)
    yield from model_cases(folder)


def case(
    name: str, call: Callable[..., Any], given: Callable[[], dict[str, Any]], *leave: str
) -> Case:
    signature = inspect.signature(call).parameters.values()
    named = [p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Case(name, call, given, tuple(each for each in named if each not in leave))


def kernel_cases() -> Iterator[Case]:
    for name in ("RBF", "Laplacian", "Polynomial", "Linear"):
        kind = getattr(kernels, name)

        def used(kind: Any = kind, **options: Any) -> Any:
            return repsim.cka(**arrays(), kernel=kind(**options))

        yield Case(f"kernels.{name}", used, dict, tuple(inspect.signature(kind).parameters))
    for name in ("MinibatchCKA", "StreamingCovariance", "StreamingLinearCKA"):
        kind = getattr(repsim, name)
        yield case(name, kind, dict)
        yield case(f"{name}.update", kind().update, layers)
        yield case(f"{name}.merge", kind().merge, dict)
        yield case(f"{name}.from_state_dict", kind.from_state_dict, dict, "kernel")


def attention_cases() -> Iterator[Case]:
    from repsim import attention

    weights = np.full((2, 3, 5, 5), 0.2)
    yield case("attention.entropy", attention.entropy, lambda: {"weights": weights})
    yield case(
        "attention.prefix_mass", attention.prefix_mass, lambda: {"weights": weights, "prefix": 1}
    )
    placed = {"grid": (2, 2), "prefix": 1}
    yield case(
        "attention.mean_distance", attention.mean_distance, lambda: {"weights": weights, **placed}
    )
    yield case("attention.uniform_distance", attention.uniform_distance, lambda: dict(placed))
    yield case("attention.grid_distances", attention.grid_distances, lambda: {"grid": (2, 2)})
    yield case("attention.rollout", attention.rollout, lambda: {"layers": [weights, weights]})


def result_cases(folder: Path) -> Iterator[Case]:
    maps = repsim.cka_matrix({"a": arrays()["x"], "b": arrays()["y"]})
    yield case("layer_match", repsim.layer_match, lambda: {"result": maps})
    yield case("plot.heatmap", plot.heatmap, lambda: {"result": maps})
    yield case("plot.layer_match", plot.layer_match, lambda: {"result": maps})
    for name in (
        *("attention_distance", "block_influence", "data_scale", "head_subsets", "localization"),
        *("probe", "receptive_field", "residual_ratios"),
    ):
        yield case(f"plot.{name}", getattr(plot, name), lambda: {"result": maps})
    saved = {"folder": folder / "run", "name": "it", "result": maps}
    yield case("report.save_result", report.save_result, lambda: dict(saved), *WHERE)
    page = {"results": {"it": maps}, "path": folder / "page.html"}
    yield case("report.write_report", report.write_report, lambda: dict(page), *WHERE)
    yield Case("report.load_results", report.load_results, dict, ("folder",))
    store = {"path": folder / "none.zarr"}
    yield case("open_activations", repsim.open_activations, lambda: dict(store))
    labelled = xr.DataArray(np.eye(3), dims=("sample", "unit"), coords={"sample": list("abc")})

    def aligned(array: Any = labelled, by: Any = "sample") -> Any:
        return repsim.align(labelled, array, by=by)

    yield case("align", aligned, dict)


def model_cases(folder: Path) -> Iterator[Case]:
    import torch

    yield case("compare", repsim.compare, two_models, *WHERE, "group")
    kept = case("compare(nbs)", repsim.compare, two_models, *WHERE, "group")
    yield kept._replace(given=lambda: two_models() | {"measure": "nbs", "permutations": 3})
    numbers = itertools.count()
    yield case(
        "extract",
        repsim.extract,
        lambda: one_model() | {"out": folder / f"{next(numbers)}.zarr"},
        *WHERE,
    )
    scale = {"full": net(0), "data": batches(), "layers": "*", "progress": False}
    yield case("data_scale", repsim.data_scale, lambda: {"models": {0.5: net(1)}, **scale})
    labelled = [(x, torch.arange(6) % 2) for x in batches()]
    probe = {
        "train": labelled,
        "test": labelled,
        "layers": "*",
        "tokens": "mean",
        "progress": False,
    }
    yield case("linear_probe", repsim.linear_probe, lambda: {"model": net(0), **probe})
    both = arrays()
    probed = {"train": {"a": both["x"]}, "test": {"a": both["x"]}}
    probed |= {"train_labels": np.arange(14) % 2, "test_labels": np.arange(14) % 2}
    yield case("probe_activations", repsim.probe_activations, lambda: dict(probed))

    def recorded(**options: Any) -> Any:
        with repsim.Recorder(**options) as recorder:
            options["model"](batches()[0])
        return list(recorder.items())

    options = tuple(inspect.signature(repsim.Recorder).parameters)
    yield Case("Recorder", recorded, lambda: {"model": net(0)}, options)

    def removed(**options: Any) -> None:
        with repsim.without_residual(**options):
            pass

    options = tuple(inspect.signature(repsim.without_residual).parameters)
    yield Case("without_residual", removed, lambda: {"model": net(0), "block": "0"}, options)
    for name in (
        *("attention_distance", "block_influence", "residual_ratios"),
        *("effective_receptive_field", "token_localization"),
    ):
        more = {"layers": "0"} if name.startswith(("effective", "token")) else {}
        yield case(name, getattr(repsim, name), lambda m=more: one_model() | m)
    heads = {"model_x": net(0), "model_y": net(1), "data": batches(), "layer": "0", "layers_y": "*"}
    yield case("head_subset_cka", repsim.head_subset_cka, lambda: {**heads, "progress": False})
    yield case(
        "residual_sites",
        repsim.residual_sites,
        lambda: {"model": net(0), "example": batches()[0]},
        "example",  # a mapping is keywords of the model, which raises errors of its own
    )


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError if the block takes longer, where the system has timers."""

    def late(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        return f"a {type(value).__name__} without repr ({error})"[:60]
    return text if len(text) < 60 else text[:57] + "..."


def attempt(case: Case, option: str, value: Any) -> Fault | None:
    """Call once; return what came out if it is neither a value nor an error of repsim."""
    try:
        with limited(SECONDS), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            returned = case.call(**{**case.given(), option: value})
    except repsim.RepsimError:
        return None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "repsim" in Path(frame.filename).parts]
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        said = f"{type(error).__name__}: {error}".partition("\n")[0][:100]
        return Fault(case.name, option, shown(value), said, place)
    if undefined(returned) and not any(is_ours(each.category) for each in caught):
        return Fault(case.name, option, shown(value), f"{returned} without a warning", "?")
    foreign = [each for each in caught if issubclass(each.category, RuntimeWarning)]
    if foreign:
        place = f"{Path(foreign[0].filename).name}:{foreign[0].lineno}"
        said = f"RuntimeWarning: {foreign[0].message}"
        return Fault(case.name, option, shown(value), said, place)
    return None


def is_ours(category: type[Warning]) -> bool:
    return issubclass(category, repsim.RepsimWarning)


def undefined(returned: object) -> bool:
    """Whether a single number came out that is not finite."""
    if isinstance(returned, float | np.ndarray | np.generic | xr.DataArray):
        values = np.asarray(returned)
        return values.dtype.kind == "f" and values.ndim == 0 and not bool(np.isfinite(values))
    return False


def fuzz(tries: int, seed: int = 0) -> tuple[collections.Counter[str], list[Fault]]:
    """Return the number of tries by function, and the faults."""
    rng = np.random.default_rng(seed)
    faults: list[Fault] = []
    counts: collections.Counter[str] = collections.Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),  # a bad value such as "99" may name a file
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        every = [
            (case, option, value)
            for case in cases(Path(folder))
            for option in case.options
            for value in BAD
        ]
        order = rng.permutation(len(every))
        for at in itertools.islice(itertools.cycle(order), tries):
            case, option, value = every[at]
            counts[case.name] += 1
            if fault := attempt(case, option, value):
                faults.append(fault)
            if plot_module := __import__("sys").modules.get("matplotlib.pyplot"):
                plot_module.close("all")
    return counts, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=40, help="Most faults that are listed.")
    args = parser.parse_args()
    start = time.perf_counter()
    counts, faults = fuzz(args.tries, args.seed)
    seconds = time.perf_counter() - start
    by = collections.Counter(fault.case for fault in faults)
    for name, tried in sorted(counts.items()):
        print(f"{name:32} {tried:6} tries {by[name]:5} faults")
    print(f"{sum(counts.values())} tries in {seconds:.0f} s: {len(faults)} faults")
    for fault in sorted(faults)[: args.show]:
        print(f"  {fault.case}({fault.option}={fault.value}) → {fault.error}  [{fault.place}]")


if __name__ == "__main__":
    main()
