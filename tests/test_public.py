"""The public names."""

import inspect
import subprocess
import sys
import types

import pytest

import repsim


@pytest.mark.parametrize("name", repsim.__all__)
def test_every_public_name_resolves(name):
    if name in ("Recorder", "compare"):
        pytest.importorskip("torch")
    if name == "plot":
        pytest.importorskip("matplotlib")
    value = getattr(repsim, name)
    assert value is getattr(repsim, name)  # and stays what it is
    if name in ("attention", "inference", "kernels", "plot", "report"):
        assert isinstance(value, types.ModuleType)
    elif name == "__version__":
        assert value.split(".")[0].isdigit()
    else:
        assert inspect.isclass(value) or inspect.isfunction(value)
        assert value.__doc__


def test_dir_lists_the_public_names():
    assert dir(repsim) == sorted(repsim.__all__)
    assert len(set(repsim.__all__)) == len(repsim.__all__)


def test_the_picture_of_a_result_is_found_from_its_function():
    plot = pytest.importorskip("repsim.plot")
    assert dir(plot) == sorted(plot.__all__)
    for function, picture in {
        "token_localization": "localization",
        "effective_receptive_field": "receptive_field",
        "linear_probe": "probe",
        "head_subset_cka": "head_subsets",
        "compare": "heatmap",
    }.items():
        assert hasattr(repsim, function)
        with pytest.raises(AttributeError, match=f"Did you mean: '{picture}'"):
            getattr(plot, function)
        assert callable(getattr(plot, picture))
    with pytest.raises(AttributeError, match=r"'repsim.plot' has no attribute 'show'$"):
        plot.show  # noqa: B018


def test_packages_are_found_without_an_import_of_their_own():
    pytest.importorskip("torch")
    code = "import repsim; repsim.capture.Recorder, repsim.measures.MEASURES"
    code += "; repsim.storage.open_activations"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names():
    with pytest.raises(AttributeError, match=r"'repsim' has no attribute 'ckaa'$"):
        repsim.ckaa  # noqa: B018
    for place, names in {
        "inference": ("subsample", "bootstrap_rsa", "jackknife_subjects", "null_moments"),
        "plot": ("heatmap",),
        "kernels": ("RBF",),
        "measures": ("MEASURES",),
        "report": ("write_report", "load_results"),
        "capture": ("token",),
    }.items():
        for name in names:
            with pytest.raises(AttributeError, match=f"Did you mean: 'repsim.{place}.{name}'"):
                getattr(repsim, name)
            assert hasattr(getattr(repsim, place), name)
    assert not hasattr(repsim, "torch")
    with pytest.raises(ImportError):
        from repsim import nothing_of_the_kind  # noqa: F401


def test_functions_are_functions_and_not_modules():
    for name in ("cka", "hsic", "cka_from_gram"):
        assert inspect.isfunction(getattr(repsim, name))


def test_all_errors_are_of_one_family():
    for name in repsim.__all__:
        value = getattr(repsim, name) if name.endswith(("Error", "Warning")) else None
        if name.endswith("Error"):
            assert issubclass(value, repsim.RepsimError)
        elif name.endswith("Warning"):
            assert issubclass(value, repsim.RepsimWarning)


@pytest.mark.parametrize("function", [repsim.cka, repsim.hsic, repsim.cka_from_gram])
def test_options_are_keyword_only_with_the_documented_defaults(function):
    parameters = list(inspect.signature(function).parameters.values())
    assert [p.kind for p in parameters[:2]] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 2
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[2:])
    defaults = {p.name: p.default for p in parameters[2:]}
    assert defaults["estimator"] == "biased"
    assert defaults.get("kernel", "linear") == "linear"
    for section in ("Parameters", "Returns", "Raises", "Notes", "References"):
        assert f"\n{section}\n" in inspect.getdoc(function)
