"""Results as tables of text, and as JSON."""

from __future__ import annotations

from typing import Any

from repsim.cli._session import Session
from repsim.results import LAYER_MAP, chance_table, kind_of, map_table

__all__ = ["dataset_json", "show_matrix", "show_result"]


def dataset_json(dataset: Any) -> dict[str, Any]:
    """Return a result with its labels in JSON types: dims, coords, variables, attributes."""
    return {
        "attrs": dict(dataset.attrs),
        "coords": {
            str(name): {"dims": list(each.dims), "attrs": dict(each.attrs), "data": each.values}
            for name, each in dataset.coords.items()
        },
        "variables": {
            str(name): {"dims": list(each.dims), "attrs": dict(each.attrs), "data": each.values}
            for name, each in dataset.data_vars.items()
        },
    }


def show_matrix(session: Session, title: str, values: Any) -> None:
    """Show a map whole if it is small, else the most similar layer of y for each layer of x."""
    session.table(*map_table(title, values))


def show_result(session: Session, dataset: Any) -> None:
    """Show the table of the kind of a result; show an unknown kind as xarray does."""
    kind = kind_of(dataset)
    if kind is None:
        for line in str(dataset).splitlines():
            session.line(line)
        return
    session.table(*kind.table(dataset))
    if kind is LAYER_MAP and (tested := chance_table(dataset)) is not None:
        session.table(*tested)
