"""The plan of a large run, for a model whose numbers are computed by hand."""

import pytest
import torch
from torch import nn

import plan


def net():
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
    return nn.Sequential(inner, nn.Flatten(), nn.Linear(4 * 64, 10)).eval()


def test_layers_that_share_a_tensor_are_found():
    layers = plan.layers_of(net(), torch.randn(2, 3, 8, 8), "*")
    assert [(each.name, each.features) for each in layers] == [
        ("0.0", 256),
        ("0.1", 256),
        ("0", 256),
        ("1", 256),
        ("2", 10),
    ]
    # The convolution's output is overwritten in place; the container and the flattening are views.
    assert [each.tensor for each in layers] == [0, 1, 1, 1, 2]


def test_the_sums_are_those_of_the_formulas():
    layers = plan.layers_of(net(), torch.randn(2, 3, 8, 8), "*")
    rates = plan.Rates({"x": 100.0, "y": 50.0}, {100: 1e6, 10_000: 1e6}, 2e6, 1e3, 1e3)
    found = plan.plan({"x": layers, "y": layers[-1:]}, rates, 16, 3200, 4)
    assert found["images"] == 800
    assert found["forward_s"] == pytest.approx(8 + 16)
    assert found["gram_macs"] == 16 * (256 + 256 + 10 + 10)
    assert found["gram_s"] == pytest.approx(50 * 16 * 16 * (256 + 256 + 10 + 10) / 1e6)
    assert found["pair_macs"] == 16 * (3 * 1 + 3 + 1)
    assert found["pair_s"] == pytest.approx(50 * 256 * 7 / 2e6)
    assert found["gram_bytes"] == 8 * 256 * 4
    assert found["state_bytes"] == 8 * 128 * (5 + 5 + 1)
    assert found["store_bytes"] == 4 * 3200 * (256 + 256 + 10 + 10)


def test_rates_between_two_widths():
    rates = plan.Rates({}, {100: 1e6, 10_000: 3e6}, 1.0, 1.0, 1.0)
    assert rates.gram_seconds(10, 1000) == pytest.approx(10 * 10 * 1000 / 2e6)
    assert rates.gram_seconds(10, 10) == pytest.approx(10 * 10 * 10 / 1e6)


def test_run_and_write(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "WIDTHS", (10, 100))
    monkeypatch.setattr(plan, "build", lambda name: net())
    monkeypatch.setattr(plan, "disk", lambda: (1e6, 1e6))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{plan.START}\nold\n{plan.END}\nafter\n")
    text = plan.main(
        [
            *("--x", "a", "--y", "b", "--some", r"\d", "--size", "8", "--batch", "16"),
            *("--write", str(page), "--json", str(tmp_path / "found.json")),
        ]
    )
    assert page.read_text() == f"before\n{plan.START}\n{text}\n{plan.END}\nafter\n"
    assert "| layers | 5 × 5 | 3 × 3 |" in text
    assert "1,281,167 images over 8" in text
    assert (tmp_path / "found.json").stat().st_size > 50


@pytest.mark.slow
def test_the_store_is_measured():
    write, read = plan.disk(1 << 24)
    assert write > 0
    assert read > 0
