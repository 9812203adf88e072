"""The reference, written from the code before each build.

There is a page per measure (from the registry), a page per analysis, and a page per package with
all its public names. Only the pitfalls are written by hand, in ``notes/<name>.md``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from public_names import PACKAGES, PublicName, all_names, docstring_of
from repsim.measures import MEASURES, Measure

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["ANALYSES", "pages", "setup"]

NOTES = Path(__file__).parents[1] / "notes"
GALLERY = Path(__file__).parents[1] / "gallery"

ANALYSES = (
    "compare",
    "layer_match",
    "attention_distance",
    "head_subset_cka",
    "effective_receptive_field",
    "residual_ratios",
    "block_influence",
    "without_residual",
    "residual_sites",
    "token_localization",
    "linear_probe",
    "trajectory",
    "stitch",
    "data_scale",
)
"""In the order of the paper. Other analyses follow at the end."""

INVARIANCES = {
    "orthogonal": "rotations and reflections",
    "permutation": "order of the features",
    "isotropic_scale": "a common factor",
    "translation": "an added constant",
    "invertible_linear": "any invertible linear map",
}

INTRODUCTIONS = {
    "analysis": "Each takes a model and a stream of data and returns a labelled "
    "`xarray.Dataset`. These need torch.",
    "measures": "Each takes two arrays of the same samples and returns one number. Every measure "
    "has its own page. This page documents the functions that work with any measure.",
    "inference": "Whether a similarity could be chance, and how precise it is.",
    "streaming": "For data that arrive in batches or do not fit in memory.",
    "storage": "Opens activations that `repsim.extract` has stored.",
    "attention": "Numbers from attention weights of any framework.",
    "capture": "Recording what the layers of an unmodified torch model return. These need torch.",
    "kernels": "Functions of two samples; a Gram matrix holds their values for all pairs.",
    "plot": "Each takes a result and an optional Axes, draws, and returns the Axes. These need "
    "matplotlib.",
    "report": "Writes results to a folder and to one page that shows them.",
    "errors": "One hierarchy: `except repsim.RepsimError` catches everything that the library "
    "raises on purpose. [Errors explained](../errors.md) says what to do.",
}


def pages() -> dict[str, str]:
    """Return the text of every page of the reference by its path below ``reference/``."""
    names = all_names()
    measures = {m.function.__name__ for m in MEASURES.values()}
    analyses = [n for n in names if n.package == "analysis" or n.path[7:] in ANALYSES]
    analyses.sort(key=lambda n: ANALYSES.index(n.name) if n.name in ANALYSES else len(ANALYSES))
    own = {n.path: f"measures/{n.name}" for n in names if n.path[7:] in measures}
    own |= {n.path: f"analyses/{n.name}" for n in analyses}

    out = {own[n.path] + ".md": measure_page(n) for n in names if n.path[7:] in measures}
    out |= {own[n.path] + ".md": analysis_page(n) for n in analyses}
    out["measures/index.md"] = index(
        "Measures, one by one",
        "What each measure computes, what it ignores, and what misleads.",
        sorted((n for n in names if n.path[7:] in measures), key=lambda n: family(n.name)),
    )
    out["analyses/index.md"] = index(
        "Analyses, one by one",
        "What each analysis measures, on which models, and what misleads.",
        analyses,
    )
    packages = [*PACKAGES, "errors"]
    for package in packages:
        listed = [n for n in names if n.package == package]
        if listed:
            out[f"{package}.md"] = "\n".join(package_page(package, listed, own))
    out["index.md"] = "\n".join(
        [
            "# Reference\n",
            "Every public name, from the docstrings. The tests execute their examples.\n",
            *(
                f"- [{'errors and warnings' if p == 'errors' else p}]({p}.md): "
                f"{INTRODUCTIONS[p].split('. ')[0].rstrip('.')}."
                for p in packages
            ),
            "\n```{toctree}\n:hidden:\n",
            *packages,
            "```\n",
        ]
    )
    return out


def family(name: str) -> str:
    return next(m.family for m in MEASURES.values() if m.function.__name__ == name)


def index(title: str, lead: str, names: list[PublicName]) -> str:
    rows = [f"| [{n.name}]({n.name}.md) | {first_line(n)} |" for n in names]
    return "\n".join(
        [
            f"# {title}\n",
            f"{lead}\n",
            "| | |",
            "|---|---|",
            *rows,
            "\n```{toctree}\n:hidden:\n",
            *(n.name for n in names),
            "```\n",
        ]
    )


def first_line(public: PublicName) -> str:
    """Return the docstring's first sentence, as Markdown."""
    paragraph = " ".join(docstring_of(public).split("\n\n")[0].split())
    return paragraph.replace("``", "`").replace("|", "\\|").replace(":func:", "").rstrip(":")


def head(public: PublicName) -> str:
    """Return the docstring up to its parameters: summary, example and formula."""
    return docstring_of(public).split("\nParameters\n")[0].rstrip()


def rst(text: str) -> str:
    return f"```````{{eval-rst}}\n{text}\n```````\n"


def notes(name: str) -> str:
    path = NOTES / f"{name}.md"
    if not path.is_file():
        return ""
    return f"## Before you trust it\n\n{path.read_text(encoding='utf-8').strip()}\n"


