"""Which axes of a residual sum hold samples, tokens and channels, and which tokens come first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, InputError
from repsim.analysis.images._patches import MOST_PREFIX, declared_prefix, merged
from repsim.capture import Join, ResidualSite, SiteFinder, unwrap

__all__ = ["Layout", "Layouts"]


@dataclass(frozen=True)
class Layout:
    """Where the summands of a site have their samples, tokens and channels."""

    batch: int
    channels: int
    positions: tuple[int, ...]
    n_prefix: int

    def tokens(self, x: Tensor) -> Tensor:
        """Return (samples, tokens, channels), in float32 at least."""
        x = x.movedim((self.batch, self.channels), (0, -1))
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        return x.to(torch.promote_types(x.dtype, torch.float32))


class Layouts:
    """Find the layout of a site; see :func:`repsim.residual_ratios` for the rules."""

    def __init__(
        self, model: nn.Module, prefix: int | None, batch_dim: int | None, channel_dim: int | None
    ) -> None:
        self._root = unwrap(model)
        self._prefix, self._batch_dim, self._channel_dim = prefix, batch_dim, channel_dim

    def of(self, site: ResidualSite, join: Join, finder: SiteFinder) -> Layout:
        """Return the layout, or raise a CaptureError or an InputError that asks for it."""
        batch = self._batch(site, finder)
        channels = self._channels(site, join, batch)
        shape = site.shape
        positions = tuple(size for i, size in enumerate(shape) if i not in (batch, channels))
        sequence = len(positions) == 1 and channels == len(shape) - 1
        n_prefix = self._n_prefix(site, join, positions[0]) if sequence else 0
        return Layout(batch, channels, positions, n_prefix)

    def _batch(self, site: ResidualSite, finder: SiteFinder) -> int:
        shape = site.shape
        if self._batch_dim is not None:
            return _axis("batch_dim", self._batch_dim, site)
        if finder.sequence_first:
            raise CaptureError(
                f"residual_ratios: axis 0 of site {site.label!r} {shape} may be tokens, for a "
                "module that says batch_first=False ran.\n"
                "  Pass batch_dim=1 if the samples are on axis 1, batch_dim=0 if on axis 0."
            )
        if finder.batch_size not in (None, shape[0]):
            raise CaptureError(
                f"residual_ratios: axis 0 of site {site.label!r} is not the batch.\n"
                f"  its sum: {shape}    the model's input: n={finder.batch_size}\n"
                "  Pass batch_dim= the axis to average over (batch_dim=0 for this one as it is)."
            )
        return 0

    def _channels(self, site: ResidualSite, join: Join, batch: int) -> int:
        ndim = len(site.shape)
        if ndim < 2:
            raise CaptureError(
                f"residual_ratios: site {site.label!r} has no axis beside the batch: {site.shape}."
                "\n  Pass inputs with a batch axis: x[None] for a single sample."
            )
        if self._channel_dim is not None:
            axis = _axis("channel_dim", self._channel_dim, site)
        elif join.channels is not None and join.channels != batch:
            axis = join.channels
        else:
            axis = 1 if ndim > 3 and batch == 0 else ndim - 1
        if axis == batch:
            raise InputError(
                f"residual_ratios: axis {axis} of site {site.label!r} {site.shape} cannot hold "
                "both samples and channels.\n  Pass batch_dim= and channel_dim= that differ."
            )
        return axis

    def _n_prefix(self, site: ResidualSite, join: Join, n_tokens: int) -> int:
        if self._prefix is not None:
            if self._prefix > n_tokens:
                raise InputError(
                    f"residual_ratios: prefix={self._prefix}, and site {site.label!r} has "
                    f"{n_tokens} tokens."
                )
            return self._prefix
        module, around = self._root, [self._root]
        for part in site.block.split(".") if site.block else ():
            module = module.get_submodule(part)
            around.append(module)
        for module in reversed(around):
            if (number := declared_prefix(module)) is not None:
                return min(number, n_tokens)
        if join.grid is not None:
            height, width = join.grid
            if 0 <= n_tokens - height * width <= MOST_PREFIX:
                return n_tokens - height * width
            if n_tokens > 1 and merged(n_tokens, height, width):  # a single one may be pooled
                return 0
        raise InputError(
            f"residual_ratios: which of the {n_tokens} tokens of site {site.label!r} are spatial "
            "is unknown.\n"
            f"  no num_prefix_tokens; the latest convolution's grid: {join.grid or 'none'}\n"
            "  Pass prefix= the number of tokens before the spatial ones (CLS, registers), 0 if "
            "there are none."
        )


def _axis(option: str, axis: int, site: ResidualSite) -> int:
    ndim = len(site.shape)
    if not -ndim <= axis < ndim:
        raise InputError(
            f"residual_ratios: {option}={axis}, and the sum at site {site.label!r} is {site.shape}."
        )
    return axis % ndim
