"""A type checker finds a misspelled choice before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CALLS = """\
import numpy as np
import repsim
from repsim import attention, inference, kernels, plot

x = np.zeros((9, 2))
maps = repsim.cka_matrix({"x": x})
repsim.cka(x, x, estimator="unbiased", kernel="rbf")
repsim.cka(x, x, kernel=kernels.RBF(median="off_diagonal"))
repsim.rsa(x, x, rdm="cosine", comparison="pearson")
repsim.cka(x, x, estimator="unbiasd")  # refused
repsim.hsic(x, x, kernel="rbff")  # refused
repsim.cka(x, x, features="some")  # refused
repsim.cka_matrix({"x": x}, dtype="float16")  # refused
inference.bootstrap_rsa(x, x, comparison="rho_a")  # refused
repsim.noise_ceiling([x, x], pool="mean")  # refused
inference.null_moments(x, x, estimator="none")  # refused
kernels.RBF(median="none")  # refused
repsim.cca(x, x, statistic="rho")  # refused
repsim.procrustes(x, x, norm="two")  # refused
repsim.mutual_knn(x, x, metric="cosin")  # refused
repsim.rdm(x, kind="corr")  # refused
repsim.rsa(x, x, comparison="kendal")  # refused
repsim.soft_matching(x, x, score="hard")  # refused
repsim.open_activations("a", transform="cls")  # refused
repsim.StreamingLinearCKA(estimator="none")  # refused
repsim.MinibatchCKA(kernel="gauss")  # refused
attention.rollout([x], heads="median")  # refused
plot.residual_ratios(maps.to_dataset(), kind="bars")  # refused
"""


@pytest.mark.slow
def test_misspelled_choices_are_found(tmp_path):
    pytest.importorskip("mypy")
    file = tmp_path / "calls.py"
    file.write_text(CALLS)
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--show-error-codes", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = {int(line.split(":")[1]) for line in ran.stdout.splitlines() if "[arg-type]" in line}
    lines = CALLS.splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
    assert found == expected, ran.stdout + ran.stderr
    assert "error" not in "".join(
        line for line in ran.stdout.splitlines() if "[arg-type]" not in line
    )
