"""Norms of skip and branch at residual connections, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from repsim._errors import CaptureError, DegenerateWarning, InputError, NonFiniteError, warn
from repsim.analysis.residual._layout import Layout, Layouts
from repsim.analysis.run._drive import Forward, Prepare, each_batch
from repsim.analysis.run._provenance import model_label, versions
from repsim.capture import Join, ResidualSite, SiteFinder, listing
from repsim.capture.tokens import PrefixOption, TokenOptions
from repsim.results import RESIDUAL_RATIOS

if TYPE_CHECKING:
    import xarray

__all__ = ["residual_ratios"]


def residual_ratios(
    model: nn.Module,
    data: Iterable[Any],
    *,
    prefix: PrefixOption = None,
    batch_dim: int | None = None,
    channel_dim: int | None = None,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    progress: bool = True,
    name: str | None = None,
) -> xarray.Dataset:
    """Norm of the skip over norm of the branch, at every residual connection and token.

    >>> import torch, repsim
    >>> from torch import nn
    >>> class Block(nn.Module):
    ...     def __init__(self, c):
    ...         super().__init__()
    ...         self.norm = nn.LayerNorm(2, eps=0, elementwise_affine=False)
    ...         self.mlp = nn.Linear(2, 2, bias=False)
    ...         self.mlp.weight.data = c * torch.eye(2)
    ...     def forward(self, x):
    ...         return x + self.mlp(self.norm(x))
    >>> net = nn.Sequential(Block(0.5), Block(2.0))
    >>> data = [3 * torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])]  # 3·u, two tokens
    >>> result = repsim.residual_ratios(net, data, prefix=1, progress=False)
    >>> result.ratio.sel(site="0.mlp").values.round(6).tolist()  # t/c = 3/0.5
    [6.0, 6.0]
    >>> result.ratio_spatial.values.round(6).tolist()  # then (3 + 0.5)/2
    [6.0, 1.75]

    For the summands z and f(z) of each residual addition, per token, over channels::

        ratio = ‖z‖ / ‖f(z)‖    branch_share = ‖f(z)‖ / ‖z + f(z)‖    cosine = ⟨z, f(z)⟩ / ‖z‖‖f(z)‖

    averaged over images. If the ratio is above 1, the skip dominates.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper. It runs in evaluation mode without gradients and is restored
        afterwards.
    data : iterable
        Batches, iterated once: the input tensor, a tuple led by it, or a mapping of keyword
        arguments. Their sizes may differ.
    prefix : int, or mapping of site or block to int, optional
        Number of tokens of a sequence (n, tokens, channels) before the spatial ones: CLS,
        distillation, registers. By default the tokens that are not in the map of a convolution, as
        in :func:`repsim.attention_distance`, checked against the declaration of the model. If
        neither shows it, an error asks for it. For text pass the number of tokens to separate.
        Feature maps have no prefix.
    batch_dim : int, optional
        The axis of the samples in every sum. By default axis 0, checked against that of the input.
    channel_dim : int, optional
        The axis of the channels in every sum. By default it follows from the operations that made
        the skip: 1 after a convolution, the last after a linear layer or LayerNorm, tracked through
        permutations. If they do not show it, 1 for four axes or more, else the last.
    prepare : callable, optional
        A function from the batch to the batch for the model.
    forward : callable, optional
        ``forward(model, batch)`` in place of ``model(batch)``.
    progress : bool, default True
        Whether to show a progress bar on standard error.
    name : str, optional
        Name of the model in the result and the pictures, by default its class.

    Returns
    -------
    xarray.Dataset
        float64, without units. ``ratio``, ``branch_share`` (both ≥ 0) and ``cosine`` ([−1, 1]),
        dims ("site", "token"): means over images, NaN beyond the tokens of a site; the tokens of a
        map are its positions, row by row. ``ratio_prefix`` and ``ratio_spatial`` ("site",): means
        of ``ratio`` over the prefix and over the spatial tokens, NaN if there are none. Coordinates
        along site, in execution order: its label, ``block``, ``branch``, ``kind`` as in
        :func:`repsim.residual_sites`, ``n_prefix`` and ``n_tokens``. ``attrs``: model, n_samples,
        versions.

    Raises
    ------
    CaptureError
        The model has no residual connection, or axis 0 of a sum is not the batch.
    InputError
        The data are not batches; the prefix of a sequence is unknown; a map changes its size.
    NonFiniteError
        NaN or infinity in a summand; the message names site and batch.

    Warns
    -----
    DegenerateWarning
        A branch or a skip is exactly zero at a token, so ratios with this divisor are NaN.
    RepsimWarning
        An operation looks like a residual connection but could not be followed.

    Notes
    -----
    z and f(z) are the two summands themselves. If a block adds several branches to one skip (kind
    "parallel"), z of the second branch is the sum with the first. For a projection shortcut z is
    the projected skip. The result is the mean of ratios over images, not the ratio of means. Half
    precision is computed in float32; means are accumulated in float64.

    Cost: the forward passes and three reductions for each site. Memory: O(sites · tokens).

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, section 5, figure 7.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"residual_ratios: model must be a torch.nn.Module.\n  got {type(model).__name__}"
        )
    options = TokenOptions("residual_ratios", prefix=prefix)
    total = _Total(Layouts(model, options, batch_dim, channel_dim))
    with (
        each_batch("residual_ratios", data, model, progress=progress) as batches,
        SiteFinder(model, total.add) as finder,
    ):
        total.finder = finder
        for batch in batches:
            finder.restart()
            batch.run(model, prepare, forward)
            total.end_batch()
    finder.warn("residual_ratios")
    options.check_used("site or block")
    return total.dataset().assign_attrs(
        model=model_label(model, name), n_samples=total.n_samples, **versions()
    )


