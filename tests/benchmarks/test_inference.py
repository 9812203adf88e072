"""The populations have the CKA that the simulation states, and its tables hold the results."""

import numpy as np
import pytest

import inference as simulation
import repsim


@pytest.mark.parametrize("population", simulation.COVERAGE, ids=lambda p: p.name)
def test_population_cka_is_that_of_many_samples(population):
    big = simulation.Population(**{**vars(population), "n": 6000 * population.per_group // 5 * 5})
    x, y = big.draw(np.random.default_rng(0))
    found = float(repsim.cka(x, y, estimator="unbiased"))
    assert found == pytest.approx(population.cka(), abs=0.03)
    labels = population.labels()
    assert labels is None or len(labels) == population.n


def test_the_bootstrap_is_that_of_the_estimators():
    x, y = np.random.default_rng(0).standard_normal((2, 12, 3))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    for centre, estimator in (
        (simulation.u_centred, "unbiased"),
        (simulation.doubly_centred, "biased"),
    ):
        expected = float(repsim.cka(x, y, estimator=estimator))
        assert simulation.cosine(centre(k), centre(l)) == pytest.approx(expected, rel=1e-10)


def test_run_and_write(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simulation, "COVERAGE", simulation.COVERAGE[::5])
    monkeypatch.setattr(simulation, "NULLS", dict(list(simulation.NULLS.items())[-2:]))
    page = tmp_path / "README.md"
    page.write_text(f"before\n{simulation.START}\nold\n{simulation.END}\nafter\n")
    found = tmp_path / "found.json"
    text = simulation.main(
        ["--datasets", "2", "--nulls", "2", "--write", str(page), "--json", str(found)]
    )
    written = page.read_text()
    assert written == f"before\n{simulation.START}\n{text}\n{simulation.END}\nafter\n"
    for name in ("n = 50, 10 and 10 features", "40 groups of 3", "without `groups=`", "max-T"):
        assert (name in text) == (name != "max-T")
    assert text.count("**Maps of 8 × 8") == 1
    assert text in capsys.readouterr().out
    assert found.stat().st_size > 100
