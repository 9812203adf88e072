"""Analyses of a process group on the emulated device: what ranks exchange is in main memory."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist

from analysis import rank_cases, test_rank_batches


@pytest.fixture
def one_rank(tmp_path):
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def test_a_group_gives_the_values_of_main_memory(one_rank, monkeypatch):
    def in_main_memory(self, protocol):
        assert self.device.type == "cpu", "a tensor of the device was exchanged"
        return reduce(self, protocol)

    reduce = torch.Tensor.__reduce_ex__
    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", in_main_memory)
    with pytest.raises(AssertionError, match="was exchanged"):
        pickle.dumps(torch.zeros(2, device="sim"))
    options = {"group": "world", "sample_ids": rank_cases.ids_of}
    for cases, data in (
        (rank_cases.ANALYSES, rank_cases.share(0, 1)),
        (test_rank_batches.CASES, test_rank_batches.share(0, 1)),
    ):
        for name, run in cases.items():
            near = run(data, **options)
            far = run(data, model=rank_cases.net().to("sim"), **options)
            for key, values in near.data_vars.items():
                np.testing.assert_allclose(far[key], values, rtol=1e-8, atol=1e-10, err_msg=name)
