"""Sums over samples of the norms of skips and branches, token by token."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError, NonFiniteError, warn
from repsim.analysis._precision import sum_dtype
from repsim.analysis.residual._layout import Layout, Layouts
from repsim.analysis.residual._ratio_totals import RatioTotals, SiteTotals
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._first_bad import FirstBad
from repsim.capture import Join, Masks, ResidualSite, SiteFinder, UnusableOutput

__all__ = ["RatioSums"]


class _SiteSums:
    """Sums over samples of one site by token, in float64 if the device has it.

    Tokens are counted among the real ones of each sample. So a text has the same numbers on
    whichever side its padding is.
    """

    def __init__(self, site: ResidualSite, layout: Layout) -> None:
        self.site = site
        self.layout = layout
        self._parts: Tensor | None = None  # (statistics and the number of samples, tokens)

    def add(self, join: Join, layout: Layout, mask: Tensor | None) -> Tensor:
        """Add a batch; return whether the norms of its real tokens are finite."""
        z, f, *summands = map(layout.tokens, (join.skip, join.branch, *join.summands))
        total = summands[0] + summands[1]
        norm_z, norm_f, norm_sum = (torch.linalg.vector_norm(x, dim=-1) for x in (z, f, total))
        by_z, by_f = _nonzero(norm_z), _nonzero(norm_f)
        cosine = (z / by_z[..., None] * (f / by_f[..., None])).sum(-1)  # ‖z‖‖f‖ may overflow
        each = torch.ones_like(cosine)
        values = torch.stack([norm_z / by_f, norm_f / _nonzero(norm_sum), cosine, each])
        finite = torch.isfinite(norm_z) & torch.isfinite(norm_f)
        values = values.to(sum_dtype(values.device))
        if mask is not None:
            values = _real_first(values, mask)
            finite |= ~mask
        self._parts = _padded_sum(self._parts, values.sum(1))
        return finite.all()

    def totals(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the sums of the statistics, and the number of samples, by token."""
        assert self._parts is not None
        totals = self._parts.cpu().to(torch.float64).numpy()
        return np.array(totals[:, totals[-1] > 0])


class RatioSums:
    """The sums of all sites over the batches so far.

    Parameters
    ----------
    layouts : Layouts
        Which axes hold samples, tokens and channels.
    masks : Masks
        Which tokens are real.
    """

    def __init__(self, layouts: Layouts, masks: Masks) -> None:
        self.finder: SiteFinder
        self._n_samples = 0
        self._layouts = layouts
        self._masks = masks
        self._sums: dict[tuple[str, int], _SiteSums] = {}
        self._left_out: dict[str, str] = {}
        self._first_bad = FirstBad(_not_finite)
        self._batch: int | None = None  # while it runs
        self._n_added = 0  # of the batch
        self._rows = 0

    def start(self, batch: Batch) -> None:
        """Start the next batch, in the form that the model gets."""
        self.finder.restart()
        self._masks.start(batch.value)
        self._layouts.start(batch.value)
        self._batch = batch.number
        self._n_added = 0

    def add(self, site: ResidualSite, call: int, join: Join) -> None:
        """Add the summands of one site in one forward, if it is that of a batch."""
        if self._batch is None:  # data and functions of the caller may use the model
            return
        key, layout = (site.label, call), self._layouts.of(site, join, self.finder)
        self._rows = layout.samples
        expected = (self._rows, math.prod(layout.positions))
        try:
            mask = self._masks.of(site.label, expected, call) if layout.positions else None
        except UnusableOutput as problem:
            self._left_out[site.label] = problem.brief
            return
        if mask is not None and tuple(mask.shape) != expected:
            self._left_out[site.label] = f"{site.shape}, mask {tuple(mask.shape)}"
            return
        sums = self._sums.setdefault(key, _SiteSums(site, layout))
        before, now = sums.layout.positions, layout.positions
        if before != now and len(now) != 1:
            raise InputError(
                f"residual_ratios: the maps of site {site.label!r} change their size.\n"
                f"  before: {before}    in batch {self._batch}: {now}\n"
                "  Bring all images to one size: tokens are averaged by their position."
            )
        mask = None if mask is None else mask.to(join.skip.device)
        self._first_bad.add(site.label, sums.add(join, layout, mask), self._batch)
        self._n_added += 1

    def end_batch(self, batch: Batch) -> None:
        """Count the batch, and check it if that need not wait for an accelerator."""
        self._batch = None
        if not self._n_added:
            raise self._nothing()
        self._first_bad.check(wait=False)
        n = self._rows if self.finder.batch_size is None else self.finder.batch_size
        self._n_samples += batch.n_samples(n, self._rows)

    def warn(self) -> None:
        """Report values that are not finite, sites that are left out, and masks of no site."""
        self._first_bad.check(wait=True)
        self._masks.check_used()
        self.finder.warn("residual_ratios")
        if self._left_out:
            warn(
                "residual_ratios: sites with another number of tokens than the mask were left "
                f"out:\n{self._listed()}"
            )

    def totals(self) -> RatioTotals | None:
        """Return the sums of this process; None if there was no batch."""
        if not self._n_samples:
            return None
        # The first of several parallel branches shows only when the next is added.
        kinds = {site.label: site.kind for site in self.finder.sites()}
        again = {label for label, call in self._sums if call}
        sites = {}
        for (name, call), sums in self._sums.items():
            label = f"{name}:{call}" if name in again else name
            site = replace(sums.site, kind=kinds.get(label, sums.site.kind))
            sites[name, call] = SiteTotals(site, sums.layout, sums.totals())
        return RatioTotals(sites, self._n_samples)

    def _nothing(self) -> CaptureError:
        if self._left_out:
            return CaptureError(
                "residual_ratios: no residual connection has as many tokens as the mask.\n"
                f"{self._listed()}"
            )
        return CaptureError(
            "residual_ratios: the model has no residual connection that can be seen.\n"
            "  See repsim.residual_sites(model, example) for what counts as one."
        )

    def _listed(self) -> str:
        sites = list(self._left_out.items())
        shown = "".join(f"  {label}: {why}\n" for label, why in sites[:8])
        more = f"  and {len(sites) - 8} more\n" if len(sites) > 8 else ""
        return (
            f"{shown}{more}  Give each sequence its mask: mask={{site or glob: key of the batch}}, "
            "with None for sites without padding."
        )


def _not_finite(label: str, batch: int) -> NonFiniteError:
    return NonFiniteError(
        f"residual_ratios: NaN or infinity in a summand of site {label!r}, batch {batch}.\n"
        "  Does the input contain it? In half precision sums overflow: try float32."
    )


def _real_first(values: Tensor, mask: Tensor) -> Tensor:
    """Move the values (k, samples, tokens) of real tokens to the front, and zero the others."""
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
    ranked = values.gather(2, order.expand(len(values), -1, -1))
    # Not a product with the mask: padding may hold NaN.
    return ranked.masked_fill(~mask.gather(1, order), 0.0)


def _padded_sum(before: Tensor | None, sums: Tensor) -> Tensor:
    """Add sums (k, tokens) of different lengths."""
    if before is None:
        return sums
    more = max(before.shape[1], sums.shape[1])
    longer = [nn.functional.pad(x, (0, more - x.shape[1])) for x in (before, sums)]
    return longer[0] + longer[1]


def _nonzero(norm: Tensor) -> Tensor:
    """NaN in place of 0, so a quotient is NaN and not infinity."""
    return torch.where(norm > 0, norm, torch.nan)
