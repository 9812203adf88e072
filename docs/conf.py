"""The documentation's build: offline, warnings are errors, pictures from code that ran."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "examples")]
# Pictures and small models: one thread is faster than a pool, and the same on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from sphinx_gallery.sorting import ExplicitOrder  # noqa: E402

import repsim  # noqa: E402
from gallery_axes import axes_of_last_line, quiet  # noqa: E402

project = "repsim"
author = "The repsim developers"
project_copyright = "the repsim developers"
release = version = repsim.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "architecture",
    "executed_pages",
    "gallery_downloads",
    "mathml",
    "narrow_screens",
    "optional_pages",
    "reference_pages",
]
exclude_patterns = ["_build", "notes", "gallery/*.rst", "reference/**/_*", "Thumbs.db"]
suppress_warnings = ["config.cache"]  # the gallery's settings hold functions

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the docstrings say shape, unit and range, which types do not
autodoc_default_options = {"members": True, "member-order": "bysource"}
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Warns", "returns_style")]
maximum_signature_line_length = 88
add_module_names = False
default_role = "py:obj"  # `repsim.compare` in a docstring is a link

PICTURES = [
    "plot_cka_map.py",
    "plot_layer_match.py",
    "plot_panels.py",
    "plot_above_chance.py",
    "plot_attention_distance.py",
    "plot_head_subsets.py",
    "plot_receptive_field.py",
    "plot_residual_ratios.py",
    "plot_block_influence.py",
    "plot_localization.py",
    "plot_probe.py",
    "plot_measures.py",
    "plot_streaming.py",
]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "backreferences_dir": "auto_gallery/backreferences",
    "doc_module": ("repsim",),
    "reference_url": {"repsim": None},
    "filename_pattern": r"/plot_",
    "within_subsection_order": ExplicitOrder(PICTURES),
    "image_scrapers": (axes_of_last_line,),
    "reset_modules": (quiet,),
    "ignore_repr_types": r"matplotlib|'list'",
    "capture_repr": ("_repr_html_", "__repr__"),
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "remove_config_comments": True,
    "write_computation_times": False,
}

html_theme = "furo"
html_title = f"repsim {release}"
html_static_path = ["_static"]
html_css_files = ["repsim.css"]
html_show_sourcelink = False
html_theme_options = {
    "source_repository": "",
    "sidebar_hide_name": False,
    "light_css_variables": {
        "color-brand-primary": "#8a2b68",
        "color-brand-content": "#8a2b68",
        "font-stack--monospace": "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace",
    },
    "dark_css_variables": {
        "color-brand-primary": "#f0a3cf",
        "color-brand-content": "#f0a3cf",
    },
}
pygments_style = "default"  # its colours stand out from the ground
pygments_dark_style = "github-dark"
