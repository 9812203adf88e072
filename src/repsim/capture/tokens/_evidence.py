"""Evidence of a forward pass about its tokens: image, convolutions, declarations of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from repsim.capture._containers import tensors_in
from repsim.capture.layers._walk import unwrap
from repsim.capture.tokens._rules import Convolution, Move, Size
from repsim.capture.tokens._video import VideoSize, video_of

__all__ = [
    "Declared",
    "ModelInput",
    "convolution_of",
    "declared_prefix",
    "modules_around",
    "moved",
    "watching",
]

CLS_NAMES = ("cls_token", "class_token", "class_embedding")
"""Names of the parameter in timm, torchvision and transformers."""

OTHER_NAMES = ("dist_token", "distillation_token", "reg_token", "register_tokens")


@dataclass(slots=True)
class ModelInput:
    """The input of a forward.

    Attributes
    ----------
    batch : int or None
        The first axis of the first tensor.
    image : (int, int) or None
        Height and width of the first floating-point tensor with four axes.
    video : (int, int, int) or None
        Frames, height and width of the first floating-point tensor with five axes.
    lengths : set of int
        Second axes of integer tensors: lengths of texts. Masks of pixels and patches are none.
    sequences : set of int
        Second axes of floating-point tensors with three axes: lengths of embedded texts.
    """

    batch: int | None = None
    image: Size | None = None
    video: VideoSize | None = None
    lengths: set[int] = field(default_factory=set)
    sequences: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, arguments: object) -> ModelInput:
        """Find the sizes in the arguments of a module."""
        found = cls()
        of_images = {id(tensor) for tensor in _of_pixels(arguments)}
        for tensor in tensors_in(arguments):
            if tensor.is_nested or tensor.dim() == 0:
                continue
            if found.batch is None:
                found.batch = int(tensor.shape[0])
            if tensor.dim() == 4 and tensor.is_floating_point() and found.image is None:
                found.image = _height_and_width(tensor)
            if tensor.is_floating_point() and found.video is None:
                found.video = video_of(tuple(tensor.shape))
            if tensor.dim() >= 2 and not (tensor.is_floating_point() or tensor.is_complex()):
                if id(tensor) in of_images:
                    continue
                found.lengths.add(int(tensor.shape[1]))
            elif tensor.dim() == 3:
                found.sequences.add(int(tensor.shape[1]))
        return found


@dataclass(frozen=True)
class Declared:
    """What the modules of a model declare about prefix tokens, before anything runs.

    timm's models count them in ``num_prefix_tokens``. Elsewhere the parameters have names that
    timm, torchvision and transformers share.

    Attributes
    ----------
    named : int or None
        The number of prefix tokens in the parameters; None if no parameter has such a name.
    has_cls : bool
        Whether one of them is CLS, which then comes first.
    channels_last : bool
        Whether the model has a LayerNorm, as models with channels last have.
    """

    named: int | None
    has_cls: bool
    channels_last: bool

    @classmethod
    def by(cls, model: nn.Module) -> Declared:
        """Find the declarations in the modules of a model."""
        tokens = others = 0
        norm = False
        for module in unwrap(model).modules():
            tokens = max(tokens, *(_length(module, name) for name in CLS_NAMES))
            others = max(others, sum(_length(module, name) for name in OTHER_NAMES))
            norm = norm or isinstance(module, nn.LayerNorm)
        return cls(tokens + others or None, tokens > 0, norm)


def declared_prefix(around: Iterable[nn.Module]) -> int | None:
    """Return timm's ``num_prefix_tokens`` of the first module that has it; None if none has.

    Parameters
    ----------
    around : iterable of torch.nn.Module
        The modules that contain the tokens, from the inside out.
    """
    for module in around:
        number = getattr(module, "num_prefix_tokens", None)
        if type(number) is int:
            return number
    return None


def modules_around(root: nn.Module, layer: str) -> list[nn.Module]:
    """Return a layer and the modules that contain it, from the inside out."""
    around = [unwrap(root)]
    for part in layer.split(".") if layer else ():
        around.append(unwrap(around[-1].get_submodule(part)))
    return around[::-1]


@contextmanager
def watching(model: nn.Module) -> Iterator[list[Convolution]]:
    """Record the two-dimensional convolutions of a model, in order; yield the list.

    The caller clears the list before each forward.
    """
    seen: list[Convolution] = []

    def note(module: nn.Module, args: object, kwargs: object, output: object) -> None:
        source = next(tensors_in((args, kwargs)), None)
        if source is not None and isinstance(output, Tensor):
            found = convolution_of(source, output, module.stride)  # type: ignore[arg-type]
            if found is not None:
                seen.append(found)

    with ExitStack() as stack:
        for module in unwrap(model).modules():
            if isinstance(module, nn.Conv2d):
                stack.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        yield seen


def convolution_of(
    source: Tensor, result: Tensor, stride: int | Sequence[int]
) -> Convolution | None:
    """Return the sizes of a two-dimensional convolution; None for maps without positions."""
    if source.ndim not in (3, 4) or result.ndim not in (3, 4):
        return None
    size = _size(result)
    if size == (1, 1):
        return None  # a gate on pooled channels makes no patches
    pair = (stride, stride) if isinstance(stride, int) else tuple(stride) * (3 - len(stride))
    return Convolution(_size(source), size, (int(pair[0]), int(pair[1])))


def moved(
    name: str, source: Tensor, result: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Move | None:
    """Return what ``pad`` or ``roll`` did to a tensor with four axes; None for other tensors.

    Parameters
    ----------
    name : {"pad", "roll"}
        The function.
    source, result : torch.Tensor
        Its argument and its result.
    args, kwargs
        Its arguments after the tensor.
    """
    if source.ndim != 4 or result.ndim != 4:
        return None
    by = [0, 0, 0, 0]
    if name == "pad":
        # In pairs from the last axis on: places before, places after.
        for axis, places in enumerate((args[0] if args else kwargs["pad"])[::2]):
            by[-1 - axis] = int(places)
    else:
        shifts = _tuple(args[0] if args else kwargs["shifts"])
        axes = _tuple(args[1] if len(args) > 1 else kwargs.get("dims", ()))
        if len(shifts) != len(axes):
            return None  # over the flattened tensor
        for places, axis in zip(shifts, axes, strict=True):
            by[axis] += places
    return Move(tuple(source.shape), tuple(result.shape), tuple(by))


def _of_pixels(value: object) -> Iterator[Tensor]:
    """Yield the tensors that transformers names after pixels, such as ``pixel_attention_mask``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item) if "pixel" in str(key) else _of_pixels(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _of_pixels(item)


def _tuple(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _size(image: Tensor) -> Size:
    return (int(image.shape[-2]), int(image.shape[-1]))


def _height_and_width(image: Tensor) -> Size:
    a, b, c = (int(size) for size in image.shape[1:])
    return (a, b) if c in (1, 3, 4) and a not in (1, 3, 4) else (b, c)


def _length(module: nn.Module, name: str) -> int:
    own = module._parameters  # in scripted modules it is not a dict and has no get
    if name not in own:
        return 0
    value = own[name]
    if value is None:
        return 0
    return int(value.shape[-2]) if value.ndim > 1 else 1
