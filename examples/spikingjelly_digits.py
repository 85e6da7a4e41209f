"""A network of SpikingJelly on handwritten digits, and four lines (marked) that make it smaller while it learns."""

import sys

import torch
from digits import batches, load, report
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

import dpap  # 1

torch.manual_seed(0)
EPOCHS, TIMESTEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 12, 4
train, test = load()


def make_neuron() -> nn.Module:
    return neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True)


model = nn.Sequential(
    layer.Conv2d(1, 16, kernel_size=3, padding=1, bias=False),
    layer.BatchNorm2d(16),
    make_neuron(),
    layer.MaxPool2d(2),
    layer.Conv2d(16, 16, kernel_size=3, padding=1, bias=False),
    layer.BatchNorm2d(16),
    make_neuron(),
    layer.MaxPool2d(2),
    layer.Flatten(),
    layer.Linear(64, 128, bias=False),
    make_neuron(),
    layer.Linear(128, 10, bias=False),
)
functional.set_step_mode(model, "m")
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)


def rates(images: torch.Tensor) -> torch.Tensor:
    output = model(images.expand(TIMESTEPS, *images.shape)).mean(0)
    functional.reset_net(model)
    return output


example = train.images[:8].expand(TIMESTEPS, -1, -1, -1, -1)
config = dpap.PruningConfig(target=0.6, start_epoch=EPOCHS // 4, end_epoch=EPOCHS - EPOCHS // 4)
pruner = dpap.Pruner(model, (example,), optimizer, config)  # 2
for _ in range(EPOCHS):
    model.train()
    for images, labels in batches(train):
        loss = nn.functional.cross_entropy(rates(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pruner.step()  # 3
report("before compaction", model, rates, test)
pruner.compact()  # 4
report("after compaction", model, rates, test)