def call(measure: Measure) -> str:
    options = ", ".join(f"{key}={value!r}" for key, value in measure.preset.items())
    return f"`{measure.function.__name__}({options})`"


def at_a_glance(rows: list[Measure]) -> Iterator[str]:
    yield "## At a glance\n"
    yield "| | " + " | ".join(call(m) if m.preset else "" for m in rows) + " |"
    yield "|---|" + "---|" * len(rows)

    def row(title: str, values: list[str]) -> str:
        same = len(set(values)) == 1 and len(values) > 1
        return (
            f"| {title} | "
            + " | ".join(values[:1] + [""] * (len(values) - 1) if same else values)
            + " |"
        )

    def bound(value: float) -> str:
        special = {float("inf"): "∞", float("-inf"): "−∞"}
        return special.get(value, f"{value:.4g}".replace("-", "−"))

    yield row(
        "kind",
        ["similarity" if m.similarity else "metric" if m.metric else "dissimilarity" for m in rows],
    )
    yield row(
        "range",
        [
            f"{bound(m.range[0])} to {bound(m.range[1])}"
            + ("" if m.units == "1" else f" ({m.units})")
            for m in rows
        ],
    )
    yield row("symmetric", ["yes" if m.symmetric else "no" for m in rows])
    yield row("ignores", ["; ".join(blind(m)) for m in rows])
    yield row("fewest samples", [str(m.minimum_samples) for m in rows])
    yield row("cost", [m.cost for m in rows])
    yield row("source", [m.reference for m in rows])


def blind(measure: Measure) -> Iterator[str]:
    """Yield the changes that a measure ignores, on both sides or on one."""
    on_y = measure.invariances if measure.invariances_y is None else measure.invariances_y
    for key, text in INVARIANCES.items():
        sides = [s for s, held in (("x", measure.invariances), ("y", on_y)) if key in held]
        if sides:
            yield text + (f" of {sides[0]}" if len(sides) == 1 else "")


def measure_page(public: PublicName) -> str:
    rows = [m for m in MEASURES.values() if m.function is public.value]
    picture = (
        f"```{{image}} ../pictures/{public.name}.png\n"
        f":alt: {public.name} of a representation and a noisy, a changed and an unrelated one\n"
        "```\n\n"
        "Left: 100 samples of 10 features compared with themselves plus noise; the dashed line is "
        "the average for independent data. Right: the samples compared with changed copies; if a "
        "value equals that of *itself*, the measure ignores the change. "
        "The code that built this page drew the picture.\n"
    )
    return "\n".join(
        [
            f"# {public.name}\n",
            rst(head(public)),
            *at_a_glance(rows),
            "\n## How it responds\n",
            picture,
            notes(public.name),
            "## Reference\n",
            full(public),
        ]
    )


def analysis_page(public: PublicName) -> str:
    drawn = any(f"{public.path}(" in p.read_text(encoding="utf-8") for p in GALLERY.glob("*.py"))
    pictures = "## Pictures\n\n" + rst(f".. minigallery:: {public.path}") if drawn else ""
    return "\n".join(
        [
            f"# {public.name}\n",
            rst(head(public)),
            pictures,
            notes(public.name),
            "## Reference\n",
            full(public),
        ]
    )


def full(public: PublicName) -> str:
    """Return the directive that documents a name in full."""
    if public.kind == "data":
        text = docstring_of(public).replace("\n", "\n    ")
        return rst(f".. py:data:: {public.path}\n\n    {text}\n")
    options = {
        "exception": "\n    :no-members:",
        "class": "\n    :inherited-members: object, Mapping, tuple",
    }.get(public.kind, "")
    return rst(f".. auto{public.kind}:: {public.path}{options}\n")


def package_page(package: str, names: list[PublicName], own: dict[str, str]) -> Iterator[str]:
    title = "Errors and warnings" if package == "errors" else f"repsim.{package}"
    yield f"# {title}\n"
    yield f"{INTRODUCTIONS[package]}\n"
    yield "| | |\n|---|---|"
    for n in names:
        target = f"{own[n.path]}.md" if n.path in own else f"#{n.path}"
        label = n.path.removeprefix("repsim.")
        yield (
            f"| [`{label}`]({target}) | {first_line(n)} |"
            if n.path in own
            else (f"| {{py:obj}}`{label} <{n.path}>` | {first_line(n)} |")
        )
    yield ""
    for n in names:
        if n.path not in own:
            yield f"## {n.path.removeprefix('repsim.')}\n"
            yield full(n)


def write(app: Sphinx) -> None:
    """Write changed pages, and remove pages of names that no longer exist."""
    from backends_table import backends_page
    from measure_pictures import draw

    folder = Path(app.srcdir, "reference")
    texts = {**pages(), "backends.md": backends_page()}
    for path in folder.rglob("*.md"):
        if path.relative_to(folder).as_posix() not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for name in {m.function.__name__ for m in MEASURES.values()}:
        picture = folder / "pictures" / f"{name}.png"
        picture.parent.mkdir(exist_ok=True)
        # Draw a picture again if its code is newer.
        source = Path(inspect.getfile(MEASURES[name].function if name in MEASURES else draw))
        if not picture.is_file() or picture.stat().st_mtime < source.stat().st_mtime:
            draw([m for m in MEASURES.values() if m.function.__name__ == name]).savefig(
                picture, dpi=144
            )


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", write, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
