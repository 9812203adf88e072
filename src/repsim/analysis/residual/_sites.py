"""The residual connections of a model, as a table."""

from __future__ import annotations

from typing import Any

from torch import nn

from repsim.analysis._arguments import check_arguments
from repsim.analysis._call import call_model
from repsim.analysis.run._drive import Forward, Prepare, as_found
from repsim.capture import ResidualSites, SiteFinder

__all__ = ["residual_sites"]


def residual_sites(
    model: nn.Module,
    example: Any,
    *,
    prepare: Prepare | None = None,
    forward: Forward | None = None,
) -> ResidualSites:
    """List the residual connections of a model, found by running it once.

    >>> import torch, torchvision, repsim
    >>> net = torchvision.models.resnet18()
    >>> print(repsim.residual_sites(net, torch.zeros(1, 3, 64, 64)))
    site            block     branch  kind        shape
    layer1.0.conv2  layer1.0  conv2   identity    (1, 64, 16, 16)
    layer1.1.conv2  layer1.1  conv2   identity    (1, 64, 16, 16)
    layer2.0.conv2  layer2.0  conv2   projection  (1, 128, 8, 8)
    layer2.1.conv2  layer2.1  conv2   identity    (1, 128, 8, 8)
    layer3.0.conv2  layer3.0  conv2   projection  (1, 256, 4, 4)
    layer3.1.conv2  layer3.1  conv2   identity    (1, 256, 4, 4)
    layer4.0.conv2  layer4.0  conv2   projection  (1, 512, 2, 2)
    layer4.1.conv2  layer4.1  conv2   identity    (1, 512, 2, 2)

    A residual connection is an addition ``z + f(z)`` of equal shapes whose summands are related in
    one of three ways. Identity: the branch f(z) was computed from the skip z and passed a weight
    matrix. Projection shortcut: both were computed from the same value, the skip with fewer weight
    matrices and no nonlinearity. Parallel: several branches belong to one skip, ``z + f(z) + g(z)``
    added in any order; each has its row.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in any wrapper. It runs once in evaluation mode without gradients and is restored
        afterwards.
    example : tensor, tuple, or mapping
        One batch: the input, a tuple whose first item is the input, or keyword arguments. A batch
        of one sample suffices.
    prepare : callable, optional
        A function from the example to the batch for the model.
    forward : callable, optional
        ``forward(model, batch)`` in place of ``model(batch)``.

    Returns
    -------
    ResidualSites
        A tuple of :class:`repsim.capture.ResidualSite` (label, block, branch, kind, shape) in
        execution order; empty if there is none. Printing it shows a table. Its ``labels`` are
        unique, and other functions use them.

    Raises
    ------
    InputError
        The model is not a module, or the example is not a batch.

    Warns
    -----
    RepsimWarning
        An operation looks like a residual connection but is not an addition that can be followed:
        ``torch.stack([z, f]).sum(0)``, ``z - (-f)``, an addition in scripted code or in a custom
        kernel.

    Notes
    -----
    Tensors are followed through torch functions, so the result does not depend on the code or the
    class names of the model. Position embeddings, attention masks, rotary embeddings and sums of
    low-rank adapters are not residual connections. Three kinds are not recognised: shortcuts
    without weight matrices that change the value (pooled, strided, zero-padded, or scaled by
    learned numbers, as in the last stages of CAFormer of timm), branches without weight matrices
    (the pooling of PoolFormer), and the first skip of a learned token, which is a constant before
    it is combined with the input (CaiT's class token).

    Cost: one forward, and about ten microseconds for each torch function.

    References
    ----------
    He et al. 2016, arXiv:1512.03385, equations 1 (identity) and 2 (projection).
    """
    check_arguments(
        "residual_sites", {"model": model}, None, False, prepare=prepare, forward=forward
    )
    with as_found("residual_sites", model), SiteFinder(model) as finder:
        call_model("residual_sites", model, example, prepare, forward)
    finder.warn("residual_sites")
    return finder.sites()
