"""A plain comparison of two models in float64: hooks that clone, then loops."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reference import kernels, minibatch

HOOK_TABLES = [name for name in vars(nn.Module()) if "hook" in name]


def first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    if not isinstance(output, tuple | list) and not hasattr(output, "values"):
        return None
    return next((t for t in map(first_tensor, values) if t is not None), None)


def activations(
    model: nn.Module, call: Callable[[nn.Module], Any], n: int, all_modules: bool = False
) -> dict[str, Any]:
    """Outputs of submodules, those that compute or all, in execution order, (n, p) float64."""
    seen: dict[tuple[str, int], Any] = {}
    calls: Counter[str] = Counter()
    before: dict[str, Any] = {}

    def note(name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, args: Any) -> None:
            given = args[0] if args and isinstance(args[0], Tensor) else None
            before[name] = given, None if given is None else given.clone()

        return keep

    def hook(name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            given, values = before[name]
            same = tensor is given and given is not None and torch.equal(tensor, values)
            if (
                (all_modules or not same)
                and tensor is not None
                and tensor.ndim
                and tensor.shape[0] == n
            ):
                copy = tensor.detach().to(torch.float64, copy=True)
                seen[name, calls[name]] = copy.reshape(n, -1).numpy()
            calls[name] += 1

        return keep

    handles = [m.register_forward_pre_hook(note(k)) for k, m in model.named_modules() if k]
    handles += [m.register_forward_hook(hook(k)) for k, m in model.named_modules() if k]
    was = model.training
    try:
        with torch.no_grad():
            call(model.eval())
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    return {k if calls[k] == 1 else f"{k}:{c}": v for (k, c), v in seen.items()}


def u_centred(x: np.ndarray) -> np.ndarray:
    """U-centred Gram of centred features, flattened."""
    x = x - x[:1]  # a constant is exactly zero
    x = x - x.mean(0)
    k = x @ x.T
    n = len(k)
    np.fill_diagonal(k, 0)
    a = k - k.sum(1, keepdims=True) / (n - 2) - k.sum(0, keepdims=True) / (n - 2)
    a += k.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(a, 0)
    return a.ravel()


def reference(
    model_x: nn.Module,
    model_y: nn.Module,
    batches: list[Any],
    call_x: Callable[[nn.Module, Any], Any] = lambda m, b: m(b),
    call_y: Callable[[nn.Module, Any], Any] | None = None,
    size: Callable[[Any], int] = len,
    all_modules: bool = False,
) -> tuple[list[str], list[str], np.ndarray]:
    """Labels of both models in execution order, and the matrix of all layer pairs."""
    sums: Any = 0, 0, 0
    for batch in batches:
        n = size(batch)
        x = activations(model_x, lambda m, b=batch: call_x(m, b), n, all_modules)
        y = activations(model_y, lambda m, b=batch: (call_y or call_x)(m, b), n, all_modules)
        if n < 4:
            continue
        a, b = (np.stack([u_centred(v) for v in side.values()]) for side in (x, y))
        sums = sums[0] + a @ b.T, sums[1] + (a * a).sum(1), sums[2] + (b * b).sum(1)
    with np.errstate(all="ignore"):
        values = sums[0] / np.sqrt(sums[1])[:, None] / np.sqrt(sums[2])
    return list(x), list(y), values


def of_loops(x: list[np.ndarray], y: list[np.ndarray]) -> float:
    """One pair by the plain loops of ``reference.minibatch``."""
    return minibatch.minibatch_cka(x, y, lambda v: kernels.linear(kernels.centred(v)))


def without_versions(model, batch):
    """A forward whose tensors count no changes in place, so no two layers share a Gram."""
    with torch.inference_mode():
        return model(batch)


def agrees(result: Any, labels_x: list[str], labels_y: list[str], values: Any, atol=1e-6) -> None:
    """The result has exactly these labels, in this order, and these values."""
    assert result.layer_x.values.tolist() == labels_x
    assert result.layer_y.values.tolist() == labels_y
    np.testing.assert_allclose(result.cka.values, values, rtol=0, atol=atol)


def state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that an analysis might leave behind."""
    return {
        name: (
            module.training,
            [list(getattr(module, table) or ()) for table in HOOK_TABLES],
            [(k, v.device, v.dtype, v.requires_grad, v._version, v.grad) for k, v in
             [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]],
        )
        for name, module in model.named_modules()
    }  # fmt: skip


@contextlib.contextmanager
def unchanged(*models: nn.Module) -> Iterator[None]:
    """A block after which models and random state are as before."""
    before = [state(model) for model in models]
    random_state = torch.get_rng_state()
    try:
        yield
    finally:
        assert [state(model) for model in models] == before
        assert torch.equal(torch.get_rng_state(), random_state)
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


class Copy(nn.Module):
    """A module whose output is its input: a place in a forward to look at."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def net(*, seed: int = 0, width: int = 6, inplace: bool = False) -> nn.Sequential:
    """A small model whose layers have different outputs."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(width, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(inplace=inplace),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
    )


def inputs(count: int = 4, n: int = 8, width: int = 6, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=generator) for _ in range(count)]


def images(count: int = 2, n: int = 8, size: int = 32, seed: int = 1) -> list[Tensor]:
    """Smooth images with noise: like photographs, they resemble one another."""
    generator = torch.Generator().manual_seed(seed)

    def batch() -> Tensor:
        coarse = torch.randn(n, 3, 4, 4, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        return smooth + 0.3 * torch.randn(n, 3, size, size, generator=generator)

    return [batch() for _ in range(count)]


class Counted(nn.Module):
    """Wraps a model and counts its forwards."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.forwards += 1
        return self.inner(*args, **kwargs)


class Shuffled:
    """An iterable that reshuffles its rows on every iteration, and counts the iterations."""

    def __init__(self, rows: Tensor, batch_size: int, seed: int = 0) -> None:
        self.rows, self.batch_size = rows, batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self.iterations = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.iterations += 1
        order = torch.randperm(len(self.rows), generator=self.generator)
        yield from self.rows[order].split(self.batch_size)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)


def matrix_of(model: nn.Module, data: list[Tensor]) -> np.ndarray:
    import repsim

    return repsim.compare(model, data=data, progress=False).cka.values
