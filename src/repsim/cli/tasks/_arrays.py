"""What ``repsim measure`` does: two arrays give a number, named layers give a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repsim._errors import InputError
from repsim.cli._literals import near, read_kernel, read_options
from repsim.cli._outcome import UsageError
from repsim.cli._session import Session
from repsim.cli._tables import dataset_json, show_matrix
from repsim.cli.data._array_files import read_layers
from repsim.measures import MEASURES, Measure

__all__ = ["ArrayOptions", "measure_arrays"]


@dataclass(frozen=True)
class ArrayOptions:
    """What the command line asks for; None leaves it to the measure."""

    measure: str
    kernel: str | None
    estimator: str | None
    options: tuple[str, ...]
    test: bool
    permutations: int
    seed: int
    progress: bool


def measure_arrays(session: Session, x: str, y: str | None, asked: ArrayOptions) -> None:
    """Measure the arrays of two files, or the layers of one file with each other."""
    measure = _measure(asked.measure)
    settings = _settings(measure, asked)
    xs = read_layers(x)
    ys = None if y is None else read_layers(y)
    if ys is None and len(xs) == 1:
        raise UsageError(
            f"measure: one array has nothing to be compared with.\n  got {x}\n"
            f"  Name a second file, or an .npz with several layers."
        )
    if ys is not None and len(xs) == len(ys) == 1:
        _pair(session, (x, y or ""), _only(xs), _only(ys), measure, settings, asked)
    else:
        _matrix(session, (x, y or x), xs, ys, measure, settings, asked)


def _measure(name: str) -> Measure:
    if name not in MEASURES:
        raise UsageError(
            f"--measure: unknown measure.\n  expected one of {', '.join(MEASURES)}\n"
            f"  got {name!r}{near(name, list(MEASURES))}"
        )
    return MEASURES[name]


def _settings(measure: Measure, asked: ArrayOptions) -> dict[str, Any]:
    """The options of the measure; its estimator is the unbiased one unless asked for otherwise."""
    given: dict[str, object] = read_options(asked.options)
    if asked.kernel is not None:
        given["kernel"] = read_kernel(asked.kernel)
    if asked.estimator is not None:
        given["estimator"] = asked.estimator
    try:
        known = measure.options("measure", given)
    except InputError as error:
        raise UsageError(str(error)) from error
    if "estimator" in known and "estimator" not in measure.preset:
        given.setdefault("estimator", "unbiased")
    return given


def _only(layers: Mapping[str, Any]) -> Any:
    (array,) = layers.values()
    return array


def _pair(
    session: Session,
    files: tuple[str, str],
    x: Any,
    y: Any,
    measure: Measure,
    settings: dict[str, Any],
    asked: ArrayOptions,
) -> None:
    import repsim

    found: dict[str, Any] = {
        "command": "measure",
        "x": files[0],
        "y": files[1],
        "measure": measure.name,
        **{name: _text(value) for name, value in measure.options("measure", settings).items()},
        "value": float(measure.function(x, y, **settings)),
        "units": measure.units,
        "n_samples": int(x.shape[0]),
        "repsim_version": repsim.__version__,
    }
    if asked.test:
        test = repsim.permutation_test(
            x,
            y,
            measure=measure,
            permutations=asked.permutations,
            seed=asked.seed,
            **settings,
        )
        found["permutation_test"] = {
            "p_value": test.p_value,
            "z": test.z,
            "permutations": test.permutations,
            "seed": asked.seed,
        }
        if measure.name == "cka" and settings.get("estimator") == "unbiased":
            kernel: Any = settings.get("kernel", "linear")
            known = repsim.jackknife(x, y, kernel=kernel)
            found["jackknife"] = {
                "standard_error": known.standard_error,
                "low": known.low,
                "high": known.high,
                "level": known.level,
            }
    if session.as_json:
        session.emit(found)
        return
    # The bare number first: `repsim measure a.npy b.npy | head -1` is a value.
    session.line(f"{found['value']:.6f}")
    session.line(_described(found, measure))
    if asked.test:
        p = found["permutation_test"]
        session.line(f"p = {p['p_value']:.4g} ({p['permutations']} permutations), z = {p['z']:.2f}")
        if "jackknife" in found:
            j = found["jackknife"]
            session.line(
                f"{j['level']:.0%} interval [{j['low']:.4f}, {j['high']:.4f}], "
                f"standard error {j['standard_error']:.4f} (jackknife)"
            )
        else:
            session.line("no interval: the jackknife is for unbiased CKA")


def _described(found: Mapping[str, Any], measure: Measure) -> str:
    choices = [
        f"{name}={found[name]}"
        for name in measure.options("measure", {})
        if found[name] is not None
    ]
    kind = "similarity" if measure.similarity else "dissimilarity"
    listed = f" ({', '.join(choices)})" if choices else ""
    return f"{measure.name}, a {kind}{listed}, n={found['n_samples']}"


def _matrix(
    session: Session,
    files: tuple[str, str],
    xs: dict[str, Any],
    ys: dict[str, Any] | None,
    measure: Measure,
    settings: dict[str, Any],
    asked: ArrayOptions,
) -> None:
    import repsim

    blockwise = measure.name == "cka" and not set(settings) - {"kernel", "estimator"}
    if asked.test:
        if not blockwise:
            raise UsageError(
                f"--test: of several layers only CKA is tested, all pairs under one error rate.\n"
                f"  got --measure {measure.name}\n"
                f"  Leave --measure out, or compare two single arrays."
            )
        result: Any = repsim.max_t(
            xs, ys, permutations=asked.permutations, seed=asked.seed, **settings
        )
    elif blockwise:  # in bounded memory, whatever n
        result = repsim.cka_matrix(xs, ys, progress=asked.progress, **settings)
    else:
        result = repsim.pairwise(xs, ys, measure=measure, **settings)
    dataset = result if asked.test else result.to_dataset(name=measure.name)
    if session.as_json:
        session.emit({"command": "measure", "x": files[0], "y": files[1], **dataset_json(dataset)})
        return
    values = dataset[measure.name]
    n = int(dataset.attrs.get("n_samples", values.attrs.get("n_samples", 0)))
    chosen = settings.get("estimator")
    how = measure.name if chosen is None else f"{measure.name}, {chosen}"
    show_matrix(session, f"{how}, n={n}", values)
    if asked.test:
        show_matrix(session, "p-values, adjusted for all pairs (max-T)", dataset["p_adjusted"])


def _text(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else str(value)
