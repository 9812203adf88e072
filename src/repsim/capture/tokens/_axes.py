"""Which axes of an output are positions, and which axis holds the features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _LPPoolNd,
    _MaxPoolNd,
)

from repsim.capture.layers._walk import named_layers, unwrap
from repsim.capture.tokens._evidence import Declared, ModelInput, declared_prefix
from repsim.capture.tokens._mixers import TokenMixers
from repsim.capture.tokens._rules import Size, grid_of_map, grid_of_sequence

__all__ = ["PositionAxes"]

_POOLS = (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _LPPoolNd, _MaxPoolNd)
_REARRANGING = (nn.Unfold, nn.Fold, nn.PixelShuffle, nn.PixelUnshuffle, nn.Upsample)
_FEATURES_FIRST = (_ConvNd, _NormBase, nn.GroupNorm, *_POOLS, *_REARRANGING)


class PositionAxes:
    """Finds where the features are in outputs (B, features, ...) or (B, ..., features).

    A shape does not say it. The kind of a module does: convolutions have their features first, and
    linear layers last, unless they mix tokens. For other modules the rule is applied to the widths
    of the modules inside. If these do not decide, a map has the aspect of the image; then the
    modules around decide, from the inside out. If widths and aspect disagree, or the map is as wide
    as it has channels, the strides of a permuted map decide.

    Parameters
    ----------
    model : torch.nn.Module
        The model whose layers these are.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = {"": unwrap(model), **named_layers(model)}
        self._declared = Declared.by(model)
        self._widths: dict[tuple[str, int], _Widths] = {}
        self._image: Size | None = None
        self._sizes: list[Size] = []
        self._patches: set[int] = set()
        self._mixers = TokenMixers((), frozenset())
        self._lengths: set[int] = set()
        self._has_texts = False

    def start(self, batch: Any) -> None:
        """Start the next batch, in the form that the model gets."""
        given = ModelInput.of(batch)
        image, self._lengths = given.image, given.lengths
        self._has_texts = image is None and given.video is None
        if image != self._image:
            self._image = image
            maps = [] if image is None else list(_first_maps(self._modules[""], image))
            self._sizes = [size for _, size in maps]
            self._patches = {height * width for height, width in self._sizes}
            self._mixers = TokenMixers(maps, self._widths_in("", 1).norms)

    def features_first(
        self, layer: str, shape: tuple[int, ...], strides: tuple[int, ...] | None = None
    ) -> bool | None:
        """Whether the features of an output are on axis 1, before its positions.

        Parameters
        ----------
        layer : str
            The name of the module.
        shape : tuple of int
            Of its output, batch first, with three to five axes.
        strides : tuple of int, optional
            Of the output, as the module returned it. They show how axes were permuted.

        Returns
        -------
        bool or None
            None if it cannot be found. Three axes are a sequence (B, N, D) unless there is evidence
            of a one-dimensional convolution. If both axes have the widths of modules, the positions
            are on the axis that is as long as a text of the input. Four and five are a map of
            features first if the model has no layers of the other kind, and an image or layers of
            this kind. Five are also not found if the last two have the aspect of an image, as the
            masks of SAM (B, prompts, masks, H, W).
        """
        rank = len(shape) - 2
        own = _of_module(self._modules.get(layer), shape)
        if rank == 1 and not own and self._is_of_mixer(layer, shape):
            return True
        if own is not None:
            return own
        if rank == 3 and self._is_list_of_maps(shape):
            return None
        if shape[1] == shape[-1] and (permuted := _of_permuted(shape, strides)) is not None:
            return permuted
        inside, *around = self._around(layer)
        found = self._by_widths(inside, shape)
        if rank == 2 and self._image is not None:
            grid = grid_of_map((shape[1], shape[2], shape[3]), self._image, ())
            if grid is not None and found not in (None, grid[1]):
                return _of_permuted(shape, strides)
            found = found if grid is None else grid[1]
        for name in around:
            found = self._by_widths(name, shape) if found is None else found
        if found is False and rank == 2 and shape[1] == shape[-1]:
            return None if self._feeds_convolutions(layer, shape[1]) else False
        if found is None and rank == 1:
            return self._sequence_of_two(layer, shape)
        if found is not None:
            return found
        # Without images and convolutions these are parts of tokens, such as heads.
        some = self._image is not None or bool(self._widths_in("", rank).first)
        return True if some and not self._declared.channels_last else None

    def lacks_cls(self, layer: str, n: int) -> bool:
        """Whether the n tokens of a layer are known to be the patches alone.

        They are if they tile a map of the image, whole or merged as in later stages, and are not
        as many as another map and the class tokens of the model.
        """
        around = declared_prefix(self._modules[name] for name in self._around(layer))
        named = self._declared.named if around is None else around
        if named == 0 or n in self._patches:
            return True
        return self._tile(n) and not (named and self._tile(n - named))

    def _tile(self, n: int) -> bool:
        return n > 0 and grid_of_sequence(n, self._sizes, prefix=0) is not None

    def is_length_of_texts(self, n: int) -> bool:
        """Whether n is the length of the texts of a batch that has texts alone."""
        return self._has_texts and n > 1 and n in self._lengths

    def may_be_text(self, n: int) -> bool:
        """Whether n is the length of a text of the batch, maybe beside images."""
        return n in self._lengths

    def is_width(self, layer: str, n: int, *, own: bool = False) -> bool:
        """Whether weights of a layer have n entries along an axis, so n is a number of features.

        If it has no weights, those of the next module around it count, unless `own`.
        """
        for name in self._around(layer):
            shapes = {tuple(p.shape) for p in self._modules[name].parameters()}
            if shapes or own:
                return any(n in shape for shape in shapes)
        return False

    def _is_of_mixer(self, layer: str, shape: tuple[int, ...]) -> bool:
        """Whether linear layers that mix tokens made an output: the layer, or those nearest."""
        for name in self._around(layer):
            if self._widths_in(name, 1).last:
                return self._mixers.have_made(self._modules[name], shape)
        return False

    def _feeds_convolutions(self, layer: str, width: int) -> bool:
        """Whether a module around a layer has convolutions of maps with this number of channels.

        Then linear layers in the layer do not show that a map as wide as its channels has them
        last: it may be made for these convolutions, as in MaxViT.
        """
        around = (self._modules[name] for name in self._around(layer) if name)
        convolutions = (each for inside in around for each in inside.modules())
        return any(isinstance(c, nn.Conv2d) and c.in_channels == width for c in convolutions)

    def _is_list_of_maps(self, shape: tuple[int, ...]) -> bool:
        """Whether an output for an image may be maps (B, ..., H, W), as the masks of SAM are.

        Their columns may be as many as the features of a layer.
        """
        if self._image is None:
            return False
        height, width = self._image
        return shape[-2] * width == shape[-1] * height

    def _sequence_of_two(self, layer: str, shape: tuple[int, ...]) -> bool | None:
        """Tell a sequence (B, N, D) from (B, C, L) if widths do not; None if both may be."""
        widths = [self._widths_in(name, 1) for name in self._around(layer)]
        if not any(shape[1] in each.first and shape[2] in each.last for each in widths):
            return False
        text = [length in self._lengths for length in shape[1:]]
        return text[1] if text[0] != text[1] else None

    def _by_widths(self, name: str, shape: tuple[int, ...]) -> bool | None:
        """Whether only axis 1, and not the last, is as wide as a module inside this one."""
        widths = self._widths_in(name, len(shape) - 2)
        first, last = shape[1] in widths.first, shape[-1] in widths.last
        return first if first != last else None

    def _around(self, layer: str) -> Iterator[str]:
        """Yield a layer and the modules that contain it, from the inside out."""
        while layer:
            if layer in self._modules:
                yield layer
            layer = layer.rpartition(".")[0]
        yield ""

    def _widths_in(self, name: str, rank: int) -> _Widths:
        key = (name, rank)
        if key not in self._widths:
            self._widths[key] = _Widths.inside(self._modules[name], rank)
        return self._widths[key]


