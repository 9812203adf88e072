"""How far the blocks of a model turn its residual stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from repsim._errors import InputError
from repsim._options import as_count, require_choice
from repsim.analysis._arguments import check_arguments
from repsim.analysis.residual._found_blocks import FOUND, Block, found_blocks
from repsim.analysis.residual._influence_sums import InfluenceSums
from repsim.analysis.residual._influence_totals import InfluenceTotals
from repsim.analysis.residual._layout import StreamAxes
from repsim.analysis.run._drive import Forward, Prepare
from repsim.analysis.run._followed import learn_sequences
from repsim.analysis.run._provenance import model_label, versions
from repsim.analysis.run.ranks import Ranks, SampleIds
from repsim.capture import Layers, MaskOption, Masks

if TYPE_CHECKING:
    import xarray

__all__ = ["block_influence"]

TOKENS = ("all", "last")


def block_influence(
    model: nn.Module,
    data: Iterable[Any],
    *,
    blocks: Layers = FOUND,
    span: int | Sequence[int] | None = None,
    tokens: Literal["all", "last"] = "all",
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
    """How far every block, and every span of blocks, turns the residual stream.

    >>> import torch, repsim
    >>> from torch import nn
    >>> class Block(nn.Module):
    ...     def __init__(self, degrees):
    ...         super().__init__()
    ...         a = torch.deg2rad(torch.tensor(degrees))
    ...         self.mlp = nn.Linear(2, 2, bias=False)
    ...         turn = torch.stack([torch.cos(a), -torch.sin(a), torch.sin(a), torch.cos(a)])
    ...         self.mlp.weight.data = turn.reshape(2, 2) - torch.eye(2)
    ...     def forward(self, x):
    ...         return x + self.mlp(x)  # x turned by the angle
    >>> net = nn.Sequential(Block(60.0), Block(30.0), Block(90.0))
    >>> result = repsim.block_influence(net, [torch.randn(4, 3, 2)], progress=False)
    >>> result.influence.values.round(3).tolist()  # 1 − cos
    [0.5, 0.134, 1.0]
    >>> result.angular.sel(start="0").values.round(3).tolist()  # 60°, 90° and 180° over 180°
    [0.333, 0.5, 1.0]

    For the input x and the output y of a block, over the real tokens of all samples::

        influence   1 − E[cos(x, y)]        norm ratio   E[‖y‖ / ‖x‖]
        angular     E[arccos(cos(x_l, x_{l+n}))] / π     x_l: the input of block l

    Blocks of little influence, and spans of small angular distance, are the ones to try to leave
    out. The loss without them says whether the model needs them.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper. It runs in evaluation mode without gradients and is restored
        afterwards.
    data : iterable
        Batches, iterated once: the input tensor, a tuple led by it, or a mapping of keyword
        arguments. Their sizes and lengths may differ.
    blocks : str, re.Pattern, module type, callable, or a list of these, default "blocks"
        ``"blocks"`` finds the residual blocks by running the model on the first batch: the repeated
        blocks as in :class:`repsim.Recorder`, attention and MLP in one, that hold a residual
        connection (:func:`repsim.residual_sites`). If connections are beside those blocks, the
        modules count that hold one and that a container has several times. Anything else names
        layers as in :class:`repsim.Recorder`; ``["blocks"]`` is the module of that name.
    span : int or sequence of int, optional
        The spans n of ``angular``, in blocks. By default all.
    tokens : {"all", "last"}
        Which real tokens of a sample count: all of them, or only the last one.
    mask
        Which tokens are real, as in :func:`repsim.compare`; keys of a mapping are blocks or globs.
    batch_dim, channel_dim : int, optional
        The axes of samples and of features in every block, as in :func:`repsim.residual_ratios`.
    prepare, forward : callable, optional
        A function from the batch to the batch for the model, and ``forward(model, batch)`` in place
        of ``model(batch)``.
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
        float64, without units. Dims ("block",), in execution order: ``influence`` in [0, 2] and
        ``norm_ratio``. Dims ("start", "span"): ``angular`` in [0, 1], from the input of block
        ``start`` to that of the block ``span`` later, or to the output of the last block; NaN
        beyond it. Each has a ``..._standard_error``, NaN for a single sample. ``attrs``: model,
        n_samples, tokens, versions; n_ranks with ``group``, n_duplicates with ``sample_ids``.

    Raises
    ------
    CaptureError, LayerNotFoundError
        No block is found or named; a block of exact name does not run or changes the shape of its
        input; axis 0 is not the batch; no block has the N of the mask (B, N).
    InputError
        The data are not batches; unusable options; a later batch or another rank runs other blocks;
        a batch with samples that came before cannot be cut, or has another number of ids than
        samples.
    NonFiniteError
        NaN or infinity in the stream; the message names block and batch.
    StateError
        A rank died, failed, has other modules, weights or options than the others (the message says
        which ranks differ in what), or did not answer within the time limit of its group.

    Warns
    -----
    DegenerateWarning
        The stream is exactly zero at a token, so means over it are NaN.
    RepsimWarning
        Blocks were left out: they change the shape of their input, or have another number of tokens
        than the mask. torch.distributed has several ranks, but ``group`` is not given.

    Notes
    -----
    Every token has the same weight. Tokens of one sample are dependent, so standard errors are
    those of a ratio of sums over samples: SE² = N/(N − 1) · Σ(s − m n)² / (Σn)², with s the sum
    over the n tokens of a sample and m the mean. Blocks of two stacks (encoder and decoder, two
    towers) have no distance: a span ends where a block's input is not computed from the output of
    the block before.

    1 − cos is computed as ‖u − v‖²/2 and the angle as 2·atan2(‖u − v‖, ‖u + v‖) of unit vectors, so
    small values are exact. Half precision is computed in float32; means are accumulated in float64.
    Gromov et al. take the angular distance of the last token: ``tokens="last"``.

    Cost: the forward passes, one more on the first batch and two of a few samples, and
    O(blocks · spans) reductions of the stream. Memory: the inputs of the last n blocks in float32,
    with n the largest span.

    References
    ----------
    Men et al. 2024, arXiv:2403.03853 (block influence). Gromov et al. 2024, arXiv:2403.17887
    (angular distance).
    """
    ranks = Ranks("block_influence", group)
    with ranks.raise_on_all_ranks():
        check_arguments(
            "block_influence", {"model": model}, name, progress, prepare=prepare, forward=forward
        )
        require_choice("block_influence", "tokens", tokens, TOKENS)
        ranks.share(sample_ids)
        wanted, masks = _spans(span), Masks("block_influence", mask)
        axes = StreamAxes("block_influence", "block", batch_dim, channel_dim)
        ranks.agree_on(
            {"model": model},
            blocks=blocks,
            span=wanted,
            tokens=tokens,
            mask=mask,
            batch_dim=batch_dim,
            channel_dim=channel_dim,
            prepare=prepare,
            forward=forward,
            name=name,
        )
        sums: InfluenceSums | None = None
        with (
            ranks.each_batch(data, model, progress=progress) as batches,
            ExitStack() as stack,
        ):
            for batch in batches:
                given = batch.prepared(model, prepare, forward)
                if sums is None:
                    learn_sequences([masks], given, model, forward)
                    found = found_blocks(model, blocks, axes, given, forward)
                    spans, last = _within(wanted, found), tokens == "last"
                    sums = InfluenceSums(found, spans, masks, last=last)
                    restart = stack.enter_context(sums.watching(model))
                restart()
                sums.start(given)
                given.run(model, forward=forward)
                sums.finish()
        part = None if sums is None else sums.totals()
    totals = ranks.merged(part, InfluenceTotals.merge)
    return totals.dataset().assign_attrs(
        model=model_label(model, name),
        n_samples=totals.n_samples,
        tokens=tokens,
        **ranks.report(),
        **versions(),
    )


def _spans(span: int | Sequence[int] | None) -> list[int] | None:
    """Return the spans in increasing order; None for all."""
    if span is None:
        return None
    spans: list[Any] = list(span) if isinstance(span, list | tuple | range) else [span]
    if not spans:
        raise InputError("block_influence: span must have at least one number.\n  got none")
    return sorted({as_count("block_influence", "span", each) for each in spans})


def _within(spans: list[int] | None, blocks: Sequence[Block]) -> list[int]:
    """Return the spans that some chain of blocks has."""
    longest = max(Counter(block.chain for block in blocks).values())
    if spans is not None and spans[-1] > longest:
        raise InputError(
            f"block_influence: span={spans[-1]}, and no stack has more than {longest} blocks."
        )
    return list(range(1, longest + 1)) if spans is None else spans
