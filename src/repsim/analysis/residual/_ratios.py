"""Norms of skip and branch at residual connections, token by token."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn

from repsim.analysis._arguments import check_arguments
from repsim.analysis.residual._layout import Layouts
from repsim.analysis.residual._ratio_sums import RatioSums
from repsim.analysis.residual._ratio_totals import RatioTotals
from repsim.analysis.run._drive import Forward, Prepare
from repsim.analysis.run._followed import learn_sequences
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import MaskOption, Masks, SiteFinder
from repsim.capture.tokens import PrefixOption, TokenOptions

if TYPE_CHECKING:
    import xarray

__all__ = ["residual_ratios"]


def residual_ratios(
    model: nn.Module,
    data: Iterable[Any],
    *,
    prefix: PrefixOption = None,
    mask: MaskOption = "auto",
    batch_dim: int | None = None,
    channel_dim: int | None = None,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
    progress: bool = True,
    name: str | None = None,
    group: Any = None,
    sample_ids: SampleIds | None = None,
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

    averaged over samples. If the ratio is above 1, the skip dominates.

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
        neither shows it, or the tokens are learned queries (DETR), an error asks for it. The tokens
        of a text have no prefix by default, and feature maps never have one.
    mask
        Which tokens are real, as in :func:`repsim.compare`; keys of a mapping are labels of sites
        or globs. Padding counts nowhere.
    batch_dim : int, optional
        The axis of the samples in every sum. By default found, as in :func:`repsim.compare`.
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
        Name of the model in the result, by default its class.
    group : "world", "alone" or torch.distributed.ProcessGroup, optional
        The ranks whose batches are combined; by default only this process, which "alone" says is
        meant. Each rank passes its share as ``data``, for example by a ``DistributedSampler``;
        shares may be unequal or empty. Every rank returns the same bits.
    sample_ids : callable, optional
        A function from a batch to the ids of its samples, a 1-d tensor, array or list of n numbers
        or strings. If an id was seen before, on any rank, the sample is not counted again: the
        model gets the other samples of the batch. This matters because a ``DistributedSampler``
        repeats samples to give all ranks the same number. It costs one exchange of ids per batch.
        Pass it on all ranks or on none.

    Returns
    -------
    xarray.Dataset
        float64, without units. ``ratio``, ``branch_share`` (both ≥ 0) and ``cosine`` ([−1, 1]),
        dims ("site", "token"): means over the samples that have the token, NaN beyond the tokens of
        a site. The tokens of a text are its real ones in order, those of a map its positions, row
        by row. ``ratio_prefix`` and ``ratio_spatial`` ("site",): means of the ratio over all prefix
        and over all spatial tokens of all samples, NaN if there are none. Coordinates along site,
        in execution order: its label, ``block``, ``branch``, ``kind`` as in
        :func:`repsim.residual_sites`, ``n_prefix`` and ``n_tokens`` (of the longest sample).
        ``attrs``: model, n_samples, versions; n_ranks with ``group``, n_duplicates with
        ``sample_ids``.

    Raises
    ------
    CaptureError
        The model has no residual connection, axis 0 of a sum is not the batch, or no site has as
        many tokens as the mask.
    LayerNotFoundError
        ``mask`` names a site that does not exist.
    InputError
        The data are not batches; the prefix of a sequence is unknown; a map changes its size; the
        ranks differ in axes, prefixes or maps; a batch with samples that came
        before cannot be cut, or has another number of ids than samples.
    NonFiniteError
        NaN or infinity in a summand; the message names site and batch.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    DegenerateWarning
        A branch or a skip is exactly zero at a token, so ratios with this divisor are NaN.
    RepsimWarning
        An operation looks like a residual connection but could not be followed, or sites with
        another number of tokens than the mask were left out; torch.distributed has several ranks,
        but ``group`` is not given.

    Notes
    -----
    z and f(z) are the two summands themselves. If a block adds several branches to one skip (kind
    "parallel": ``x + f(x) + g(x)``, as in GPT-NeoX, GPT-J, Phi, Falcon, Cohere), each has its row,
    and z is x in all of them. The sum z + f(z) of ``branch_share`` is then what the addition
    returns, including the branches that were added before. For a projection shortcut z is the
    projected skip. The result is the mean of ratios over samples, not the ratio of means. Half
    precision is computed in float32; means are accumulated in float64.

    Cost: the forward passes, two more of a few samples, and three reductions for each site. Memory:
    O(sites · tokens).

    References
    ----------
    Raghu et al. 2021, arXiv:2108.08810, section 5, figure 7.
    """
    ranks = Ranks("residual_ratios", group)
    with ranks.raise_on_all_ranks():
        check_arguments(
            "residual_ratios", {"model": model}, name, progress, prepare=prepare, forward=forward
        )
        ranks.share(sample_ids)
        options = TokenOptions("residual_ratios", prefix=prefix)
        masks = Masks("residual_ratios", mask)
        layouts = Layouts(model, options, batch_dim, channel_dim)
        ranks.agree_on(
            {"model": model},
            prefix=prefix,
            mask=mask,
            batch_dim=batch_dim,
            channel_dim=channel_dim,
            prepare=prepare,
            forward=forward,
            name=name,
        )
        sums = RatioSums(layouts, masks)
        with (
            ranks.each_batch(data, model, progress=progress) as batches,
            ExitStack() as stack,
        ):
            for batch in batches:
                prepared = batch.prepared(model, prepare, forward)
                if batch.is_first:
                    layouts.ask(model, prepared, forward)
                    learn_sequences([masks], prepared, model, forward)
                    stack.enter_context(layouts.watching())
                    sums.finder = stack.enter_context(SiteFinder(model, sums.add))
                sums.start(prepared)
                prepared.run(model, forward=forward)
                sums.end_batch(prepared)
        part = sums.totals()
        if part is not None:
            sums.warn()
            options.check_used("site or block")
    totals = ranks.merged(part, RatioTotals.merge)
    return totals.dataset().assign_attrs(
        model=model_label(model, name), **ranks.report(), **versions()
    )
