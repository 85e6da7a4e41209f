"""A network of snnTorch on handwritten digits, and four lines (marked) that make it smaller while it learns."""

import sys

import snntorch as snn
import torch
from digits import batches, load, report
from snntorch import surrogate, utils
from torch import nn

import dpap  # 1

torch.manual_seed(0)
EPOCHS, TIMESTEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 12, 5
train, test = load()


def make_neuron(output: bool = False) -> nn.Module:
    return snn.Leaky(beta=0.7, spike_grad=surrogate.fast_sigmoid(slope=10), init_hidden=True, output=output)


model = nn.Sequential(
    nn.Conv2d(1, 16, kernel_size=3, padding=1),
    nn.MaxPool2d(2),
    make_neuron(),
    nn.Conv2d(16, 16, kernel_size=3, padding=1),
    nn.MaxPool2d(2),
    make_neuron(),
    nn.Flatten(),
    nn.Linear(64, 128),
    make_neuron(),
    nn.Linear(128, 10),
    make_neuron(output=True),
)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)


def membranes(images: torch.Tensor) -> torch.Tensor:
    utils.reset(model)
    return sum(model(images)[1] for _ in range(TIMESTEPS)) / TIMESTEPS


config = dpap.PruningConfig(target=0.6, start_epoch=EPOCHS // 4, end_epoch=EPOCHS - EPOCHS // 4)
pruner = dpap.Pruner(model, train.images[:8], optimizer, config)  # 2
for _ in range(EPOCHS):
    model.train()
    for images, labels in batches(train):
        loss = nn.functional.cross_entropy(membranes(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pruner.step()  # 3
report("before compaction", model, membranes, test)
pruner.compact()  # 4
report("after compaction", model, membranes, test)
