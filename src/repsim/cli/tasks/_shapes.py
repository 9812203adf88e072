"""The layers of a model with their output shapes, found by running it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repsim.cli.data._inputs import Inputs
from repsim.cli.models._load import LoadedModel

__all__ = ["LayerShape", "example", "output_shapes"]


@dataclass(frozen=True)
class LayerShape:
    """One call of a module.

    Attributes
    ----------
    name : str
        Its label in results: with ``:0``, ``:1``, ... if the module runs several times.
    kind : str
        Its class.
    shape : tuple of int
        Shape of the first tensor that it returns; empty if it returns none.
    ran : bool
        Whether it runs.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    ran: bool = True


def example(model: LoadedModel, inputs: Inputs | None, n: int = 2) -> Any:
    """Return a batch of the data, or noise of the size that the model needs."""
    import torch

    if inputs is not None:
        for batch in inputs.batches([model], order=inputs.order[:n], alone=True):
            return batch
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, *model.for_images().shape, generator=generator)


def output_shapes(
    model: LoadedModel, inputs: Inputs | None, layers: Sequence[str]
) -> list[LayerShape]:
    """Return the calls of the chosen layers in the order of their ends, then idle layers."""
    import torch

    from repsim.capture import select_layers, tensors_in

    batch = example(model, inputs)
    chosen = select_layers(model.module, tuple(layers))
    calls: list[tuple[str, str, tuple[int, ...]]] = []

    def hook_of(name: str) -> Any:
        def hook(module: torch.nn.Module, args: Any, output: Any) -> None:
            tensor = next(iter(tensors_in(output)), None)
            shape = () if tensor is None else tuple(tensor.shape)
            calls.append((name, type(module).__name__, shape))

        return hook

    handles = [each.module.register_forward_hook(hook_of(each.name)) for each in chosen]
    from repsim.analysis import as_found, call_model

    try:
        with as_found("layers", model.module):
            call_model("layers", model.module, batch)
    finally:
        for handle in handles:
            handle.remove()
    times, seen = Counter(name for name, _, _ in calls), Counter[str]()
    listed = []
    for name, kind, shape in calls:
        label = f"{name}:{seen[name]}" if times[name] > 1 else name
        seen[name] += 1
        listed.append(LayerShape(label, kind, shape))
    idle = [
        LayerShape(each.name, type(each.module).__name__, (), ran=False)
        for each in chosen
        if each.name not in times
    ]
    return listed + idle
