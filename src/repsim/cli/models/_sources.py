"""Sources of models: timm, torchvision, transformers, and functions of the user."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.cli._literals import near
from repsim.cli._needs import need
from repsim.cli._outcome import UsageError
from repsim.cli.models._preparation import (
    SCALES,
    Preparation,
    Scale,
    channels_of,
    plain_preparation,
)
from repsim.cli.models._published import reach_the_hub

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SOURCES", "Built", "from_function", "module_of"]


@dataclass(frozen=True)
class Built:
    """A model from its source.

    Attributes
    ----------
    module : torch.nn.Module
        The model.
    weights : str
        "random", "pretrained", or their source.
    preparation : Preparation or None
        How it gets images; None if it takes no images or does not say their size.
    """

    module: nn.Module
    weights: str
    preparation: Preparation | None


def from_timm(name: str, *, pretrained: bool, size: int | None, scale: str | None) -> Built:
    """Build ``timm:NAME``; its images follow timm's data configuration of the model."""
    timm = need("timm", f"timm:{name}")
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    stated = timm.get_pretrained_cfg(name)
    if pretrained:
        reach_the_hub(stated)
    # A model with positions for a grid of patches is built for one size; others take any size.
    fixed = bool(getattr(stated, "fixed_input_size", False))
    options = {"img_size": size} if size is not None and fixed else {}
    model = timm.create_model(name, pretrained=pretrained, **options)
    data = importlib.import_module("timm.data")
    config = data.resolve_model_data_config(model)
    if size is not None:
        config["input_size"] = (config["input_size"][0], size, size)
    if scale is not None:
        config["mean"], config["std"] = SCALES[scale]
    transform = data.create_transform(**config, is_training=False)
    label = "timm: " + " ".join(str(transform).split())
    return Built(
        model,
        "pretrained" if pretrained else "random",
        Preparation(tuple(config["input_size"]), label, transform),
    )


def from_torchvision(name: str, *, pretrained: bool, size: int | None, scale: str | None) -> Built:
    """Build ``torchvision:NAME``; its images follow the transforms of its published weights."""
    models = need("torchvision", f"torchvision:{name}").models
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    published = models.get_model_weights(name).DEFAULT
    # Only these have positions for a grid of patches of one size.
    options = {"image_size": size} if size is not None and name.startswith("vit_") else {}
    model = models.get_model(name, weights=published if pretrained else None, **options)
    transform = published.transforms()
    if size is not None:
        shorter = round(size * transform.resize_size[0] / transform.crop_size[0])
        transform = published.transforms(crop_size=size, resize_size=shorter)
    if scale is not None:
        transform.mean, transform.std = map(list, SCALES[scale])
    side = int(transform.crop_size[0])
    label = "torchvision: " + " ".join(str(transform).split())
    return Built(
        model,
        "pretrained" if pretrained else "random",
        Preparation((3, side, side), label, transform),
    )


def from_transformers(name: str, *, pretrained: bool, size: int | None, scale: str | None) -> Built:
    """Build ``transformers:`` a model type, a configuration or model class, or a local folder."""
    transformers = need("transformers", f"transformers:{name}")
    folder = Path(name)
    if folder.is_dir():
        model = transformers.AutoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        weights = f"folder {name}"
    elif os.sep in name or name.startswith("."):
        raise UsageError(f"transformers: there is no such folder.\n  got {name}")
    else:
        model, weights = _fresh_transformer(transformers, name, size), "random"
    config = model.config
    side = size or getattr(config, "image_size", None)
    if isinstance(side, list | tuple):
        side = side[0]
    preparation = None
    if getattr(model, "main_input_name", "pixel_values") == "pixel_values" and side:
        channels = int(getattr(config, "num_channels", 3))
        preparation = plain_preparation(
            int(side), channels, SCALES[scale] if scale else _hf_scale(folder)
        )
    return Built(model, weights, preparation)


def module_of(path: str) -> str:
    """Return the name of the module in a file below the current folder."""
    return ".".join(Path(path).with_suffix("").parts)


