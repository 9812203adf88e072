"""The samples of a data set, one at a time: a folder of images, an ``.npz``, the digits."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from repsim.cli._needs import need
from repsim.cli._outcome import DataError, UsageError

__all__ = ["Images", "Pictures", "RawInputs", "Samples", "open_samples"]

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
"""Suffixes of images in a folder; other files are ignored."""

MASK = "attention_mask"
KEYS = ("images", "inputs", "labels", MASK)
"""Arrays of an ``.npz``; others are ignored."""


class Samples(Protocol):
    """A data set: indexed samples, perhaps with labels.

    Attributes
    ----------
    name : str
        Its name in results.
    digest : str
        Equal for equal samples; of the names and sizes of files, or of the values.
    labels : array of int (n,), or None
        Class numbers from 0.
    classes : list of str, or None
        Their names.
    mask : array of int (n, tokens), or None
        1 for the tokens of texts, 0 for padding; None if no token is padding.
    are_images : bool
        Whether samples are pictures, which are prepared for each model; other samples are passed
        unchanged.
    """

    name: str
    digest: str
    labels: np.ndarray[Any, Any] | None
    classes: list[str] | None
    mask: np.ndarray[Any, Any] | None
    are_images: bool

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def key(self, at: int) -> str:
        """Return the name of a sample for messages."""
        ...

    def read(self, at: int) -> Any:
        """Return a sample: a PIL image, or an array."""
        ...


class Images:
    """Images in a folder, at any depth, in the order of their paths.

    If every image is in a sub-folder and there are at least two, the first sub-folder in the path
    of an image is its class.
    """

    are_images = True
    mask: np.ndarray[Any, Any] | None = None

    def __init__(self, folder: Path) -> None:
        self.name = folder.name or str(folder.resolve())
        self.folder = folder
        self.paths = sorted(
            path.relative_to(folder)
            for path in folder.rglob("*")
            if path.suffix.lower() in EXTENSIONS
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and path.is_file()
        )
        if not self.paths:
            raise DataError(
                f"--data: there is no image in the folder.\n  got {folder}\n"
                f"  Images are files {', '.join(sorted(EXTENSIONS))}, at any depth."
            )
        tops = [path.parts[0] if len(path.parts) > 1 else "" for path in self.paths]
        names = sorted(set(tops))
        labelled = len(names) > 1 and "" not in names
        self.classes = names if labelled else None
        number = {name: at for at, name in enumerate(names)}
        self.labels = np.array([number[top] for top in tops]) if labelled else None
        self._image = need("PIL.Image", "a folder of images")
        state = hashlib.sha256()
        for path in self.paths:
            state.update(os.fsencode(path.as_posix()))  # not all names are UTF-8
            state.update(f"\0{(folder / path).stat().st_size}\0".encode())
        self.digest = state.hexdigest()[:16]

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def key(self, at: int) -> str:
        """Return the path inside the folder."""
        return self.paths[at].as_posix()

    def read(self, at: int) -> Any:
        """Decode the whole image, so a truncated file raises here and not later."""
        with self._image.open(self.folder / self.paths[at]) as image:
            image.load()
            if image.mode.startswith("I;16"):  # PIL's conversion clips at 255
                return self._image.fromarray(
                    np.rint(np.asarray(image) / 257).astype(np.uint8)  # 65535 / 255
                )
            if image.mode in ("I", "F"):
                raise ValueError(
                    f"pixels of mode {image.mode} cannot be converted, "
                    "because their scale is unknown"
                )
            return image.copy()


class Pictures:
    """Images in an array of 8-bit integers, (n, height, width) or (n, height, width, 1 or 3)."""

    are_images = True
    mask: np.ndarray[Any, Any] | None = None

    def __init__(
        self,
        name: str,
        images: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any] | None,
        classes: list[str] | None = None,
    ) -> None:
        whole = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
        if images.dtype != np.uint8 or not whole or not images.size:
            raise DataError(
                "--data: images must be 8-bit integers, (n, height, width) or (n, height, "
                "width, 1 or 3).\n"
                f"  {name}: {images.dtype} {images.shape}\n"
                "  Store arrays that models get unchanged under the name inputs."
            )
        self.name, self.labels, self.classes = name, labels, classes
        self.images = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
        self._image = need("PIL.Image", f"--data {name}")
        self.digest = _array_digest(images, labels)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def key(self, at: int) -> str:
        """Return the number of the image."""
        return f"image {at}"

    def read(self, at: int) -> Any:
        """Return the image."""
        return self._image.fromarray(self.images[at])


class RawInputs:
    """Arrays that the models get unchanged, (n, ...); with a mask, texts of different lengths."""

    are_images = False

    def __init__(
        self,
        name: str,
        inputs: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any] | None,
        mask: np.ndarray[Any, Any] | None = None,
    ) -> None:
        if inputs.ndim < 2 or inputs.dtype.kind not in "iuf" or not inputs.size:
            raise DataError(
                f"--data: inputs must be numbers, (n, ...).\n  {name}: {inputs.dtype} "
                f"{inputs.shape}"
            )
        self.name, self.labels = name, labels
        self.classes: list[str] | None = None
        if inputs.dtype.kind == "f":
            self.inputs = inputs.astype(np.float32, copy=False)
        else:
            self.inputs = inputs.astype(np.int64, copy=False)
        self.mask = None if mask is None else mask.astype(np.int64)
        self.digest = _array_digest(inputs, labels, mask)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.inputs)

    def key(self, at: int) -> str:
        """Return the number of the sample."""
        return f"sample {at}"

    def read(self, at: int) -> Any:
        """Return the sample, in float32 or int64."""
        return self.inputs[at]


def open_samples(name: str) -> Samples:
    """Open what ``--data`` names.

    Raises
    ------
    UsageError
        There is no such folder or file.
    DataError
        It holds no samples.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return Images(path)
    if name == "digits":
        return _digits()
    if not path.is_file():
        raise UsageError(
            f"--data: there is no such folder or file.\n  got {name}\n"
            f"  Name a folder of images, an .npz, or digits."
        )
    if path.suffix != ".npz":
        raise UsageError(
            f"--data: must be a folder of images, an .npz, or digits.\n  got the file {name}\n"
            "  Write an array as numpy.savez('x.npz', inputs=x), which models get unchanged, or "
            "8-bit images as\n  numpy.savez('x.npz', images=x). Name the folder of an image."
        )
    return _archive(path)


