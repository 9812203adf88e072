"""Which models a page is about, and which of them were not trained."""

from __future__ import annotations

import re
from collections.abc import Iterable

import xarray as xr

__all__ = ["models_of", "title_of", "untrained_of"]

SIDES = ("", "_x", "_y")
NAMED_UNTRAINED = re.compile(
    r"(?<![a-z])(untrained|random(ly)?[ _.-]*(init|weights))", flags=re.IGNORECASE
)
"""A model that says in its name that it is not trained."""

IN_TITLE = 4


def models_of(result: xr.Dataset) -> list[str]:
    """Return the names of the models of a result, each once."""
    attrs = _attrs(result)
    named = [str(attrs[key]) for side in SIDES if attrs.get(key := f"model{side}")]
    return list(dict.fromkeys(named))


def untrained_of(result: xr.Dataset) -> list[str]:
    """Return the models of a result that have random weights or are called untrained."""
    attrs = _attrs(result)
    sides = [side for side in SIDES if attrs.get(f"model{side}")] or [""]
    found = []
    for side in sides:
        name = str(attrs.get(f"model{side}") or "the model")
        weights = str(attrs.get(f"weights{side}", attrs.get("weights", "")))
        if weights.startswith("random") or NAMED_UNTRAINED.search(name):
            found.append(name)
    return list(dict.fromkeys(found))


def title_of(results: Iterable[xr.Dataset]) -> str | None:
    """Return the models of all results as a heading, or None if they are not named."""
    models = list(dict.fromkeys(name for each in results for name in models_of(each)))
    if len(models) > IN_TITLE:
        models = [*models[: IN_TITLE - 1], f"{len(models) - IN_TITLE + 1} more models"]
    if not models:
        return None
    return " and ".join(filter(None, [", ".join(models[:-1]), models[-1]]))


def _attrs(result: xr.Dataset) -> dict[str, object]:
    """Return the attributes of a result; a DataArray keeps them on its variable."""
    own = {key: value for each in result.data_vars.values() for key, value in each.attrs.items()}
    return {str(key): value for key, value in {**own, **result.attrs}.items()}
