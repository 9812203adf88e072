"""extract(group=...) over gloo processes: a part for each rank, read as one store."""

from __future__ import annotations

import json
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DistributedSampler

import repsim
from ranks import run_ranks

N, BATCH = 42, 4
FOLDER = "REPSIM_TEST_FOLDER"


class Scaled(nn.Module):
    """A layer whose bits do not depend on the other samples of the batch."""

    def __init__(self, n, seed):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x):
        return x * self.weight + 1


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.first, self.act, self.last = Scaled(5, seed), nn.ReLU(), Scaled(5, seed + 1)
        self.calls = 0

    def forward(self, x, attention_mask=None):
        self.calls += 1
        return self.last(self.act(self.first(x)))


LAYERS = ["first", "act", "last"]
SMALL = {"layers": LAYERS, "memory": 2 * 4 * (4 * 15 + 8), "progress": False}
"""Chunks of four rows."""


def inputs():
    return torch.randn(N, 5, generator=torch.Generator().manual_seed(1))


def texts():
    """Sequences of 3 tokens, of which 1 to 3 are real."""
    x = torch.randn(N, 3, 5, generator=torch.Generator().manual_seed(2))
    return x, torch.arange(3) < 1 + torch.arange(N)[:, None] % 3


def share(rank, size, *, n=N, shuffle=False):
    """The batches (inputs, ids) of one rank; with 4 ranks, 2 of 44 samples are repeated."""
    sampler = DistributedSampler(range(n), size, rank, shuffle=shuffle, seed=3)
    return [(inputs()[part], part) for part in torch.tensor(list(sampler)).split(BATCH)]


def of_texts(batches):
    x, mask = texts()
    return [{"x": x[ids], "attention_mask": mask[ids].long(), "ids": ids} for _, ids in batches]


def ids_of(batch):
    return batch["ids"] if isinstance(batch, dict) else batch[1]


def without_ids(model, batch):
    return model(batch["x"], batch["attention_mask"])


def values(stored):
    return {name: stored[name].values for name in (*stored, *stored.coords)}, dict(stored.attrs)


def extracted(data, out, model=None, **options):
    options = {"sample_ids": ids_of, **SMALL, **options}
    return values(repsim.extract(model or Net(), data, out=out, **options))