class _Sums:
    """Sums over images of one site, in float64 if the device has it."""

    def __init__(self, site: ResidualSite, layout: Layout) -> None:
        self.site = site
        self.layout = layout
        self._parts: Tensor | None = None
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, skip: Tensor, branch: Tensor) -> Tensor:
        """Add a batch; return whether its norms are finite."""
        z, f = self.layout.tokens(skip), self.layout.tokens(branch)
        norm_z, norm_f, norm_sum = (torch.linalg.vector_norm(x, dim=-1) for x in (z, f, z + f))
        by_z, by_f = _nonzero(norm_z), _nonzero(norm_f)
        cosine = (z / by_z[..., None] * (f / by_f[..., None])).sum(-1)  # ‖z‖‖f‖ may overflow
        values = torch.stack([norm_z / by_f, norm_f / _nonzero(norm_sum), cosine])
        # Apple's GPUs lack float64.
        double = torch.float32 if values.device.type == "mps" else torch.float64
        sums = values.to(double).sum(1)
        n, n_tokens = z.shape[:2]
        more = max(n_tokens, len(self._counts))
        self._counts = np.pad(self._counts, (0, more - len(self._counts)))
        self._counts[:n_tokens] += n
        sums = nn.functional.pad(sums, (0, more - n_tokens))
        if self._parts is not None:
            sums = sums + nn.functional.pad(self._parts, (0, more - self._parts.shape[1]))
        self._parts = sums
        return torch.isfinite(norm_z).all() & torch.isfinite(norm_f).all()

    def means(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return (ratio, branch share, cosine) by token."""
        assert self._parts is not None
        return np.asarray(self._parts.cpu().to(torch.float64).numpy() / self._counts)


class _Total:
    """The sums over the batches so far."""

    def __init__(self, layouts: Layouts) -> None:
        self.finder: SiteFinder
        self.n_samples = 0
        self._layouts = layouts
        self._sums: dict[tuple[str, int], _Sums] = {}
        self._finite: dict[tuple[str, int], Tensor] = {}
        self._batch = 0

    def add(self, site: ResidualSite, call: int, join: Join) -> None:
        """Add the summands of one site in one forward."""
        key, layout = (site.label, call), self._layouts.of(site, join, self.finder)
        sums = self._sums.setdefault(key, _Sums(site, layout))
        before, now = sums.layout.positions, layout.positions
        if before != now and len(now) != 1:
            raise InputError(
                f"residual_ratios: the maps of site {site.label!r} change their size.\n"
                f"  before: {before}    in batch {self._batch}: {now}\n"
                "  Bring all images to one size: tokens are averaged by their position."
            )
        self._finite[key] = sums.add(join.skip, join.branch)
        self._rows = site.shape[layout.batch]

    def end_batch(self) -> None:
        """Check the batch, in one transfer from the device."""
        if not self._finite:
            raise CaptureError(
                "residual_ratios: the model has no residual connection that can be seen.\n"
                "  See repsim.residual_sites(model, example) for what counts as one."
            )
        device = next(iter(self._finite.values())).device
        finite = torch.stack([flag.to(device) for flag in self._finite.values()]).tolist()
        bad = [label for (label, _), good in zip(self._finite, finite, strict=True) if not good]
        if bad:
            raise NonFiniteError(
                f"residual_ratios: NaN or infinity in a summand of site {bad[0]!r}, batch "
                f"{self._batch}.\n"
                "  Does the input contain it? In half precision sums overflow: try float32."
            )
        self._finite.clear()
        self._batch += 1
        self.n_samples += self._rows if self.finder.batch_size is None else self.finder.batch_size

    def dataset(self) -> xarray.Dataset:
        """Return the means; see :func:`residual_ratios`."""
        sites = list(self._sums.values())
        again = {label for label, call in self._sums if call}
        labels = [f"{name}:{call}" if name in again else name for name, call in self._sums]
        means = [each.means() for each in sites]
        most = max(mean.shape[1] for mean in means)
        values = np.full((3, len(sites), most), np.nan)
        for i, mean in enumerate(means):
            values[:, i, : mean.shape[1]] = mean
        zero = [name for name, mean in zip(labels, means, strict=True) if np.isnan(mean).any()]
        if zero:
            warn(
                "residual_ratios: a skip or a branch is exactly zero at some tokens, NaN there: "
                f"{listing(zero)}.",
                DegenerateWarning,
            )
        variables: dict[str, Any] = dict(
            zip(("ratio", "branch_share", "cosine"), values, strict=True)
        )
        n_prefix = [each.layout.n_prefix for each in sites]
        for key, parts in (
            ("ratio_prefix", [slice(0, p) for p in n_prefix]),
            ("ratio_spatial", [slice(p, None) for p in n_prefix]),
        ):
            variables[key] = [_mean(mean[0, part]) for mean, part in zip(means, parts, strict=True)]
        return RESIDUAL_RATIOS.dataset(
            variables,
            {
                "site": labels,
                "token": np.arange(most),
                "block": [each.site.block for each in sites],
                "branch": [each.site.branch for each in sites],
                "kind": [each.site.kind for each in sites],
                "n_prefix": n_prefix,
                "n_tokens": [mean.shape[1] for mean in means],
            },
        )


def _nonzero(norm: Tensor) -> Tensor:
    """NaN in place of 0, so a quotient is NaN and not infinity."""
    return torch.where(norm > 0, norm, torch.nan)


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(values.mean()) if values.size else math.nan
