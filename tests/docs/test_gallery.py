"""Pictures of the gallery have the width of a page, and downloads run alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"

pytest.importorskip("sphinx_gallery")


@pytest.mark.parametrize("width", [4, 12])
def test_a_picture_is_no_wider_than_the_text(width, tmp_path, extensions):
    from matplotlib.figure import Figure

    import gallery_axes

    axes = Figure(figsize=(width, 2)).subplots(1, 2)
    for last_line in (axes, list(axes), axes[0], axes[0].figure):
        path = tmp_path / "picture.png"
        variables = {"example_globals": {"___": last_line}, "image_path_iterator": iter([path])}
        text = gallery_axes.axes_of_last_line(("", "", 0), variables, {"src_dir": str(tmp_path)})
        assert "picture.png" in text
        with Image.open(path) as picture:
            assert picture.width == min(144 * width, gallery_axes.SHOWN)
            assert np.ptp(np.asarray(picture)) > 0


RUN_ALL = """
import runpy, sys, warnings, matplotlib.pyplot as plt
shown = []
plt.show = lambda: shown.append(plt.get_fignums())
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=DeprecationWarning)
for script in sys.argv[1:]:
    runpy.run_path(script)
    assert shown.pop(), f"{script} shows no picture"
    plt.close("all")
"""


@pytest.mark.slow
def test_downloads_run_alone_in_an_empty_folder(tmp_path, extensions):
    import gallery_downloads

    sources = sorted(GALLERY.glob("plot_*.py"))
    assert len(sources) > 10
    if not os.environ.get("REPSIM_DOCS"):  # with it all of them run, in half a minute
        sources = sources[::4]
    for source in sources:
        text = gallery_downloads.alone(source.read_text(encoding="utf-8"))
        assert gallery_downloads.alone(text) == text
        text = re.sub(r"^EPOCHS = 8$", "EPOCHS = 1", text, flags=re.M)  # the rest is the same
        (tmp_path / source.name).write_text(text, encoding="utf-8")
    cells = [
        "import repsim\n" + gallery_downloads.IMPORT + "\nnetworks = trained()",
        "networks.cnn",
    ]
    notebook = {"cells": [{"cell_type": "code", "source": [cell]} for cell in cells]}
    text = gallery_downloads.notebook_alone(json.dumps(notebook))
    assert gallery_downloads.notebook_alone(text) == text
    joined = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    (tmp_path / "notebook.py").write_text(
        f"import matplotlib.pyplot as plt\n{joined}\nplt.figure()\nplt.show()", encoding="utf-8"
    )
    names = [*(source.name for source in sources), "notebook.py"]
    run = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *names],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
