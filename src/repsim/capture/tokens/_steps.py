"""Rules that follow convolutions from the image: which maps are of it, and pixels between tokens.

They are functions of plain numbers, as those of :mod:`repsim.capture.tokens._rules`.
"""

from __future__ import annotations

from collections.abc import Sequence

from repsim.capture.tokens._rules import Convolution, Size, reduction

__all__ = ["divided", "maps_of_image", "steps_of"]


def maps_of_image(convolutions: Sequence[Convolution], image: Size | None) -> list[Size]:
    """Return the sizes of the convolutions' results whose rows and columns are those of an image.

    Convolutions may run on rearranged positions: MobileViT v2 has maps of the pixels in a patch by
    the patches, and CLAP folds a spectrogram into a square. Such a map is neither an earlier map,
    reduced or padded, nor has it the aspect of the image, which it has if the model resized it.

    Parameters
    ----------
    convolutions : sequence of Convolution
        In their order.
    image : (int, int), optional
        Height and width of the model's input. Without it all maps are returned.
    """
    if image is None:
        return [each.result for each in convolutions]
    known: dict[Size, Size] = {image: (1, 1)}  # the steps are not used
    found: list[Size] = []
    for each in convolutions:
        if _is_of_image(each.source, image, known):
            known.setdefault(each.source, (1, 1))
            known.setdefault(each.result, (1, 1))
            found.append(each.result)
    return found


def steps_of(
    size: Size, image: Size | None, convolutions: Sequence[Convolution]
) -> tuple[float, float] | None:
    """Return the pixels from one token of a map to the next; None if unknown.

    Strides multiply along the chain of convolutions from the image to the map. Dividing the size of
    the image by that of the map would be wrong if sizes are rounded: 100 pixels in steps of 32 give
    four tokens.

    Parameters
    ----------
    size : (int, int)
        Rows and columns of the map.
    image : (int, int), optional
        Height and width of the model's input; by default the input of the first convolution.
    convolutions : sequence of Convolution
        In their order.
    """
    if image is None:
        image = next((each.source for each in convolutions), None)
    if image is None:
        return None
    known: dict[Size, Size] = {image: (1, 1)}
    for each in convolutions:
        start = _reduced(each.source, known) or _padded(each.source, known)
        if start is None:
            continue
        known.setdefault(each.source, start)
        step = (start[0] * each.stride[0], start[1] * each.stride[1])
        known.setdefault(each.result, step)
    found = _reduced(size, known)
    return None if found is None else (float(found[0]), float(found[1]))


def divided(image: Size, grid: Size) -> tuple[float, float] | None:
    """Return the size of patches that tile an image exactly; None if a remainder is left.

    For patches that are made without a convolution.
    """
    if image[0] % grid[0] or image[1] % grid[1]:
        return None
    return (image[0] / grid[0], image[1] / grid[1])


def _is_of_image(size: Size, image: Size, known: dict[Size, Size]) -> bool:
    (height, width), (tall, wide) = size, image
    rounding = max(*size, *image)
    if size in known or abs(height * wide - width * tall) <= rounding:
        return True
    return _reduced(size, known) is not None or _padded(size, known) is not None


def _reduced(size: Size, known: dict[Size, Size]) -> Size | None:
    """Find the step of a map from the latest earlier map that it equals or was reduced from."""
    if size in known:
        return known[size]
    for before, step in reversed(known.items()):
        if by := reduction(before, size):
            return (step[0] * by, step[1] * by)
    return None


def _padded(size: Size, known: dict[Size, Size]) -> Size | None:
    """Find the step of a map that is a padded earlier map, with less than its size added."""
    for before, step in reversed(known.items()):
        if all(a <= b < 2 * a for a, b in zip(before, size, strict=True)):
            return step
    return None
