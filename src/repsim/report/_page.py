"""One self-contained page: its text is written here, and its script draws the pictures."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import xarray as xr

from repsim._errors import InputError
from repsim._missing import missing_package
from repsim._options import as_path, got, require_text
from repsim._shown import shown
from repsim._version import __version__
from repsim.report._blocks import Section
from repsim.report._models import title_of
from repsim.report._run import as_dataset
from repsim.report._sections import section_of
from repsim.results import LAYER_MAP
from repsim.storage import write_whole

__all__ = ["write_report"]

UNTRAINED = ("untrained", "random", "init")
"""Names of a control."""


def write_report(
    results: Mapping[str, xr.Dataset | xr.DataArray],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    command: str | Sequence[str] | None = None,
    skipped: Mapping[str, str] | None = None,
) -> Path:
    r"""Write one HTML page that shows results: interactive maps, curves and findings.

    >>> import tempfile, xarray, repsim.report
    >>> cka = xarray.DataArray(
    ...     [[1.0, 0.4], [0.5, 0.8]],
    ...     coords={"layer_x": ["stem", "head"], "layer_y": ["embed", "head"]},
    ...     dims=("layer_x", "layer_y"),
    ...     name="cka",
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = repsim.report.write_report({"CNN with ViT": cka}, folder + "/report.html")
    ...     text = page.read_text(encoding="utf-8")
    >>> "<h1>CNN with ViT</h1>" in text
    True

    The page is a single file that loads nothing else, so you can send it to others. It is readable
    on a phone, in print, in light and dark mode, and by a screen reader: each picture has a
    description and a table of its data.

    Parameters
    ----------
    results : mapping of str to xarray.Dataset or xarray.DataArray
        Results of functions of repsim by their names on the page, in the order of the page. The
        variables of a result determine its kind; a Dataset of an unknown kind is shown as a table
        of its variables.
    path : str or os.PathLike
        The file to write; an existing file is replaced. Its folder must exist.
    title : str, optional
        The heading; by default the models of the results, if these name them, or the name of a
        single result.
    command : str or sequence of str, optional
        The command that made the results, shown at the end.
    skipped : mapping of str to str, optional
        Results that are missing and why, shown below the findings.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        There are no results, or one is neither a Dataset nor a DataArray.
    ModuleNotFoundError
        jinja2 is missing; the extra ``cli`` installs it.
    OSError
        The file cannot be written; an existing page is unchanged.

    Notes
    -----
    Findings are numbers of the results, and cautions say what these numbers do not show. The page
    gives no verdicts. Below the heading and beside each picture it says which models were not
    trained: those whose attribute ``weights``, ``weights_x`` or ``weights_y`` begins with "random",
    as the command writes it, or whose names contain "untrained". Curves over more than 60 layers
    are drawn over whole blocks, or over evenly spaced layers.

    Maps store values in float32 and show four digits. Receptive fields and token maps store 8 bits
    per cell. The same results give the same bytes. Cost: O(L³) for the orders of a map of L layers;
    a map of 150 by 150 with its standard errors and z-scores takes 0.45 MB.

    Names in a result may contain any characters. The page treats them as text, never as markup, and
    forbids all scripts except its own. Control characters are shown escaped, as ``\x1b``.

    References
    ----------
    Orders: average linkage with optimal leaves, Bar-Joseph, Gifford, Jaakkola 2001, "Fast optimal
    leaf ordering for hierarchical clustering".
    """
    if not isinstance(results, Mapping) or not results:
        what = "an empty mapping" if isinstance(results, Mapping) else type(results).__name__
        raise InputError(
            f"write_report: results must map names to results.\n  results: {what}\n"
            "  Name them, as in {'ViT with CNN': result}, or read a run folder with load_results."
        )
    page = Path(as_path("write_report", "path", path))
    datasets = {str(name): as_dataset("write_report", each) for name, each in results.items()}
    sections = [section_of(name, dataset) for name, dataset in datasets.items()]
    if title is None:
        alone = next(iter(datasets)) if len(datasets) == 1 else "Representation similarity"
        title = title_of(datasets.values()) or alone
    require_text("write_report", title=title)
    if command is not None and not isinstance(command, str):
        if not isinstance(command, list | tuple) or not all(isinstance(x, str) for x in command):
            raise InputError(
                f"write_report: command must be a string or a list of strings.\n"
                f"  command: {type(command).__name__}"
            )
        command = shlex.join(command)
    if not isinstance(skipped, Mapping | None) or not all(
        isinstance(each, str) for pair in (skipped or {}).items() for each in pair
    ):
        raise InputError(
            f"write_report: skipped must map names to reasons.\n  got {got(skipped)}\n"
            "  For example {'linear_probe': 'the data have no labels'}."
        )
    untrained = dict.fromkeys(name for section in sections for name in section.untrained)
    html = _render(
        title=title,
        untrained=list(untrained),
        skipped={name: " ".join(why.split()) for name, why in (skipped or {}).items()},
        command=command,
        sections=sections,
        cautions=_cautions(datasets, sections),
        versions=_versions(datasets),
    )
    write_whole(page, lambda file: file.write(html.encode()))
    return page


def _render(sections: list[Section], **values: Any) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise missing_package("write_report", error) or error from error
    folder = files("repsim.report")
    script, style, template = (
        (folder / f"_page.{kind}").read_text(encoding="utf-8") for kind in ("js", "css", "html.j2")
    )
    pictures = [picture for section in sections for picture in section.pictures]
    # In a script element only "<" could start its end tag.
    data = json.dumps(
        _all_shown([picture.data() for picture in pictures]),
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).replace("<", "\\u003c")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    return environment.from_string(template).render(
        sections=sections,
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash(script),
        style_hash=_hash(style),
        data=Markup(data),
        version=__version__,
        **values,
    )


def _all_shown(value: Any) -> Any:
    """Escape every text of nested values."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {_all_shown(key): _all_shown(each) for key, each in value.items()}
    return [_all_shown(each) for each in value] if isinstance(value, list | tuple) else value


def _hash(text: str) -> str:
    """The source that the policy of the page allows: only this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _cautions(datasets: Mapping[str, xr.Dataset], sections: list[Section]) -> list[str]:
    """Cautions about the results as a whole."""
    maps = [section.name for section in sections if section.kind == LAYER_MAP.title]
    if not maps:
        return []
    called = " ".join(
        f"{name} {dataset.attrs.get('model_x', '')} {dataset.attrs.get('model_y', '')}"
        for name, dataset in datasets.items()
    ).lower()
    out = []
    untrained = any(section.untrained for section in sections)
    if not untrained and not any(word in called for word in UNTRAINED):
        out.append(
            "The results have no untrained control (none is named so). Two untrained networks "
            "can score high because they see the same images."
        )
    if not any(key in datasets[name] for name in maps for key in ("z", "p_adjusted", "p_value")):
        out.append(
            "No map has a test against chance. compare(z_scores=True), on the command line "
            "--z-scores, and max_t show which cells are above chance."
        )
    return out


def _versions(datasets: Mapping[str, xr.Dataset]) -> list[tuple[str, str]]:
    """Each version in the results, once."""
    found: dict[str, list[str]] = {}
    for dataset in datasets.values():
        for attrs in (dataset.attrs, *(each.attrs for each in dataset.data_vars.values())):
            for key, value in attrs.items():
                values = found.setdefault(str(key), [])
                if str(key).endswith("_version") and str(value) not in values:
                    values.append(str(value))
    return [
        (key.removesuffix("_version"), ", ".join(values)) for key, values in found.items() if values
    ]
