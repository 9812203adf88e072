"""How each package is called, according to its documentation.

Every caller takes the two models, the batches and the names of the modules that run, and returns
the package's matrix under the package's own labels. A package that raises when it is given all
layers is called again by its next caller; the first one that returns is the one that is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Matrix(NamedTuple):
    labels_x: list[str]
    labels_y: list[str]
    values: np.ndarray


class Layers(NamedTuple):
    """The modules of each model that a forward pass calls."""

    x: list[str]
    y: list[str]


class Batches(Dataset[Any]):
    """A data set whose items are whole batches, so no time goes into collating."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def loader(batches: list[Tensor], *, labels: bool) -> DataLoader[Any]:
    """A DataLoader of `[images]`, or of `[images, labels]` for a package that unpacks two."""
    rest = [torch.zeros(len(batches[0]), dtype=torch.long)] if labels else []
    return DataLoader(Batches([[images, *rest] for images in batches]), batch_size=None)


Caller = Callable[[nn.Module, nn.Module, list[Tensor], Layers], Matrix | None]


@dataclass(frozen=True)
class Package:
    distribution: str | None  # None: not a package but a floor
    module: str | None
    callers: dict[str, Caller]  # in order of preference; the key says how it was called
    notes: list[str] = field(default_factory=list)


def forward(model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], _: Layers) -> None:
    with torch.inference_mode():
        for images in batches:
            model_x(images)
            model_y(images)


def forward_and_grams(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], layers: Layers
) -> None:
    """The least that any method based on Grams does: float32 x·xᵀ in a hook, then nothing."""

    def hook(_module: nn.Module, _args: object, out: Tensor) -> None:
        x = out.flatten(1)
        x @ x.T

    handles = [
        model.get_submodule(name).register_forward_hook(hook)
        for model, names in ((model_x, layers.x), (model_y, layers.y))
        for name in names
    ]
    forward(model_x, model_y, batches, layers)
    for handle in handles:
        handle.remove()


def repsim_all(model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], _: Layers) -> Matrix:
    return _repsim(model_x, model_y, batches, None)


def _repsim(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], layers: Layers | None
) -> Matrix:
    import repsim

    x, y = ("*", "*") if layers is None else layers
    # The other packages compare layers that return their input, too.
    where = {"layers": x, "layers_y": y, "all_modules": True}
    cka = repsim.compare(model_x, model_y, data=batches, **where, progress=False).cka
    cka = cka.transpose("layer_x", "layer_y")
    return Matrix(
        [str(label) for label in cka.layer_x.values],
        [str(label) for label in cka.layer_y.values],
        cka.values,
    )


def _torch_cka(
    model_x: nn.Module,
    model_y: nn.Module,
    batches: list[Tensor],
    layers: Layers | None,
    *,
    allow_nan: bool = False,
) -> Matrix:
    import torch_cka

    cka = torch_cka.CKA(
        model_x,
        model_y,
        model1_name="x",
        model2_name="y",
        model1_layers=layers and layers.x,
        model2_layers=layers and layers.y,
    )
    data = loader(batches, labels=False)
    with torch.no_grad():  # it does not do so itself; without, every activation keeps its graph
        try:
            cka.compare(data, data)
        except AssertionError:  # its last line raises, but the matrix is complete
            if not allow_nan:
                raise
    result = cka.export()
    return Matrix(result["model1_layers"], result["model2_layers"], result["CKA"].numpy())


def torch_cka_all(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], _: Layers
) -> Matrix:
    return _torch_cka(model_x, model_y, batches, None)


def torch_cka_nan(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], layers: Layers
) -> Matrix:
    return _torch_cka(model_x, model_y, batches, layers, allow_nan=True)


def _pytorch_cka(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], layers: Layers | None
) -> Matrix:
    import cka

    (values,) = cka.compute_cka(
        model_x,
        model_y,
        loader(batches, labels=False),
        layers=layers and layers.x,
        model2_layers=layers and layers.y,
        device="cpu",
        progress=False,
    )
    if layers is None:
        layers = Layers(*([n for n, _ in m.named_modules() if n] for m in (model_x, model_y)))
    return Matrix(layers.x, layers.y, values.numpy())


