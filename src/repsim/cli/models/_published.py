"""Whether the Hugging Face Hub, where timm publishes its weights, can be reached."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

__all__ = ["reach_the_hub"]

FILES = ("model.safetensors", "pytorch_model.bin")
"""The files in which timm looks for weights, if the configuration of a model names none."""


def reach_the_hub(stated: Any) -> None:
    """Raise at once if the weights of a timm model are neither on this disk nor within reach.

    ``hf_hub_download`` asks six times for each file, with pauses, and waits up to a minute for each
    answer. This asks once.

    Parameters
    ----------
    stated : timm.models.PretrainedCfg or None
        Where the weights of the model are.

    Raises
    ------
    Exception
        The error of the network, whose class depends on the version of ``huggingface_hub``.
    """
    repository = getattr(stated, "hf_hub_id", None)
    if not repository or stated.file:
        return
    hub = importlib.import_module("huggingface_hub")
    files = (stated.hf_hub_filename,) if stated.hf_hub_filename else FILES
    if any(isinstance(hub.try_to_load_from_cache(repository, each), str) for each in files):
        return
    # A server that refuses is within reach; timm says what it refuses.
    with contextlib.suppress(importlib.import_module("huggingface_hub.errors").HfHubHTTPError):
        hub.file_exists(repository, files[0])