def _archive(path: Path) -> Samples:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key in KEYS}
            names = list(file.files)
    except MemoryError:
        raise
    # Errors of NumPy and zipfile for a damaged file, and for a file of another kind.
    except Exception as error:
        raise DataError(f"--data: the file cannot be read.\n  {path}: {error}") from error
    if ("images" in arrays) == ("inputs" in arrays):
        raise DataError(
            "--data: an .npz must hold either images or inputs.\n"
            f"  {path}: {', '.join(names) or 'nothing'}\n"
            "  images: 8-bit, prepared for each model; inputs: passed unchanged."
        )
    found = arrays.get("images", arrays.get("inputs"))
    assert found is not None, "one of the two is there"
    labels = arrays.get("labels")
    if labels is not None and (labels.shape != found.shape[:1] or labels.dtype.kind not in "iu"):
        raise DataError(
            f"--data: labels must be one integer for each sample.\n"
            f"  {path}: labels {labels.dtype} {labels.shape}, samples {found.shape}"
        )
    mask = arrays.get(MASK)
    if mask is not None:
        _check_mask(path, found, mask)
    if "images" in arrays:
        return Pictures(path.name, found, labels)
    return RawInputs(path.name, found, labels, mask)


def _check_mask(path: Path, found: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> None:
    texts = found.ndim == 2 and found.dtype.kind in "iu" and mask.shape == found.shape
    if not texts or mask.dtype.kind not in "biu" or not np.isin(mask, (0, 1)).all():
        raise DataError(
            f"--data: {MASK} must say which tokens are real, 1 or 0 for each.\n"
            f"  {path}: {MASK} {mask.dtype} {mask.shape}, samples {found.dtype} {found.shape}\n"
            f"  Store texts as integers under the name inputs, (n, tokens), and a mask like them."
        )


def _digits() -> Samples:
    digits = need("sklearn.datasets", "--data digits").load_digits()
    # Sixteen grey levels, 0 to 16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Pictures("digits", images, digits.target, [str(each) for each in digits.target_names])


def _array_digest(*arrays: np.ndarray[Any, Any] | None) -> str:
    state = hashlib.sha256()
    for array in arrays:
        if array is not None:
            state.update(f"{array.dtype} {array.shape}".encode())
            state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()[:16]
