"""Loading a model by its name on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim._errors import RepsimError
from repsim.cli._needs import need
from repsim.cli._outcome import DataError, UsageError
from repsim.cli._session import Session
from repsim.cli.models._preparation import Preparation
from repsim.cli.models._sources import SOURCES, Built, from_function, module_of
from repsim.cli.models._weights import check_weights, file_digest, load_weights

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadedModel", "ModelRequest", "chosen_layers", "load_model"]


@dataclass(frozen=True)
class ModelRequest:
    """The options of the command line about one model."""

    spec: str
    seed: int = 0
    weights: Path | None = None
    pretrained: bool = False
    size: int | None = None
    scale: str | None = None
    device: str = "cpu"

    def check(self) -> None:
        """Raise on errors that can be found without building a model.

        Raises
        ------
        UsageError
            The name has no source, or the weights do not exist.
        """
        if ":" not in self.spec:
            libraries = f"timm:{self.spec}, torchvision:{self.spec}, transformers:TYPE"
            own = f"{libraries}, or module:function"
            if Path(self.spec).is_dir():
                own = f"transformers:{self.spec} if it is a folder of save_pretrained"
            elif self.spec.endswith((".pt", ".pth", ".safetensors")):
                own = f"the model of these weights (timm:NAME, ...) and --weights {self.spec}"
            elif self.spec.endswith(".py"):
                own = f"{module_of(self.spec)}:FUNCTION, a function that returns the model"
            elif self.spec.endswith((".npy", ".npz")):
                own = "timm:NAME, torchvision:NAME, transformers:TYPE, or module:function"
            raise UsageError(
                f"this is not the name of a model, because it does not say where it is from.\n"
                f"  got {self.spec}\n"
                f"  Write {own}; repsim measure takes arrays, in files .npy and .npz."
            )
        if self.weights is not None:
            check_weights(self.weights)

    def arguments(self) -> dict[str, Any]:
        """Return all values that determine the output of the model, in JSON types."""
        return {
            "spec": self.spec,
            "seed": self.seed,
            "weights": None if self.weights is None else file_digest(self.weights),
            "pretrained": self.pretrained,
            "size": self.size,
            "normalise": self.scale,
        }


@dataclass(frozen=True)
class LoadedModel:
    """A model with its name, weights and preparation.

    Attributes
    ----------
    name : str
        Its name in results.
    module : torch.nn.Module
        The model, on its device.
    weights : str
        The source of its weights, in words.
    preparation : Preparation or None
        How it gets images, if it says so.
    """

    name: str
    module: nn.Module
    weights: str
    preparation: Preparation | None

    def digest(self) -> str:
        """Return a digest of the weights."""
        from repsim.analysis import model_digest

        return model_digest(self.module)

    def for_images(self) -> Preparation:
        """Return how it gets images.

        Raises
        ------
        UsageError
            It does not say the size of images, or takes no images.
        """
        if self.preparation is None:
            wants = getattr(self.module, "main_input_name", "pixel_values")
            if wants != "pixel_values":
                raise UsageError(
                    f"{self.name} takes {wants}, not images.\n"
                    "  Pass an .npz with an array named inputs; the model gets it unchanged."
                )
            raise UsageError(
                f"the image size of {self.name} is unknown.\n"
                f"  Give it in pixels with --size (for the second model with --size-y). For inputs "
                f"other than images, pass an .npz with an array named inputs: --data FILE.npz."
            )
        return self.preparation

    def require_texts(self) -> None:
        """Raise if it does not take texts with a mask.

        Raises
        ------
        UsageError
            Its forward has no such arguments.
        """
        try:
            inspect.signature(self.module.forward).bind(input_ids=None, attention_mask=None)
        except TypeError as error:
            raise UsageError(
                f"--data: models get texts with a mask as input_ids and attention_mask, and "
                f"{self.name} ({type(self.module).__name__}) does not take these.\n  {error}\n"
                f"  Leave attention_mask out of the .npz, so that the model gets inputs alone and "
                f"padding counts,\n  or write a function that returns a model whose forward takes "
                f"them."
            ) from error
        except ValueError:  # compiled functions have no signature
            return


def load_model(session: Session, request: ModelRequest) -> LoadedModel:
    """Build a model, load its weights, move it to its device, and report its weights.

    Raises
    ------
    UsageError
        There is no such model (the message lists similar names), or torch or the library of the
        model is not installed.
    DataError
        The weights do not belong to the model, or cannot be loaded.
    """
    request.check()
    torch = need("torch", request.spec)
    source, _, rest = request.spec.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        built = _build(request, source, rest)
    weights = built.weights
    if request.weights is not None:
        load_weights(built.module, request.weights)
        weights = f"{request.weights.name} (sha256 {file_digest(request.weights)})"
    elif weights == "random":
        weights = f"random (seed {request.seed})"
        session.note(
            f"note: {request.spec} has random weights (seed {request.seed})"
            + ("." if source == "transformers" else "; see --pretrained and --weights.")
        )
    _move(torch, built.module, request.device)
    short = rest if source in SOURCES else request.spec
    return LoadedModel(short, built.module, weights, built.preparation)


def chosen_layers(model: LoadedModel, layers: Sequence[str], option: str, more: str = "") -> None:
    """Raise on layers that the model lacks, before any data are read; ``more`` ends the error."""
    from repsim._errors import LayerNotFoundError
    from repsim.capture import select_layers

    try:
        select_layers(model.module, tuple(layers))
    except LayerNotFoundError as error:
        message = str(error).removeprefix("select_layers: ")
        raise UsageError(
            f"{option}: {message.rpartition(chr(10))[0]}\n"
            f"  List all layers: repsim layers MODEL. Put globs in quotes: {option} 'blocks.*'"
            f"{more}"
        ) from error


def _build(request: ModelRequest, source: str, rest: str) -> Built:
    options: dict[str, Any] = {
        "pretrained": request.pretrained and request.weights is None,
        "size": request.size,
        "scale": request.scale,
    }
    if source not in SOURCES:
        return from_function(request.spec, **options)
    try:
        return SOURCES[source](rest, **options)
    except RepsimError:
        raise
    # The package and the function of the user raise errors of any type; the message names it.
    except Exception as error:
        if options["pretrained"]:
            raise DataError(
                f"the published weights of {request.spec} cannot be loaded.\n"
                f"  {type(error).__name__}: {_first_line(error)}\n"
                "  Without a network, pass --weights FILE, or leave --pretrained out for random "
                "weights."
            ) from error
        raise DataError(
            f"{request.spec} cannot be built.\n  {type(error).__name__}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def _move(torch: Any, module: nn.Module, device: str) -> None:
    try:
        module.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device: the model cannot be moved there.\n  got {device}: {_first_line(error)}"
        ) from error
