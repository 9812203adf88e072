"""Run the files ``on_*.py`` of this folder, in a process with the emulated device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch takes no backend from Python",
)
def test_on_the_emulated_device():
    """The report names every case that failed, and the lines that waited for the device."""
    files = sorted(map(str, HERE.glob("on_*.py")))
    assert files
    command = [sys.executable, "-m", "pytest", "-q", "-p", "emulated.device", *files]
    options = ["-p", "no:cacheprovider", "-o", "python_files=on_*.py", "--durations=5"]
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    ran = subprocess.run(
        [*command, *options],
        cwd=HERE.parents[1],
        env={**os.environ, **threads, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
