"""Linear layers that mix the tokens of an image, as in MLP-Mixer: their tokens are last."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

from torch import nn

from repsim.capture.tokens._rules import MOST_PREFIX, Size

__all__ = ["TokenMixers"]


class TokenMixers:
    """Finds outputs (B, features, b) of linear layers that were given transposed tokens.

    Such a layer is as wide as the image has patches, and none of its widths is a number of
    features. A linear layer over features may be as wide, but it returns (B, tokens, b). If patches
    are as many as features, widths do not tell these layers apart, and none is found.

    Parameters
    ----------
    maps : sequence of (int, (int, int))
        Channels and size of the maps that the convolutions of the model make of the image.
    norms : set of int
        The widths of the LayerNorms of the model, which are numbers of features.
    """

    def __init__(self, maps: Sequence[tuple[int, Size]], norms: Set[int]) -> None:
        self._patches, self._features = 0, norms
        if len(maps) == 1:  # several make stages, with other numbers of tokens
            self._patches, self._features = math.prod(maps[0][1]), norms | {maps[0][0]}

    def have_made(self, module: nn.Module, shape: tuple[int, ...]) -> bool:
        """Whether the linear layers in a module mix tokens, and made an output of this shape.

        Parameters
        ----------
        module : torch.nn.Module
            A linear layer, or a module that contains some.
        shape : tuple of int
            Of the output, batch first, with three axes.
        """
        _, features, last = shape
        may_be_tokens = self._patches <= features <= self._patches + MOST_PREFIX
        if not self._patches or may_be_tokens or features not in self._features:
            return False
        layers = (each for each in module.modules() if isinstance(each, nn.Linear))
        widths = ({each.in_features, each.out_features} for each in layers)
        known = self._features - {self._patches}
        return any({last, self._patches} <= pair and not pair & known for pair in widths)