def refusal(call, *args, **options):
    try:
        call(*args, **options)
    except (repsim.RepsimError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def same(found, expected):
    assert list(found[0]) == list(expected[0])
    for name, x in expected[0].items():
        np.testing.assert_array_equal(found[0][name], x, err_msg=name)
        assert found[0][name].dtype == x.dtype, name
    for attrs in (found[1], expected[1]):
        for name in ("n_batches", "n_ranks", "n_duplicates", "n_sequences"):
            attrs.pop(name, None)
    assert found[1] == expected[1]


def until(batches, number, stop):
    for at, batch in enumerate(batches):
        if at == number:
            stop()
        yield batch


def fail():
    raise OSError("the disk of this rank is gone")


def interrupted(rank, out):
    """Rank 1 of 4 fails after two batches; all call again. Return messages and calls of models."""
    batches = share(rank, 4)
    broken = until(batches, 2, fail) if rank == 1 else batches
    first, again = Net(), Net()
    told = refusal(extracted, broken, out, first, group="world")
    dist.barrier()
    opened = refusal(repsim.open_activations, out)
    dist.barrier()
    result = extracted(batches, out, again, group="world")
    return told, opened, first.calls, again.calls, result


def aligned(*stores):
    models = dict(zip("ab", stores, strict=True))
    return repsim.alignment(models, measure="mutual_knn", k=3, progress=False).score


def killed(rank, size):
    """Rank 1 of 2 dies after three batches; return what rank 0 is told."""
    out = os.environ[FOLDER] + "/killed"
    data = share(rank, size)
    if rank == 1:
        data = until(data, 3, lambda: os._exit(7))
    told = refusal(extracted, data, out, group="world")
    return told, refusal(repsim.open_activations, out)


def scenarios(rank, size):
    folder = os.environ[FOLDER]
    pair, solo = dist.new_group([0, 1]), dist.new_group([0])
    mine, contiguous = share(rank, size), [(inputs()[9:20], np.arange(9, 20))]
    uneven = {0: [(inputs()[:9], torch.arange(9))], 2: contiguous, 3: share(0, 1)[5:]}
    found = {
        "four": extracted(mine, f"{folder}/four", group="world"),
        "shuffled": extracted(share(rank, size, shuffle=True), f"{folder}/shuffled", group="world"),
        "uneven": extracted(uneven.get(rank, []), f"{folder}/uneven", group="world"),
        "numbered": extracted(mine, f"{folder}/numbered", group="world", sample_ids=None),
        "alone": extracted(mine, f"{folder}/alone{rank}", group="alone"),
        "interrupted": interrupted(rank, f"{folder}/interrupted"),
        "no group": refusal(extracted, mine, f"{folder}/none"),
        "unknown group": refusal(extracted, mine, f"{folder}/none", group="all"),
        "no batch": refusal(extracted, [], f"{folder}/no batch", group="world"),
        "dtype": refusal(
            extracted, mine, f"{folder}/none", group="world", dtype=["float16", None][rank % 2]
        ),
        "shape": refusal(
            extracted, [torch.ones((3, 5) if rank else (3, 2, 5))], f"{folder}/shape",
            group="world", sample_ids=None,
        ),
        "taken": refusal(extracted, mine, f"{folder}/alone0", group="world"),
        "not shared": refusal(extracted, mine, f"memory://{rank}", group="world"),
    }  # fmt: skip
    options = {"forward": without_ids, "group": "world"}
    found["tokens"] = extracted(of_texts(mine), f"{folder}/tokens", samples="tokens", **options)
    found["numbered tokens"] = extracted(
        of_texts(mine), f"{folder}/numbered tokens", samples="tokens", **options, sample_ids=None
    )
    found["masked"] = extracted(of_texts(mine), f"{folder}/masked", **options)
    torch.manual_seed(0)
    norm = nn.Sequential(nn.Conv1d(1, 5, 3), nn.InstanceNorm1d(5))
    maps = [(x[:, None], ids) for x, ids in uneven.get(rank, [])]
    found["means"] = extracted(
        maps, f"{folder}/means", norm, layers="1", transform="mean", group="world"
    )
    found["by fsspec"] = extracted(
        mine, f"file://{folder}/fsspec", group="world", storage_options={"auto_mkdir": True}
    )
    dist.barrier()
    if rank < 2:
        found["two"] = extracted(share(rank, 2), f"{folder}/two", group=pair)
        extracted(share(rank, 2, n=N - 1), f"{folder}/odd", group=pair)
        found["after the kill"] = extracted(share(rank, 2), f"{folder}/killed", group=pair)
        found["other number"] = refusal(extracted, share(rank, 2), f"{folder}/four", group=pair)
    if rank == 0:
        found["in memory"] = extracted(share(0, 1), "memory://ranks/run", group=solo)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What each of four ranks found, and the folder of their stores."""
    folder = tmp_path_factory.mktemp("ranks")
    os.environ[FOLDER] = str(folder)
    try:
        told = run_ranks("analysis.test_extract_ranks:killed", 2, limit=60.0)
        assert told[1] is None
        results = run_ranks("analysis.test_extract_ranks:scenarios", 4)
        results[0]["killed"] = told[0]
        return folder, results
    finally:
        del os.environ[FOLDER]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The store of one process, in the order of ids."""
    out = tmp_path_factory.mktemp("one") / "run.zarr"
    return repsim.extract(Net(), share(0, 1), out=out, sample_ids=ids_of, **SMALL)


@pytest.mark.slow
def test_ranks_make_the_store_of_one_process(run, whole, tmp_path):
    folder, results = run
    one = {
        name: extracted(
            of_texts(share(0, 1)), tmp_path / name, forward=without_ids, samples=samples
        )
        for name, samples in (("tokens", "tokens"), ("masked", "inputs"))
    }
    for rank, found in enumerate(results):
        assert found["four"][1]["n_ranks"] == 4
        assert found["four"][1]["n_duplicates"] == 2
        for name in ("four", "shuffled", "uneven", "by fsspec", *(["two"] if rank < 2 else [])):
            same(found[name], values(whole))
        for name, expected in one.items():
            same(found[name], expected)
        # Without ids, in the order of the data that the sampler deals, with what it repeats.
        rows = [*range(N), 0, 1]
        numbered = {name: whole[name].values[rows] for name in LAYERS}
        same(
            found["numbered"],
            ({**numbered, "sample": np.arange(44)}, {**whole.attrs, "n_samples": 44}),
        )
        first = found["numbered tokens"][0]["sequence"] < N
        numbered = {name: x[first] for name, x in found["numbered tokens"][0].items()}
        same((numbered, {}), (one["tokens"][0], {}))
        own = [i for _, ids in share(rank, 4) for i in ids.tolist()]
        np.testing.assert_array_equal(found["alone"][0]["sample"], own)
        assert np.ptp(found["means"][0]["1"], axis=0).max() == 0  # only rounding differs
    same(results[0]["in memory"], values(whole))
    stored = repsim.open_activations(folder / "shuffled", order="rank")
    rows = [i for each in range(4) for _, ids in share(each, 4, shuffle=True) for i in ids.tolist()]
    assert stored.sample.values.tolist() == list(dict.fromkeys(rows))
    same(values(stored.sortby("sample")), values(whole))
    assert repsim.open_activations(folder / "two", order="rank").attrs["n_duplicates"] == 0
    odd = repsim.open_activations(folder / "odd", order="rank")  # the last row is repeated
    np.testing.assert_array_equal(odd.sample, [*range(0, N - 1, 2), *range(1, N - 1, 2)])
    np.testing.assert_array_equal(odd["last"], whole["last"].sel(sample=odd.sample))


@pytest.mark.slow
def test_a_rank_that_fails_is_an_error_on_all_and_each_resumes_its_part(run, whole):
    _, results = run
    for rank, found in enumerate(results):
        told, opened, first, again, result = found["interrupted"]
        assert "OSError: the disk of this rank is gone" in told
        assert told.startswith("OSError") == (rank == 1)
        assert "the store is incomplete" in opened
        assert "rank1of4 is not finished, with 8 rows so far" in opened
        assert "on 4 ranks: each goes on with its own part" in opened
        assert (first, again) == (2, 1)  # all stop where rank 1 does
        same(result, values(whole))


@pytest.mark.slow
def test_what_ranks_cannot_store_together_is_refused_on_each_of_them(run):
    folder, results = run
    for rank, found in enumerate(results):
        assert "InputError: extract: several ranks need group=" in found["no group"]
        assert "'world', 'alone' or a torch" in found["unknown group"]
        assert not (folder / "none").exists()
        assert "InputError: extract: data gave no batch on any rank" in found["no batch"]
        assert "dtype: 'float16' on ranks 0, 2; None on ranks 1, 3" in found["dtype"]
        assert "from rank0of4 to rank1of4: first: was [[2, 5], " in found["shape"]
        said = "there is something else at this place" if rank == 0 else "1 of 4 ranks failed"
        assert said in found["taken"], found["taken"]
        assert "All ranks must reach the same place" in found["not shared"]
        if rank < 2:
            assert "parts of 4 ranks, and now there are 2" in found["other number"]


@pytest.mark.slow
def test_parts_that_are_missing_or_changed_are_refused_by_name(run, whole, tmp_path):
    folder, _ = run

    def after(change):
        out = tmp_path / "run"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "four", out)
        change(out)
        return refusal(lambda: repsim.open_activations(out).load())

    def group_of(out, change):
        file = out / "zarr.json"
        described = json.loads(file.read_text())
        change(described["attributes"])
        file.write_text(json.dumps(described))

    assert after(lambda out: None) == "nothing was raised"
    said = after(lambda out: shutil.rmtree(out / "rank2of4"))
    assert said.startswith("StateError")
    assert "the store is incomplete" in said
    assert "rank2of4 is missing" in said
    assert "copy it here" in said
    said = after(lambda out: (out / "rank1of4" / "act" / "c.1.0").unlink())
    assert "rank1of4, layer 'act': act/c.1.0 is missing" in said
    said = after(lambda out: group_of(out, lambda attrs: attrs["parts"].pop()))
    assert "the checksum of zarr.json does not fit" in said

    def of_another(out):  # a part of a store of two ranks
        for end in ("", ".journal"):
            there = out / f"rank1of4{end}"
            shutil.rmtree(there) if there.is_dir() else there.unlink()
        shutil.copytree(folder / "killed" / "rank1of2", out / "rank1of4")

    assert "rank1of4 has 21 rows, and had 11 when all were finished" in after(of_another)
    # A part without its journal, as after a copy of the groups alone, is read by its attributes.
    assert after(lambda out: (out / "rank1of4.journal").unlink()) == "nothing was raised"
    said = refusal(extracted, share(0, 1), folder / "four")
    assert "something else at this place" in said


