"""Downloads of the gallery that run alone: the code of the small networks stands in them.

On a page, ``from digit_networks import trained`` keeps the example short. A reader does not have
that module, so a downloaded script or notebook defines and trains the networks itself. A script
also shows its pictures at its end.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx_gallery.utils import zip_files

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["alone", "notebook_alone", "setup"]

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
IMPORT = "from digit_networks import trained\n"

HEAD = """# The networks of this example: two small ones, and the digits on which they are trained.
import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm

KEPT = Path("digits.pt")  # trained once, and kept beside this file
"""


def definitions(path: Path, *names: str) -> str:
    """Return the source of what has these names in a file: classes, functions, numbers."""
    text = path.read_text(encoding="utf-8")
    found = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            name = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        else:
            continue
        if name in names:
            found.append(str(ast.get_source_segment(text, node)))
    return "\n\n\n".join(found)


def networks() -> str:
    """Return code that defines ``trained`` of ``digit_networks`` from packages alone."""
    return "\n\n\n".join(
        (
            HEAD.rstrip(),
            definitions(HERE / "digit_networks.py", "EPOCHS"),
            definitions(EXAMPLES / "_digit_models.py", "Embed", "Attention", "MLP", "EncoderBlock"),
            definitions(EXAMPLES / "_digit_models.py", "ViT", "ConvBlock", "CNN"),
            definitions(EXAMPLES / "digits.py", "Digits", "load", "train"),
            definitions(HERE / "digit_networks.py", "Networks", "trained") + "\n",
        )
    )


def alone(script: str) -> str:
    """Return a script of the gallery as one that runs alone and shows its pictures."""
    if "import matplotlib.pyplot as plt\n" not in script:
        first = re.compile(r"^(?=import |from )", re.M)
        script = first.sub("import matplotlib.pyplot as plt\n", script, count=1)
    if not script.rstrip().endswith("plt.show()"):
        script = script.rstrip() + "\n\nplt.show()\n"
    return script.replace(IMPORT, f"\n# {'-' * 70}\n{networks()}\n# {'-' * 70}\n")


def notebook_alone(text: str) -> str:
    """Return a notebook of the gallery with the networks in a cell of their own."""
    notebook = json.loads(text)
    cells = notebook["cells"]
    for at, cell in enumerate(cells):
        code = "".join(cell["source"])
        if cell["cell_type"] == "code" and IMPORT in code:
            cell["source"] = [code.replace(IMPORT, "")]
            cells.insert(at, {**cell, "source": [networks()]})
            break
    return json.dumps(notebook, indent=1) + "\n"


def write(app: Sphinx) -> None:
    """Rewrite the downloads after the gallery was made, or found unchanged."""
    folder = Path(app.srcdir, "auto_gallery")
    for script in sorted(folder.glob("plot_*.py")):
        notebook = script.with_suffix(".ipynb")
        script.write_text(alone(script.read_text(encoding="utf-8")), encoding="utf-8")
        notebook.write_text(notebook_alone(notebook.read_text(encoding="utf-8")), encoding="utf-8")
        zip_files([script, notebook], script.with_suffix(".zip"), folder)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write, priority=900)  # sphinx-gallery has 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
