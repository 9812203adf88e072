"""What ``import repsim`` loads; the checks themselves are checked too."""

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

HEAVY = ("torch", "pandas", "xarray", "matplotlib", "jax", "cupy", "tensorflow", "scipy", "sklearn")

REPORT = f"""
import sys
print(*(name for name in {HEAVY!r} if name in sys.modules))
"""


def loaded_by(script):
    """The heavy packages that a fresh interpreter has loaded after the script."""
    run = subprocess.run(
        [sys.executable, "-c", script + REPORT], capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()[-1].split()


def test_import_loads_no_framework():
    assert loaded_by("import repsim") == []


def own_modules(script):
    """The modules of repsim, and NumPy, that a fresh interpreter has loaded after the script."""
    report = (
        "import sys; print(*(n for n in sys.modules if n.split('.')[0] in ('repsim', 'numpy')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"{script}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_import_loads_the_errors_alone():
    loaded = own_modules("import repsim")
    assert loaded == {"repsim", "repsim._errors", "repsim._version"}


def test_a_name_loads_only_the_modules_that_it_needs():
    loaded = own_modules("import repsim; repsim.cka")
    assert {"numpy", "repsim.measures._cka"} <= loaded
    assert not {"repsim.inference", "repsim.attention", "repsim.streaming"} & loaded
    assert not {"repsim.results", "repsim.measures._procrustes", "repsim.measures._rsa"} & loaded
    loaded = own_modules("import repsim; repsim.kernels.RBF")
    assert not {"repsim.measures", "repsim.estimators"} & loaded


def test_a_value_loads_no_other_measure_and_no_further_part_of_numpy():
    script = "import numpy, repsim; x = numpy.eye(5)[:, :2]; repsim.cka(x, x, estimator='unbiased')"
    loaded = own_modules(script)
    assert not {"numpy.f2py", "numpy.testing", "numpy.ma", "numpy.random"} & loaded
    assert not {"repsim.results", "repsim.measures._procrustes", "repsim.measures._rsa"} & loaded


def test_the_table_has_every_measure_before_its_module_loads():
    script = """
import importlib, pkgutil, repsim
before = list(repsim.measures.MEASURES)
for info in pkgutil.walk_packages(repsim.measures.__path__, "repsim.measures."):
    importlib.import_module(info.name)
assert list(repsim.measures.MEASURES) == before, (before, list(repsim.measures.MEASURES))
assert [m.name for m in repsim.measures.MEASURES.values()] == before
"""
    own_modules(script)


def test_subpackages_are_there_without_an_import_of_their_own():
    script = "import repsim; repsim.measures.MEASURES['cka']; repsim.inference.null_moments"
    assert "repsim.inference._null_moments" in own_modules(script)


def test_cka_of_numpy_loads_no_framework():
    script = """
import numpy as np
import repsim
rng = np.random.default_rng(0)
x, y = rng.standard_normal((9, 3)), rng.standard_normal((9, 40))
for kernel in repsim.kernels.KERNELS:
    for estimator in ("biased", "unbiased"):
        repsim.cka(x, y, kernel=kernel, estimator=estimator)
        repsim.hsic(x, y, kernel=kernel, estimator=estimator)
repsim.cka_from_gram(x @ x.T, y @ y.T)
dir(repsim)
"""
    assert loaded_by(script) == []


def test_errors_load_no_framework():
    script = """
import repsim
try:
    repsim.cka([[1.0]], [[1.0]])
except repsim.ArrayTypeError:
    pass
"""
    assert loaded_by(script) == []


def test_streaming_statistics_load_no_torch():
    assert "torch" not in loaded_by("import repsim; repsim.MinibatchCKA")


@pytest.mark.slow
def test_stored_activations_are_read_without_torch(tmp_path):
    torch = pytest.importorskip("torch")
    import repsim

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    repsim.extract(net, [torch.randn(6, 3)], out=tmp_path / "run.zarr", progress=False)
    script = f"""
import repsim
stored = repsim.open_activations({str(tmp_path / "run.zarr")!r})
repsim.cka_matrix(stored)
repsim.pairwise(stored)
repsim.jackknife(stored["0"], stored["1"])
"""
    assert not {"torch", "matplotlib", "jax"} & set(loaded_by(script))


def test_the_check_finds_the_imports_of_a_script(tmp_path):
    for name in HEAVY:
        (tmp_path / f"{name}.py").touch()  # found before the package, and loaded at once
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import repsim, {', '.join(HEAVY)}"
    assert loaded_by(script) == list(HEAVY)


def test_the_check_finds_the_imports_of_a_lazy_name():
    pytest.importorskip("matplotlib")
    assert "matplotlib" in loaded_by("import repsim; repsim.plot.heatmap")


def modules():
    import repsim

    for info in pkgutil.walk_packages(repsim.__path__, "repsim."):
        yield importlib.import_module(info.name)


def shadows(module):
    """Functions that a package exports under the name of one of its own modules."""
    inside = {info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))}
    exported = {
        name
        for name in getattr(module, "__all__", [])
        if not isinstance(getattr(module, name), types.ModuleType)
    }
    return inside & exported


def test_no_module_has_the_name_of_a_function_it_exports():
    import repsim

    assert shadows(repsim) == set()
    seen = 0
    for module in modules():
        seen += 1
        assert shadows(module) == set(), module.__name__
        last = module.__name__.rpartition(".")[2]
        assert last not in getattr(module, "__all__", []), module.__name__
    assert seen > 15


def test_the_shadow_check_sees_a_shadow(tmp_path, monkeypatch):
    package = tmp_path / "shadowed"
    package.mkdir()
    (package / "__init__.py").write_text("from shadowed.cka import cka\n__all__ = ['cka']\n")
    (package / "cka.py").write_text("def cka(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert shadows(importlib.import_module("shadowed")) == {"cka"}
    for name in ("shadowed", "shadowed.cka"):
        monkeypatch.delitem(sys.modules, name)
