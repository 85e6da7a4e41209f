"""Batches that are made on a GPU are those of the CPU."""

import torch

from dpap.data import DataConfig, load_data


def test_batches_are_those_of_the_cpu() -> None:
    data = load_data(DataConfig(augment=True, normalise=True, validation=0.2))
    there = data.to(torch.device("cuda"))
    assert there.nbytes == data.nbytes > 0
    for here, moved in zip(data.splits, there.splits, strict=True):
        for (x, y), (on_gpu, labels) in zip(here.batches(32, 3), moved.batches(32, 3), strict=True):
            assert on_gpu.is_cuda and labels.is_cuda
            assert torch.equal(on_gpu.cpu(), x) and torch.equal(labels.cpu(), y)
