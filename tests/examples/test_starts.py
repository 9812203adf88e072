"""Scripts are started as a user starts them: in a new interpreter, ranks by torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANKS = """
import torch, torch.distributed as dist, repsim
dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())
x = torch.randn(40, 4)
result = repsim.compare(model, data=[x[dist.get_rank() :: 2]], group="world", progress=False)
if dist.get_rank() == 0:
    print(result.attrs["n_samples"], "samples,", result.attrs["n_ranks"], "ranks")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_scripts_start(tmp_path):
    """All at once, because most of their time is that of imports."""
    for package in ("torch", "sklearn", "matplotlib", "timm", "skimage"):
        pytest.importorskip(package)
    (tmp_path / "ranks.py").write_text(RANKS)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = [str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    started = [
        (
            said,
            subprocess.Popen(
                [sys.executable, *words],
                cwd=tmp_path, env=env, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            ),
        )
        for words, said in (
            ([str(ROOT / "examples" / "digits.py"), "--help"], "--quick"),
            (["-m", "raghu2021", "--help"], "--out"),
            ([*launch, "ranks.py"], "40 samples, 2 ranks"),
        )
    ]  # fmt: skip
    for said, process in started:
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert said in printed