def from_function(name: str, *, pretrained: bool, size: int | None, scale: str | None) -> Built:
    """Call ``package.module:function`` without arguments; the current folder is importable."""
    torch = need("torch", name)
    where, _, what = name.partition(":")
    if os.sep in where or where.startswith("."):
        inside = not where.startswith((os.sep, ".."))
        written = module_of(os.path.normpath(where)) if inside else "package.module"
        raise UsageError(
            f"a module is named with dots, and not as a path.\n  got {name}\n"
            f"  Write {written}:{what}; modules in the current folder can be imported."
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        # The module may draw random numbers where it is imported; they must not change the weights.
        with torch.random.fork_rng(devices=[]):
            module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if not f"{where}.".startswith(f"{error.name}."):
            raise
        if where.endswith(".py"):
            raise UsageError(
                f"a module is named without .py.\n  got {name}\n"
                f"  Write {module_of(where)}:{what}; modules in the current folder can be imported."
            ) from error
        raise UsageError(
            f"there is no module {where!r} to get a model from.\n  got {name}\n"
            f"  Write timm:NAME, torchvision:NAME, transformers:TYPE, or module:function of a "
            f"module that can be imported here."
        ) from error
    function = getattr(module, what, None)
    if not callable(function):
        names = [each for each in dir(module) if callable(getattr(module, each))]
        raise UsageError(f"module {where!r} has no function {what!r}.{near(what, names)}")
    _require_no_arguments(name, function, isinstance(function, torch.nn.Module))
    model = function()
    if not isinstance(model, torch.nn.Module):
        raise UsageError(
            f"{name} must return a torch.nn.Module when it is called without arguments.\n"
            f"  got {type(model).__name__}"
        )
    side = size or _own_size(model)
    preparation = None
    if side is not None:
        preparation = plain_preparation(
            side, channels_of(model), SCALES[scale] if scale else _own_scale(model)
        )
    return Built(model, f"as {what} makes them", preparation)


def _require_no_arguments(name: str, function: Callable[..., Any], is_model: bool) -> None:
    """Raise if a function cannot be called without arguments, or is a model itself."""
    what = name.rpartition(":")[2]
    problem, call = "is a model, not a function that returns one", what
    if not is_model:
        try:
            inspect.signature(function).bind()
        except TypeError as error:
            problem, call = f"cannot be called without arguments: {error}", f"{what}(...)"
        except ValueError:  # compiled functions have no signature
            return
        else:
            return
    raise UsageError(
        f"{name} {problem}.\n"
        f"  Write a function without arguments that returns the model, and name it:\n"
        f"  def my_model(): return {call}"
    )


SOURCES: dict[str, Callable[..., Built]] = {
    "timm": from_timm,
    "torchvision": from_torchvision,
    "transformers": from_transformers,
}
"""The part before the colon in the name of a model."""


def _fresh_transformer(transformers: Any, name: str, size: int | None) -> Any:
    automatic = importlib.import_module("transformers.models.auto.configuration_auto")
    if name in automatic.CONFIG_MAPPING:
        config, build = transformers.AutoConfig.for_model(name), transformers.AutoModel.from_config
    elif name.isidentifier() and name.endswith("Config") and hasattr(transformers, name):
        config, build = getattr(transformers, name)(), transformers.AutoModel.from_config
    elif name.isidentifier() and hasattr(getattr(transformers, name, None), "config_class"):
        build = getattr(transformers, name)
        config = build.config_class()
    else:
        classes = [each for each in dir(transformers) if each.endswith(("Config", "Model"))]
        raise _unknown("transformers", name, [*automatic.CONFIG_MAPPING, *classes])
    if size is not None and hasattr(config, "image_size"):
        config.image_size = size
    return build(config)


def _hf_scale(folder: Path) -> Scale:
    """Return the scale of the image processor in a local folder, else that of ViT, [-1, 1]."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return SCALES["half"]
    stated = json.loads(file.read_text())
    if not stated.get("do_normalize", True):
        return SCALES["none"]
    mean, deviation = stated.get("image_mean"), stated.get("image_std")
    return (tuple(mean), tuple(deviation)) if mean and deviation else SCALES["half"]


def _own_size(model: Any) -> int | None:
    """Return the image size that timm, torchvision and transformers store in their models."""
    stated = (
        getattr(getattr(model, "patch_embed", None), "img_size", None),
        getattr(model, "image_size", None),
        getattr(getattr(model, "config", None), "image_size", None),
        *((each["input_size"][-2:] if each.get("input_size") else None) for each in _cards(model)),
    )
    for size in stated:
        side = size[0] if isinstance(size, list | tuple) and size else size
        if isinstance(side, int):
            return side
    return None


def _own_scale(model: Any) -> Scale:
    """Return the scale that timm stores in its models, else that of ImageNet."""
    for each in _cards(model):
        if each.get("mean") and each.get("std"):
            return tuple(each["mean"]), tuple(each["std"])
    return SCALES["imagenet"]


def _cards(model: Any) -> list[dict[str, Any]]:
    found = (getattr(model, name, None) for name in ("pretrained_cfg", "default_cfg"))
    return [each for each in found if isinstance(each, dict)]


def _unknown(source: str, name: str, known: Sequence[str]) -> UsageError:
    hint = near(name, known, f"{source}:")
    return UsageError(f"{source} has no model of this name.\n  got {source}:{name}{hint}")
