"""Norms of skip connections over those of their branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.results._findings import Finding, Table, ends, extreme, table_along
from repsim.results._kind import Kind, Variable
from repsim.results._reading import mean_of, names_of, optional_values, values_of
from repsim.results._registry import register

if TYPE_CHECKING:
    import xarray

__all__ = ["GROUPS", "RATIO", "RESIDUAL_RATIOS", "group_ratios"]

TOKENS = ("site", "token")

RATIO = "‖skip‖ / ‖branch‖"

GROUPS = {"ratio_prefix": "prefix tokens (CLS)", "ratio_spatial": "spatial tokens"}
"""The variables that are means over tokens, and the names of these tokens."""

ALL = "all tokens"
"""Their name in a model without prefix tokens: tokens of a text, positions of a map."""

_RATIO = "norm of the skip over norm of the branch"
VARIABLES = {
    "ratio": Variable(TOKENS, _RATIO),
    "branch_share": Variable(TOKENS, "norm of the branch over norm of the sum"),
    "cosine": Variable(TOKENS, "cosine of skip and branch"),
    "ratio_prefix": Variable(("site",), f"{_RATIO}, prefix tokens"),
    "ratio_spatial": Variable(("site",), f"{_RATIO}, spatial tokens"),
    "block": Variable(("site",), is_text=True),
    "branch": Variable(("site",), is_text=True),
    "kind": Variable(("site",), is_text=True),
    "n_prefix": Variable(("site",)),
    "n_tokens": Variable(("site",)),
}


def group_ratios(result: xarray.Dataset) -> dict[str, Any]:
    """Return the ratios (site) of the existing groups of tokens, by name."""
    found = {what: optional_values(result, key, "site") for key, what in GROUPS.items()}
    known = {
        what: each for what, each in found.items() if each is not None and np.isfinite(each).any()
    }
    if list(known) == [GROUPS["ratio_spatial"]]:
        return {ALL: known[GROUPS["ratio_spatial"]]}
    if known or "ratio" not in result:
        return known
    return {ALL: mean_of(values_of(result, "ratio", *TOKENS), 1)}


def findings(result: xarray.Dataset) -> list[Finding]:
    """Return the first, last and largest ratio of each group of tokens."""
    sites, found = names_of(result, "site"), []
    for what, values in group_ratios(result).items():
        found += ends(f"{RATIO}, {what}", sites, values, 2, of="connection")
        found += extreme(f"largest ratio, {what}", sites, values, 2, most=True)
    return found


def table(result: xarray.Dataset) -> Table:
    """Return the mean ratios of each site."""
    title = "Norm of skip over norm of branch"
    return table_along(title, result, "site", group_ratios(result))


RESIDUAL_RATIOS = register(
    Kind("residual_ratios", "Residual ratios", VARIABLES, ("ratio",), findings, table)
)
