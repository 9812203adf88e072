"""The sums of residual ratios over samples, of one process or of several, and their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from repsim._errors import DegenerateWarning, warn
from repsim.analysis.residual._layout import Layout
from repsim.analysis.run.ranks import one_for_all, union_in_order
from repsim.capture import ResidualSite, listing
from repsim.results import RESIDUAL_RATIOS

if TYPE_CHECKING:
    import xarray

__all__ = ["RatioTotals", "SiteTotals"]

STATISTICS = ("ratio", "branch_share", "cosine")

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class SiteTotals:
    """The sums of one site.

    Attributes
    ----------
    site : ResidualSite
        The site, with its kind in the last forward.
    layout : Layout
        The axes of its first batch.
    sums : numpy.ndarray
        (4, tokens): the sums of the statistics over the samples, and the number of samples.
    """

    site: ResidualSite
    layout: Layout
    sums: Floats

    @staticmethod
    def merge(parts: Sequence[SiteTotals]) -> SiteTotals:
        """Return the sums of one site over the samples of all parts."""
        first, label = parts[0], parts[0].site.label
        layouts = [each.layout for each in parts]
        repair = "Pass prefix=, batch_dim= and channel_dim=, or images of one size, on all ranks."
        described: dict[str, list[Any]] = {
            "axes of samples and channels": [(x.batch, x.channels) for x in layouts],
            "number of prefix tokens": [x.n_prefix for x in layouts],
            "size of the maps": [x.positions if len(x.positions) > 1 else () for x in layouts],
        }
        for what, values in described.items():
            one_for_all("residual_ratios", f"{what} of site {label!r}", values, repair)
        most = max(each.sums.shape[1] for each in parts)
        sums = sum(np.pad(each.sums, ((0, 0), (0, most - each.sums.shape[1]))) for each in parts)
        return replace(first, sums=np.asarray(sums))


@dataclass(frozen=True)
class RatioTotals:
    """The sums of all sites.

    Attributes
    ----------
    sites : mapping of (str, int) to SiteTotals
        By label and count of the earlier calls in a forward, in execution order.
    n_samples : int
        The number of samples.
    """

    sites: Mapping[tuple[str, int], SiteTotals]
    n_samples: int

    @staticmethod
    def merge(parts: Sequence[RatioTotals]) -> RatioTotals:
        """Return the sums over the samples of all parts."""
        keys = union_in_order([list(each.sites) for each in parts])
        sites = {
            key: SiteTotals.merge([each.sites[key] for each in parts if key in each.sites])
            for key in keys
        }
        return RatioTotals(sites, sum(each.n_samples for each in parts))

    def dataset(self) -> xarray.Dataset:
        """Return the means; see :func:`repsim.residual_ratios`."""
        sites = list(self.sites.values())
        again = {label for label, call in self.sites if call}
        labels = [f"{name}:{call}" if name in again else name for name, call in self.sites]
        totals = [each.sums for each in sites]
        most = max(total.shape[1] for total in totals)
        values = np.full((len(STATISTICS), len(sites), most), np.nan)
        for i, total in enumerate(totals):
            values[:, i, : total.shape[1]] = total[:-1] / total[-1]
        zero = [name for name, total in zip(labels, totals, strict=True) if np.isnan(total).any()]
        if zero:
            warn(
                "residual_ratios: a skip or a branch is exactly zero at some tokens, NaN there: "
                f"{listing(zero)}.",
                DegenerateWarning,
            )
        variables: dict[str, Any] = dict(zip(STATISTICS, values, strict=True))
        n_prefix = [each.layout.n_prefix for each in sites]
        for key, parts in (
            ("ratio_prefix", [slice(0, p) for p in n_prefix]),
            ("ratio_spatial", [slice(p, None) for p in n_prefix]),
        ):
            variables[key] = [
                _mean(total[0, part], total[-1, part])
                for total, part in zip(totals, parts, strict=True)
            ]
        return RESIDUAL_RATIOS.dataset(
            variables,
            {
                "site": labels,
                "token": np.arange(most),
                "block": [each.site.block for each in sites],
                "branch": [each.site.branch for each in sites],
                "kind": [each.site.kind for each in sites],
                "n_prefix": n_prefix,
                "n_tokens": [total.shape[1] for total in totals],
            },
        ).assign_attrs(n_samples=self.n_samples)


def _mean(sums: Floats, counts: Floats) -> float:
    """Mean over samples and tokens; NaN if there are none."""
    return float(sums.sum() / counts.sum()) if sums.size else math.nan
