"""The modules whose skips are removed, and the error if one of them has no skip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from repsim._errors import CaptureError, InputError
from repsim.capture.layers._select import Layers, listing, select_layers
from repsim.capture.layers._walk import unwrap
from repsim.capture.residual._sites import ResidualSites

__all__ = ["Scope", "chosen_scopes", "no_site"]


@dataclass
class Scope:
    """A chosen module, and what its calls showed."""

    name: str
    module: nn.Module
    exact: bool
    ran: bool = False
    held: bool = False  # whether a call had a skip to remove
    removed: int = 0  # in the running call
    others: list[str] = field(default_factory=list)  # other sites in the running call


def chosen_scopes(model: nn.Module, block: Layers) -> list[Scope]:
    """Return the chosen modules, without those inside another chosen module."""
    if isinstance(block, str) and not block:
        return [Scope("", unwrap(model), exact=True)]
    selection = select_layers(model, block)
    if any(layer.calls is not None for layer in selection):
        raise InputError(
            "without_residual: a block's skips are removed in all of its calls.\n"
            f"  got {block!r}\n  Leave out the ':k'."
        )
    nested = {id(m) for each in selection for m in each.module.modules() if m is not each.module}
    return [
        Scope(layer.name, layer.module, exact=bool(layer.required))
        for layer in selection
        if id(layer.module) not in nested
    ]


def no_site(
    scope: Scope, scopes: Sequence[Scope], branch: str | None, sites: ResidualSites | None
) -> CaptureError:
    """Return the error that a module has no skip to remove, with the skips of the model.

    Parameters
    ----------
    scope : Scope
        The module.
    scopes : sequence of Scope
        All chosen modules.
    branch : str, optional
        The requested branch.
    sites : ResidualSites, optional
        Those of the model, if a forward could find them.
    """
    name = scope.name or type(scope.module).__name__
    if branch is not None and scope.others:
        return CaptureError(
            f"without_residual: {name!r} has no residual branch {branch!r}.\n"
            f"  it has: {listing(scope.others)}"
        )
    more = ""
    if scope.held:
        more = " in this call, unlike before"
    elif len(scopes) > 1 and not scope.exact:
        more = f", nor do the other {len(scopes) - 1}"
    lines = [f"without_residual: {name!r} holds no residual connection{more}."]
    if sites is None:
        lines.append("  See repsim.residual_sites(model, example) for those of the model.")
        return CaptureError("\n".join(lines))
    inside = [s for s in sites if f"{s.block}.".startswith(f"{scope.name}.")]
    if inside:
        around = scope.name.rpartition(".")[0]
        lines.append(
            f"  The skip of {inside[0].label!r} comes from outside of it: name the module "
            f"around it, {around!r}, and branch={inside[0].label!r}."
        )
    lines.append(f"  the model has: {listing(list(sites.labels)) or 'none'}")
    return CaptureError("\n".join(lines))
