"""``--data``: which files are read, in which order, and what happens to unreadable images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repsim.report import load_results

AS_THEY_ARE = ("--size", 8, "--normalise", "none")


def numbers(batches):
    """The numbers of the images of ``greys`` in each batch, read from their pixels."""
    return [[round(25.5 * image.mean().item()) for image in x] for x, _ in batches]


def flat(batches):
    return [number for batch in batches for number in batch]


def test_batches_mix_the_classes_and_each_pass_has_its_order(seen, greys):
    ran, batches = seen("--data", greys, *AS_THEY_ARE, "--batch-size", 12, "--passes", 2)
    assert ran.code == 0, ran.err
    first, second = numbers(batches[:2]), numbers(batches[2:])
    for order in (first, second):
        assert sorted(flat(order)) == list(range(24))
        assert len({number < 12 for number in order[0]}) == 2
    assert first != second
    assert numbers(seen("--data", greys, *AS_THEY_ARE, "--batch-size", 12)[1]) == first
    other = seen("--data", greys, *AS_THEY_ARE, "--batch-size", 12, "--seed", 1)[1]
    assert numbers(other) != first


def test_a_limit_takes_some_of_all_classes_and_the_last_batch_is_short(seen, greys):
    _, batches = seen("--data", greys, *AS_THEY_ARE, "--limit", 9, "--batch-size", 5)
    found = numbers(batches)
    assert [len(batch) for batch in found] == [5, 4]
    assert len({number < 12 for number in flat(found)}) == 2


def test_each_model_gets_its_size_and_models_that_want_the_same_share_it(seen, greys):
    two = ("seeing", "seeing")
    options = ("--data", greys, "--batch-size", 24)
    ran, ((x, _), (y, _)) = seen(*options, "--size", 16, "--size-y", 20, models=two)
    assert ran.code == 0, ran.err
    assert x.shape == (24, 3, 16, 16)
    assert y.shape == (24, 3, 20, 20)
    _, ((x, _), (y, _)) = seen(*options, "--size", 16, models=two)
    np.testing.assert_array_equal(x, y)


def test_pictures_are_cropped_in_the_middle_and_scaled(seen, tmp_path):
    (tmp_path / "pictures").mkdir()
    picture = Image.new("RGB", (80, 40), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 20, 40))  # what the crop takes off
    for at in range(4):
        picture.save(tmp_path / "pictures" / f"{at}.png")
    red = np.broadcast_to(np.array([1.0, 0, 0])[:, None, None], (3, 32, 32))
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    for scale, expected in {
        "none": red,
        "half": 2 * red - 1,
        "imagenet": (red - mean) / deviation,
    }.items():
        _, ((x, _),) = seen("--data", "pictures", "--size", 32, "--normalise", scale)
        np.testing.assert_allclose(x[0], expected, atol=1e-6, err_msg=scale)


def test_deep_pixels_keep_their_brightness(seen, tmp_path):
    (tmp_path / "deep").mkdir()
    for at in range(4):
        pixels = np.full((8, 8), 10_000 * (at + 1), dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "deep" / f"{at}.png")
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "deep" / "float.tiff")
    ran, ((x, _),) = seen("--data", "deep", *AS_THEY_ARE)
    found = sorted(image.mean().item() for image in x)
    np.testing.assert_allclose(found, np.arange(1, 5) * 10_000 / 65535, atol=0.5 / 255)
    assert "float.tiff: ValueError: pixels of mode F" in ran.err


def test_bad_images_are_left_out_named_and_counted_once(seen, greys):
    damaged = greys / "cat" / "03.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    (greys / "dog" / "extra.jpg").write_text("no image")
    (greys / "notes.txt").write_text("not meant as an image")
    options = ("--data", greys, *AS_THEY_ARE, "--batch-size", 8)
    ran, batches = seen(*options, "--passes", 2, "--json")
    # Of 25 files; the next image takes the place of a bad one.
    assert [len(batch) for batch in numbers(batches)] == [8, 8, 7] * 2
    assert ran.json["attrs"]["n_bad_images"] == 2
    assert json.loads(ran.json["attrs"]["bad_images"]) == ["cat/03.png", "dog/extra.jpg"]
    assert ran.err.count("\n  dog/extra.jpg:") == 1
    assert "2 images could not be read and were left out:\n  cat/03.png: OSError" in ran.err

    stopped, _ = seen(*options, "--on-bad-image", "error")
    assert stopped.code == 1
    assert "an image cannot be read" in stopped.err
    assert stopped.out == ""


def test_ten_bad_images_are_named_and_the_rest_counted(seen, greys):
    for at in range(12):
        (greys / "cat" / f"bad{at:02}.png").write_text("no image")
    ran, _ = seen("--data", greys, *AS_THEY_ARE)
    assert "12 images could not be read" in ran.err
    assert "cat/bad09.png" in ran.err
    assert "cat/bad10.png" not in ran.err
    assert "and 2 more" in ran.err


def test_an_error_of_a_preparation_is_not_taken_for_a_bad_image(seen, greys):
    ran, _ = seen("--data", greys, models=("crooked",))
    assert ran.code == 1
    assert "ValueError: operands could not be broadcast" in ran.err
    assert "can be read" not in ran.err
    assert "could not be read" not in ran.err


def test_pictures_in_an_archive(seen, tmp_path):
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.full((16, 16, 3), 10, np.uint8)
    for stored in (pixels, pixels[..., :1], pixels[..., 0]):
        np.savez(tmp_path / "a.npz", images=stored)
        for model, channels in (("seeing", 3), ("seeing_grey", 1)):
            ran, batches = seen("--data", "a.npz", *AS_THEY_ARE, models=(model,))
            assert ran.code == 0, ran.err
            assert batches[0][0].shape == (6, channels, 8, 8)
            assert sorted(flat(numbers(batches))) == list(range(6))


def test_inputs_go_to_the_model_as_they_are(seen, inputs, tmp_path):
    stored = np.load(inputs)["inputs"]
    order = np.random.default_rng(0).permutation(40)
    for kind, expected in ((np.float32, "float32"), (np.float64, "float32"), (np.int32, "int64")):
        np.savez(inputs, inputs=(100 * stored).astype(kind))
        ran, batches = seen("--data", "inputs.npz", "--batch-size", 16)
        assert ran.code == 0, ran.err
        found = np.concatenate([x for x, _ in batches])
        assert found.dtype == expected
        np.testing.assert_array_equal(found, (100 * stored).astype(kind).astype(expected)[order])


def test_texts_with_a_mask_are_compared_without_their_padding(repsim_command):
    pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    texts, labels = rng.integers(1, 20, (30, 7)), np.arange(30) % 2
    mask = np.arange(7) < rng.integers(2, 8, (30, 1))
    ones = np.ones_like(mask)
    for name, padding, real in (("a", 0, mask), ("b", 5, mask), ("all", 0, ones)):
        ids = np.where(mask, texts, padding)
        np.savez(f"{name}.npz", inputs=ids, attention_mask=real, labels=labels)
    bert = "cli.tiny_models:bert"

    def values(*argv, of):
        ran = repsim_command(*argv, "--data", f"{of}.npz", "--no-progress", "--json")
        assert ran.code == 0, ran.err
        return ran.json["variables"]

    compare = ("compare", bert, bert, "--seed-y", 3, "--transform", "mean")
    for argv in (compare, ("attention", bert)):
        assert values(*argv, of="a") == values(*argv, of="b"), argv
    assert values(*compare, of="a") != values(*compare, of="all")
    np.savez("maskless.npz", inputs=np.where(mask, texts, 0))
    ran = repsim_command(*compare, "--data", "maskless.npz", "--no-progress")
    assert ran.err.count("the texts look padded") == 1, "once for both models"
    for name in "ab":
        words = ("--data", f"{name}.npz", "--only", "layer_map", "--out", name, "--no-progress")
        assert repsim_command("analyse", bert, *words).code == 0
    a, b = (load_results(name)["layer_map"] for name in "ab")
    np.testing.assert_array_equal(a.cka, b.cka)
    assert probed(repsim_command, bert, "--data", "a.npz").attrs["n_classes"] == 2
    for wrong in (mask[:, 1:], mask * 2, mask * 1.0):
        np.savez("wrong.npz", inputs=texts, attention_mask=wrong)
        ran = repsim_command("layers", "cli.tiny_models:mlp", "--data", "wrong.npz")
        assert ran.code == 1
        assert "attention_mask must say which tokens are real" in ran.err
    for command in ("layers", "compare", "attention", "analyse"):
        ran = repsim_command(command, "cli.tiny_models:mlp", "--data", "a.npz")
        assert ran.code == 2, command
        assert "Leave attention_mask out of the .npz" in ran.err


def probed(repsim_command, *argv):
    """The result of a linear probe, or None where the data have no labels."""
    ran = repsim_command(
        "analyse", *argv, "--only", "linear_probe", "--out", "probed", "--no-progress"
    )
    assert ran.code == 0, ran.err
    result = load_results("probed")["linear_probe"] if "done" in ran.out else None
    for path in Path("probed").iterdir():
        path.unlink()
    return result


def test_classes_are_the_sub_folders_unless_an_image_lies_beside_them(repsim_command, greys):
    argv = ("cli.tiny_models:cnn", "--data", greys, "--size", 32)
    result = probed(repsim_command, *argv)
    assert result.attrs["chance"] >= 0.5
    assert result.attrs["n_train"] + result.attrs["n_test"] == 24
    for at in range(12):
        Image.new("RGB", (9, 9)).save(greys / f"loose{at}.png")
    assert probed(repsim_command, *argv) is None


def test_labels_stay_with_their_samples(repsim_command, tmp_path):
    labels = np.arange(60) % 3
    values = np.eye(6, dtype=np.float32)[labels] + np.random.default_rng(0).normal(0, 0.01, (60, 6))
    np.savez(tmp_path / "labelled.npz", inputs=values, labels=labels)
    argv = ("cli.tiny_models:mlp", "--data", "labelled.npz", "--layers", "0", "--batch-size", 16)
    assert probed(repsim_command, *argv).accuracy.min() == 1


def test_the_digits_ship_with_scikit_learn(seen, repsim_command):
    sklearn = pytest.importorskip("sklearn.datasets")
    ran, ((x, _),) = seen("--data", "digits", "--limit", 20, *AS_THEY_ARE, "--out", "run")
    assert ran.code == 0, ran.err
    assert json.loads(Path("run/run.json").read_text())["arguments"]["n"] == 1797
    assert x.max() == 1
    order = np.random.default_rng(0).permutation(1797)[:20]
    expected = sklearn.load_digits().images[order].mean((1, 2)) / 16
    # The picture is enlarged to nine pixels, and the middle eight are kept.
    np.testing.assert_allclose(x.mean((1, 2, 3)), expected, atol=0.1)


def test_invalid_data_are_refused(repsim_command, tmp_path):
    for name in ("empty", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad" / "a.png").write_text("no image")
    (tmp_path / "a.csv").write_text("1,2")
    (tmp_path / "text.npz").write_text("no archive")
    for name, arrays in {
        "other": {"pictures": np.zeros((3, 2))},
        "both": {"images": np.zeros((3, 2)), "inputs": np.zeros((3, 2))},
        "float": {"images": np.zeros((3, 4, 4))},
        "channels": {"images": np.zeros((3, 4, 4, 2), np.uint8)},
        "flat": {"inputs": np.zeros(3)},
        "few": {"inputs": np.zeros((3, 2)), "labels": np.zeros(2, int)},
        "half": {"inputs": np.zeros((3, 2)), "labels": np.zeros(3)},
    }.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
    for data, (code, said) in {
        "missing": (2, "no such folder or file"),
        "a.csv": (2, "got the file"),
        "empty": (1, "no image in the folder"),
        "bad": (1, "no sample of bad can be read"),
        "text.npz": (1, "the file cannot be read"),
        "other.npz": (1, "either images or inputs"),
        "both.npz": (1, "either images or inputs"),
        "float.npz": (1, "8-bit"),
        "channels.npz": (1, "8-bit"),
        "flat.npz": (1, "inputs must be numbers"),
        "few.npz": (1, "one integer for each"),
        "half.npz": (1, "one integer for each"),
    }.items():
        ran = repsim_command("compare", "cli.tiny_models:cnn", "--size", 8, "--data", data)
        assert ran.code == code, data
        assert said in ran.err, data
        assert ran.out == ""