@pytest.mark.slow
def test_readers_take_the_store_of_ranks_as_that_of_one_process(run, whole):
    import zarr

    folder, _ = run
    four = repsim.open_activations(folder / "four")
    labels = np.arange(N) % 3
    for read in (
        repsim.cka_matrix,
        lambda x: repsim.cka_matrix(x, kernel="rbf", block_size=5),
        repsim.pairwise,
        lambda x: repsim.probe_activations(x, labels, x, labels).accuracy,
        lambda x: aligned(x, whole),
        lambda x: x["last"][3:9],
        lambda x: x["last"][[7, 2, 2, 40]],
        lambda x: x["last"][5, 2],
        lambda x: x["last"][::-5, 1:3],
        lambda x: x["last"][4:4],
        lambda x: x.isel(sample=[30, 1])["act"],
    ):
        np.testing.assert_array_equal(np.asarray(read(four)), np.asarray(read(whole)))
    np.testing.assert_array_equal(repsim.cka_matrix(four, whole), repsim.cka_matrix(whole))
    masked = repsim.open_activations(folder / "masked", transform="mean")
    x, mask = texts()
    expected = (Net().first(x) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    np.testing.assert_allclose(masked["first"].values, expected.detach(), rtol=1e-6)
    # The parts of another place, in an object store.
    memory = zarr.storage.MemoryStore()
    for file in sorted((folder / "four").rglob("*")):
        if file.is_file():
            key = file.relative_to(folder / "four").as_posix()
            buffer = zarr.core.buffer.default_buffer_prototype().buffer
            zarr.core.sync.sync(memory.set(key, buffer.from_bytes(file.read_bytes())))
    same(values(repsim.open_activations(memory)), values(whole))
    zarr.core.sync.sync(memory.delete("rank3of4/zarr.json"))
    with pytest.raises(repsim.StateError, match="rank3of4 is missing"):
        repsim.open_activations(memory)


@pytest.mark.slow
def test_a_rank_that_is_killed_is_an_error_on_the_others_and_resumes(run, whole):
    _, results = run
    message, opened = results[0]["killed"]
    assert "A rank has died" in message
    assert "rank1of2 is not finished, with 12 rows so far" in opened
    for found in results[:2]:
        same(found["after the kill"], values(whole))


def test_rows_in_another_order_than_their_ids_are_read_with_a_warning(tmp_path):
    store = os.path.join(tmp_path, "store")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    try:
        orders = {"ascending": torch.arange(N), "scattered": torch.randperm(N)}
        for name, ids in orders.items():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                data = [(inputs()[part], part) for part in ids.split(BATCH)]
                stored = extracted(data, tmp_path / name, group="world")
            np.testing.assert_array_equal(stored[0]["sample"], np.arange(N))
            assert [str(each.message).splitlines()[0] for each in caught] == [
                "open_activations: samples are sorted by id, but they were stored in another order."
            ] * (name == "scattered")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                stored = repsim.open_activations(tmp_path / name, order="rank")
            np.testing.assert_array_equal(stored.sample, ids)
    finally:
        dist.destroy_process_group()