def pytorch_cka_all(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], _: Layers
) -> Matrix:
    return _pytorch_cka(model_x, model_y, batches, None)


def _ckatorch(
    kind: type[Any],
    model_x: nn.Module,
    model_y: nn.Module,
    batches: list[Tensor],
    layers: Layers,
) -> Matrix:
    cka = kind(model_x, model_y, layers.x, layers.y, first_name="x", second_name="y")
    values = cka(loader(batches, labels=False), epochs=1)
    return Matrix(cka.first_model_info.layers, cka.second_model_info.layers, values.numpy())


def ckatorch_ran(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], layers: Layers
) -> Matrix:
    import ckatorch

    return _ckatorch(ckatorch.CKA, model_x, model_y, batches, layers)


def ckatorch_flattened(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], layers: Layers
) -> Matrix:
    import ckatorch

    class Flattened(ckatorch.CKA):  # type: ignore[misc]
        """Its formula takes (minibatches, samples, features): give it one minibatch."""

        def _hook(
            self, model: str, module_name: str, module: nn.Module, inp: Any, out: Tensor
        ) -> None:
            super()._hook(model, module_name, module, inp, out.flatten(1)[None])

    return _ckatorch(Flattened, model_x, model_y, batches, layers)


def _cka_pytorch(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], layers: Layers | None
) -> Matrix:
    import cka_pytorch

    calculator = cka_pytorch.CKACalculator(
        model_x, model_y, layers and layers.x, layers and layers.y, verbose=False
    )
    values = calculator.calculate_cka_matrix(loader(batches, labels=True), num_epochs=1)
    return Matrix(
        calculator.hook_manager1.module_names,
        calculator.hook_manager2.module_names,
        values.numpy(),
    )


def cka_pytorch_all(
    model_x: nn.Module, model_y: nn.Module, batches: list[Tensor], _: Layers
) -> Matrix:
    return _cka_pytorch(model_x, model_y, batches, None)


ALL = "all layers"
RAN = "given the list of modules that run"

PACKAGES = {
    "two forward passes": Package(None, None, {ALL: forward}),
    "bare Grams": Package(None, None, {ALL: forward_and_grams}),
    "repsim": Package("repsim", "repsim", {ALL: repsim_all, RAN: _repsim}),
    "pytorch-cka": Package(
        "pytorch-cka",
        "cka",
        {ALL: pytorch_cka_all, RAN: _pytorch_cka},
        ["Keeps every activation of both models until the batch is done."],
    ),
    "cka-pytorch": Package(
        "cka-pytorch",
        "cka_pytorch",
        {ALL: cka_pytorch_all, RAN: _cka_pytorch},
        ["Leaves out `Sequential` containers.", "Adds ε = 1e-4 under the root (its default)."],
    ),
    "torch-cka": Package(
        "torch-cka",
        "torch_cka",
        {
            ALL: torch_cka_all,
            RAN: _torch_cka,
            f"{RAN}, and its matrix read although it raised": torch_cka_nan,
        },
        [
            "Given no list of layers, it reports the model's own output too, under an empty name.",
            "Called under `torch.no_grad()`, which it leaves to the caller.",
        ],
    ),
    "ckatorch": Package(
        "ckatorch",
        "ckatorch",
        {
            ALL: ckatorch_ran,
            "its hook changed to flatten outputs": ckatorch_flattened,
        },
        [
            "Has no default for the layers: given the list of modules that run.",
            "Its formula is averaged over epochs only: of several batches the last one counts.",
        ],
    ),
}


def callers(name: str, *, by_name: bool) -> list[str]:
    """The ways to call a package, in order; if layers are chosen, none asks for all."""
    ways = list(PACKAGES[name].callers)
    return [way for way in ways if way != ALL or len(ways) == 1] if by_name else ways


FLOORS = [name for name, package in PACKAGES.items() if package.distribution is None]


def call(
    name: str,
    how: str,
    models: tuple[nn.Module, nn.Module],
    batches: list[Tensor],
    layers: Layers,
) -> Matrix | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PACKAGES[name].callers[how](*models, batches, layers)
