"""Data sets: what is read, in which order, and what happens to images that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cli import tiny_models
from repsim.cli._outcome import DataError, UsageError
from repsim.cli.data._batches import BadSamples, Batches
from repsim.cli.data._inputs import Inputs
from repsim.cli.data._samples import open_samples
from repsim.cli.models._blocks import find_blocks
from repsim.cli.models._preparation import SCALES, plain_preparation


def batches(inputs: Inputs, *sizes: int, **options) -> Batches:
    kinds = [plain_preparation(size, 3, SCALES["none"]) for size in sizes]
    images = inputs.samples.are_images
    return Batches(
        inputs.samples,
        inputs.order,
        kinds if images else [None],
        batch_size=inputs.batch_size,
        seed=inputs.seed,
        bad=inputs.bad,
        workers=2,
        **options,
    )


def test_a_folder_is_read_in_full_with_its_classes(folder):
    samples = open_samples(str(folder))
    assert len(samples) == 24
    assert samples.classes == ["cat", "dog"]
    assert samples.labels.tolist() == [0] * 12 + [1] * 12
    assert samples.key(13) == "dog/01.png"
    assert samples.read(13).size == (44, 37)


def test_images_beside_the_classes_take_the_labels_away(folder):
    Image.new("RGB", (9, 9)).save(folder / "loose.png")
    samples = open_samples(str(folder))
    assert samples.labels is None
    assert len(samples) == 25


def test_deep_pixels_keep_their_brightness(tmp_path):
    deep = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "float.tiff")
    samples = open_samples(str(tmp_path))
    read = np.asarray(samples.read(0).convert("RGB"))
    np.testing.assert_allclose(read[..., 1], deep / 257, atol=0.5)
    with pytest.raises(ValueError, match="mode F"):
        samples.read(1)


def test_the_digest_follows_the_files(folder):
    before = open_samples(str(folder)).digest
    assert open_samples(str(folder)).digest == before
    (folder / "cat" / "00.png").rename(folder / "cat" / "99.png")
    assert open_samples(str(folder)).digest != before


def test_each_model_gets_its_size_from_one_decoding(folder):
    data = batches(Inputs(str(folder), batch_size=8), 16, 20)
    first = next(iter(data))
    x, y = (side(first) for side in data.sides)
    assert x.shape == (8, 3, 16, 16)
    assert y.shape == (8, 3, 20, 20)
    assert len(first["samples"]) == 8
    alike = batches(Inputs(str(folder), batch_size=8), 16, 16)
    assert alike.sides[0] is alike.sides[1]


def test_batches_mix_the_classes_and_each_pass_has_its_order(folder):
    data = batches(Inputs(str(folder), batch_size=12), 8)
    first, second = ([name for batch in data for name in batch["samples"]] for _ in range(2))
    assert sorted(first) == sorted(second) == [data.samples.key(at) for at in range(24)]
    assert first != second
    assert len({name[:3] for name in first[:12]}) == 2
    again = batches(Inputs(str(folder), batch_size=12), 8)
    assert [name for batch in again for name in batch["samples"]] == first
    other = batches(Inputs(str(folder), batch_size=12, seed=1), 8)
    assert [name for batch in other for name in batch["samples"]] != first


def test_a_limit_takes_some_of_all_classes(folder):
    inputs = Inputs(str(folder), limit=10, batch_size=4)
    data = batches(inputs, 8, labelled=True)
    labels = torch.cat([labels for _, labels in data])
    assert len(data) == 3
    assert len(labels) == 10
    assert set(labels.tolist()) == {0, 1}


def test_bad_images_are_left_out_named_and_counted_once(folder):
    damaged = folder / "cat" / "03.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    (folder / "dog" / "extra.jpg").write_text("no image")
    inputs = Inputs(str(folder), batch_size=8)
    data = batches(inputs, 8)
    sizes = [len(batch["samples"]) for batch in data]
    assert sizes == [8, 8, 7]  # of 25 files; a bad one's place is taken by the next
    list(data)
    assert sorted(inputs.bad.reasons) == ["cat/03.png", "dog/extra.jpg"]
    assert inputs.bad.attributes()["n_bad_images"] == 2


def test_a_bad_image_can_be_an_error(folder):
    (folder / "dog" / "extra.jpg").write_text("no image")
    data = batches(Inputs(str(folder), stop_at_bad=True), 8)
    with pytest.raises(DataError, match="dog/extra.jpg"):
        list(data)


def test_a_folder_of_nothing_but_bad_images(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match="no sample of .* can be read"):
        list(batches(Inputs(str(tmp_path)), 8))


def test_an_error_of_a_preparation_is_not_taken_for_a_bad_image(folder):
    data = batches(Inputs(str(folder)), 8)

    def broken(image):
        raise ZeroDivisionError

    data._kinds = {"broken": type(next(iter(data._kinds.values())))((3, 8, 8), "broken", broken)}
    with pytest.raises(ZeroDivisionError):
        list(data)


def test_pictures_in_an_archive(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(6))
    inputs = Inputs(str(tmp_path / "a.npz"))
    assert inputs.samples.are_images
    assert np.array_equal(np.asarray(inputs.samples.read(2)), pixels[2])
    np.savez(tmp_path / "grey.npz", images=pixels[..., :1])
    assert open_samples(str(tmp_path / "grey.npz")).read(0).mode == "L"


def test_inputs_go_to_the_model_as_they_are(inputs):
    data = batches(Inputs(str(inputs), batch_size=16), labelled=True)
    stored = np.load(inputs)
    found = torch.cat([x for x, _ in data]).numpy()
    order = data.order
    np.testing.assert_array_equal(found, stored["inputs"][order])
    batch, labels = next(iter(data))
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(labels.numpy(), stored["labels"][data_order(data)])


def data_order(data: Batches) -> np.ndarray:
    """The samples of the first batch of the second pass."""
    rng = np.random.default_rng((data._seed, 1))
    return rng.permutation(data.order)[: data.batch_size]


def test_tokens_stay_integers(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.arange(20, dtype=np.int32).reshape(5, 4))
    (batch,) = batches(Inputs(str(tmp_path / "a.npz")), labelled=True)
    assert batch[0].dtype == torch.int64


def test_the_digits_ship_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.datasets")
    samples = open_samples("digits")
    assert len(samples) == 1797
    assert samples.labels.tolist() == sklearn.load_digits().target.tolist()
    assert samples.read(0).size == (8, 8)
    assert max(np.asarray(samples.read(at)).max() for at in range(20)) == 255


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": np.zeros((3, 2))}, "either images or inputs"),
        ({"images": np.zeros((3, 4, 4))}, "8-bit"),
        ({"images": np.zeros((3, 4, 4, 2), np.uint8)}, "8-bit"),
        ({"inputs": np.zeros(3)}, "inputs must be numbers"),
        ({"inputs": np.zeros((3, 2)), "labels": np.zeros(2, int)}, "one integer for each"),
        ({"inputs": np.zeros((3, 2)), "labels": np.zeros(3)}, "one integer for each"),
    ],
)
def test_archives_that_hold_something_else(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=said):
        open_samples(str(tmp_path / "a.npz"))


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="no such folder or file"):
        open_samples(str(tmp_path / "missing"))
    with pytest.raises(DataError, match="no image in the folder"):
        open_samples(str(tmp_path))
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(UsageError, match="got the file"):
        open_samples(str(tmp_path / "a.csv"))
    (tmp_path / "a.npz").write_text("no archive")
    with pytest.raises(DataError, match="cannot be read"):
        open_samples(str(tmp_path / "a.npz"))


def test_bad_samples_are_told_with_their_reasons():
    class Heard:
        said = ""

        def note(self, text):
            self.said += text

    bad, heard = BadSamples(), Heard()
    bad.tell(heard)
    assert heard.said == ""
    for at in range(12):
        bad.add(f"{at:02}.png", OSError("cut off"))
    bad.tell(heard)
    assert "12 images could not be read" in heard.said
    assert "00.png: OSError: cut off" in heard.said
    assert "and 2 more" in heard.said


def test_blocks_are_found():
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    assert find_blocks(timm.create_model("test_vit"))[0] == "blocks.0"
    resnet = find_blocks(torchvision.models.resnet18())
    assert resnet == [f"layer{k}.{i}" for k in range(1, 5) for i in range(2)]
    assert find_blocks(torchvision.models.squeezenet1_1())[0] == "features.3"
    assert find_blocks(tiny_models.cnn()) == ["0", "4"]  # nothing repeats: what has weights
    mobile = find_blocks(torchvision.models.mobilenet_v3_small())
    assert mobile == [f"features.{k}" for k in range(1, 12)]  # not the convolutions in them
    assert find_blocks(timm.create_model("test_resnet"))[0] == "layer1.0"  # one in each stage
    swin = find_blocks(tiny_models.torchvision_swin())
    assert swin == ["features.1.0", "features.1.1", "features.3.0", "features.3.1"]
