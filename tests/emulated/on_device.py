"""The emulated device behaves as an accelerator, and its counter counts."""

from __future__ import annotations

import copy

import pytest
import torch

from emulated.device import WAITED
from emulated.models import vit


def matrix():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, generator=generator).to("sim", non_blocking=True)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.cpu(),
        lambda x: x.to("cpu", torch.float64),
        lambda x: x.tolist(),
        lambda x: x.sum().item(),
        lambda x: float(x[0, 0]),
        lambda x: int(x[0, 0]),
        lambda x: bool(x.sum() > 2),
        lambda x: torch.equal(x, x),
        lambda x: torch.zeros(3, 4).copy_(x),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.__setitem__(x > 0, torch.ones(int(WAITED.clear() or 1), device="sim")),
        lambda x: torch.linalg.inv(x[:, :3]),
        lambda x: torch.linalg.svdvals(x),
    ],
)
def test_a_read_is_counted_with_its_place(read):
    x = matrix()
    WAITED.clear()
    read(x)
    (wait,) = WAITED.reads
    assert wait.place.startswith("on_device.py")
    assert not wait.of_model
    assert not WAITED.uploads


@pytest.mark.parametrize(
    "upload",
    [
        lambda: torch.ones(3).to("sim"),
        lambda: torch.tensor([1.0, 2.0], device="sim"),
        lambda: torch.tensor(1.0, device="sim"),
        lambda: torch.as_tensor([1, 2], device="sim"),
        lambda: torch.zeros(3, device="sim").copy_(torch.ones(3)),
        lambda: torch.zeros(3, device="sim")[torch.tensor([0, 1])],
    ],
)
def test_an_upload_is_counted(upload):
    WAITED.clear()
    assert upload().device.type == "sim"
    (wait,) = WAITED.uploads
    assert wait.place.startswith("on_device.py")
    assert not WAITED.reads


def test_nothing_else_is_counted():
    x = matrix()
    WAITED.clear()
    torch.ones(3).to("sim", non_blocking=True)
    y = torch.zeros(4, 4, device="sim") + torch.arange(4, device="sim") + torch.eye(4, device="sim")
    x = x @ y + torch.tensor(1.0)
    x[:, 0] += 1
    x.masked_fill_(x > 0, 0.0)
    torch.where(x.isfinite().all(), x, torch.nan)
    torch.nn.functional.one_hot(torch.zeros(3, dtype=torch.long, device="sim"), 2)
    leaf = x.detach().requires_grad_()
    (leaf**2).sum().backward()
    assert leaf.grad.device == x.device == torch.device("sim", 0)
    assert WAITED.ours() == []


def test_what_a_tensor_on_an_accelerator_cannot_do():
    x = matrix()
    with pytest.raises((TypeError, RuntimeError)):
        x.numpy()
    with pytest.raises(RuntimeError, match="one device"):
        torch.mm(x, torch.ones(4, 2))


def test_models_move_and_copies_are_their_own():
    model = vit().to("sim")
    other = copy.deepcopy(model)
    assert {p.device.type for p in (*model.parameters(), *other.parameters())} == {"sim"}
    with torch.no_grad():
        other.cls_token.add_(1.0)
    assert not torch.equal(model.cls_token, other.cls_token)
    images = torch.zeros(1, 3, 32, 32)
    torch.testing.assert_close(model(images.to("sim")).cpu(), vit()(images))


def test_what_a_model_reads_is_its_own_account():
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    model, ids = BertModel(config).to("sim"), torch.ones(1, 3, dtype=torch.long, device="sim")
    WAITED.clear()
    model(input_ids=ids, attention_mask=ids)
    assert WAITED.reads
    assert WAITED.ours() == []
