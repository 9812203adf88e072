"""The work of ``repsim measure``: two arrays give a number, named layers give a matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from repsim._version import __version__
from repsim.cli._literals import read_kernel, read_measure
from repsim.cli._outcome import UsageError
from repsim.cli._session import Session, decimal
from repsim.cli._tables import dataset_json, show_matrix
from repsim.cli.data._array_files import read_each, read_layers
from repsim.measures import Measure
from repsim.results import ADJUSTED

if TYPE_CHECKING:
    from repsim.cli.commands._measure import MeasureOptions, TestOptions

__all__ = ["measure_arrays"]

PERMUTATIONS = 999


def measure_arrays(
    session: Session,
    files: Sequence[str],
    asked: MeasureOptions,
    chance: TestOptions,
    *,
    progress: bool,
) -> None:
    """Measure the arrays of two files, or those of one or of several files with each other."""
    choice = _choice(asked)
    if len(files) > 2:
        dataset = _matrix(read_each(files), None, choice, chance, progress)
        _show_matrix_of(session, {"files": list(files)}, dataset, choice, chance)
        return
    x, y = files[0], files[1] if len(files) == 2 else None
    xs = read_layers(x)
    ys = None if y is None else read_layers(y)
    if ys is None and len(xs) == 1:
        raise UsageError(
            "measure: a single array needs another one to be compared with.\n"
            f"  got {x}\n"
            "  Name a second file, or an .npz with several layers."
        )
    if ys is not None and len(xs) == len(ys) == 1:
        found = {
            "command": "measure",
            "x": x,
            "y": y,
            **_pair(_only(xs), _only(ys), choice, chance),
            "repsim_version": __version__,
        }
        if session.as_json:
            session.emit(found)
        else:
            _show_pair(session, found, choice.measure, chance)
        return
    dataset = _matrix(xs, ys, choice, chance, progress)
    _show_matrix_of(session, {"x": x, "y": y or x}, dataset, choice, chance)


@dataclass(frozen=True)
class _Choice:
    """A measure with its options."""

    measure: Measure
    settings: dict[str, Any]

    @property
    def is_plain_cka(self) -> bool:
        """Whether it is CKA of the given features, without corrections and covariates."""
        usual = self.measure.options("measure", {})
        others = set(self.settings) - {"kernel", "estimator"}
        return self.measure.name == "cka" and all(self.settings[k] == usual[k] for k in others)


def _choice(asked: MeasureOptions) -> _Choice:
    """Read the measure and its options; the estimator is unbiased by default.

    Raises
    ------
    UsageError
        There is no such measure, or it has no such option.
    """
    kernel = None if asked.kernel is None else read_kernel(asked.kernel)
    estimator = None if asked.estimator is None else asked.estimator.value
    measure, given = read_measure(
        asked.measure, asked.option or (), kernel=kernel, estimator=estimator
    )
    if "estimator" in measure.options("measure", given):
        given["estimator"] = measure.options_of_many("measure", given)["estimator"]
    return _Choice(measure, given)


def _only(layers: Mapping[str, Any]) -> Any:
    (array,) = layers.values()
    return array


def _pair(x: Any, y: Any, choice: _Choice, chance: TestOptions) -> dict[str, Any]:
    """Return the value of two arrays, with p-value and interval if requested."""
    measure, settings = choice.measure, choice.settings
    options = measure.options("measure", settings)
    found: dict[str, Any] = {
        "measure": measure.name,
        **{name: _plain(value) for name, value in options.items()},
        "value": float(measure.function(x, y, **settings)),
        "units": measure.units,
        "n_samples": int(x.shape[0]),
    }
    if not chance.test:
        return found
    from repsim.inference import jackknife, permutation_test

    test = permutation_test(
        x,
        y,
        measure=measure,
        permutations=chance.permutations or PERMUTATIONS,
        seed=chance.seed,
        **settings,
    )
    found["permutation_test"] = {
        "p_value": test.p_value,
        "z": test.z,
        "permutations": test.permutations,
        "seed": chance.seed,
    }
    if choice.is_plain_cka and settings.get("estimator") == "unbiased":
        interval = jackknife(x, y, kernel=settings.get("kernel", "linear"))
        found["jackknife"] = {
            "standard_error": interval.standard_error,
            "low": interval.low,
            "high": interval.high,
            "level": interval.level,
        }
    return found


def _show_pair(
    session: Session, found: Mapping[str, Any], measure: Measure, chance: TestOptions
) -> None:
    # Write the bare number first, so `repsim measure a.npy b.npy | head -1` is a value.
    session.line(decimal(found["value"], 6))
    options = [
        f"{name}={found[name]}"
        for name in measure.options("measure", {})
        if found[name] is not None
    ]
    kind = "similarity" if measure.similarity else "dissimilarity"
    listed = f" ({', '.join(options)})" if options else ""
    session.line(f"{measure.name}, a {kind}{listed}, n={found['n_samples']}")
    if not chance.test:
        return
    p = found["permutation_test"]
    session.line(f"p = {p['p_value']:.4g} ({p['permutations']} permutations), z = {p['z']:.2f}")
    if "jackknife" in found:
        j = found["jackknife"]
        session.line(
            f"{100 * j['level']:.6g}% interval [{j['low']:.4f}, {j['high']:.4f}], "
            f"standard error {j['standard_error']:.4f} (jackknife)"
        )
    else:
        session.line("no interval: the jackknife is for unbiased CKA of all features")


def _matrix(
    xs: dict[str, Any],
    ys: dict[str, Any] | None,
    choice: _Choice,
    chance: TestOptions,
    progress: bool,
) -> Any:
    """Return the values of all pairs of layers, with p-values if a test is requested."""
    import repsim

    measure, settings = choice.measure, choice.settings
    if chance.test:
        permutations = chance.permutations or PERMUTATIONS
        return repsim.max_t(
            xs, ys, measure=measure, permutations=permutations, seed=chance.seed, **settings
        )
    if choice.is_plain_cka:  # in bounded memory for any number of samples
        own = {key: value for key, value in settings.items() if key in ("kernel", "estimator")}
        result = repsim.cka_matrix(xs, ys, progress=progress, **own)
    else:
        result = repsim.pairwise(xs, ys, measure=measure, **settings)
    return result.to_dataset(name=measure.name)


def _show_matrix_of(
    session: Session,
    files: Mapping[str, Any],
    dataset: Any,
    choice: _Choice,
    chance: TestOptions,
) -> None:
    if session.as_json:
        session.emit({"command": "measure", **files, **dataset_json(dataset)})
        return
    name = choice.measure.name
    values = dataset[name]
    n = int(dataset.attrs.get("n_samples", values.attrs.get("n_samples", 0)))
    estimator = choice.settings.get("estimator")
    how = name if estimator is None else f"{name}, {estimator}"
    show_matrix(session, f"{how}, n={n}", values)
    if chance.test:
        show_matrix(session, ADJUSTED, dataset["p_adjusted"])


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else str(value)