@dataclass(frozen=True)
class _Widths:
    """The numbers of features of the modules inside one, by the place of their features."""

    first: frozenset[int]
    last: frozenset[int]
    norms: frozenset[int]
    """Those of LayerNorms, wherever their features are."""

    @classmethod
    def inside(cls, module: nn.Module, rank: int) -> _Widths:
        """Collect them for outputs with this number of axes of positions."""
        first: set[int] = set()
        last: set[int] = set()
        norms: set[int] = set()
        for each in module.modules():
            if isinstance(each, _ConvNd):
                if len(each.kernel_size) == rank:
                    first |= {each.in_channels, each.out_channels}
            elif isinstance(each, _NormBase):
                if f"{rank}d" in type(each).__name__:
                    first.add(each.num_features)
            elif isinstance(each, nn.LayerNorm):
                width, declared = each.normalized_shape[-1], _declared_first(each)
                norms.add(width)
                for widths, places in ((first, True), (last, False)):
                    if declared is places or (declared is None and rank > 1):
                        widths.add(width)
            elif isinstance(each, nn.Linear):
                last |= {each.in_features, each.out_features}
            elif isinstance(each, nn.Embedding):
                last.add(each.embedding_dim)
        return cls(frozenset(first), frozenset(last), frozenset(norms))


def _of_module(module: nn.Module | None, shape: tuple[int, ...]) -> bool | None:
    """Whether a module has its features on axis 1 and not on the last; None if both may be."""
    if isinstance(module, _FEATURES_FIRST):
        return True
    if isinstance(module, nn.Linear | nn.Embedding):
        return False
    if (declared := _declared_first(module)) is not None:
        return declared
    if isinstance(module, nn.LayerNorm):
        fits = module.normalized_shape[-1]
        if fits != shape[1] or fits != shape[-1]:
            return shape[1] == fits
    return None


def _of_permuted(shape: tuple[int, ...], strides: tuple[int, ...] | None) -> bool | None:
    """Whether a permuted map has its features first; None if it is not permuted.

    Positions keep their order, so the axis that moved from one end to the other has the features.
    """
    axes = list(range(1, len(shape)))
    if strides is None or len(axes) < 3 or min(shape[1:]) < 2:
        return None
    stored = sorted(axes, key=lambda axis: -strides[axis])
    if stored == [*axes[1:], axes[0]]:
        return True
    return False if stored == [axes[-1], *axes[:-1]] else None


def _declared_first(module: nn.Module | None) -> bool | None:
    """Whether a norm says that its features are on axis 1; None if it does not say.

    Packages change the axes in subclasses of LayerNorm. They say so by the name of the class, or by
    an attribute ``data_format``.
    """
    if isinstance(module, nn.LayerNorm):
        if type(module).forward is nn.LayerNorm.forward:
            return False
        if "2d" in type(module).__name__.lower():
            return True
    named = {"channels_first": True, "channels_last": False}
    form = getattr(module, "data_format", None)
    return named.get(form) if isinstance(form, str) else None


def _first_maps(model: nn.Module, image: Size) -> Iterator[tuple[int, Size]]:
    """Yield channels and sizes of the maps that the convolutions of a model make of an image."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str):
            sizes = zip(image, module.kernel_size, module.stride, module.padding, strict=True)
            height, width = ((side + 2 * pad - k) // step + 1 for side, k, step, pad in sizes)
            if min(height, width) > 0 and height * width > 1:
                yield module.out_channels, (height, width)
