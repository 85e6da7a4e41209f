"""A network of SpikingJelly on handwritten digits, and four lines (marked) that make it smaller while it learns."""

import sys

import torch
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

import dpap  # 1

torch.manual_seed(0)
EPOCHS, TIMESTEPS, BATCH = int(sys.argv[1]) if len(sys.argv) > 1 else 12, 4, 64

bundle = load_digits()
images = torch.tensor(bundle.images / 16, dtype=torch.float32).unsqueeze(1)
labels = torch.tensor(bundle.target)
order = torch.randperm(len(images))
train, test = order[:1437], order[1437:]


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


def rates(batch: torch.Tensor) -> torch.Tensor:
    output = model(batch.expand(TIMESTEPS, *batch.shape)).mean(0)
    functional.reset_net(model)
    return output


@torch.no_grad()
def report(when: str) -> None:
    model.eval()
    accuracy = (rates(images[test]).argmax(1) == labels[test]).float().mean()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{when}: {parameters:,} parameters, test accuracy {accuracy:.1%}")


example = images[:8].expand(TIMESTEPS, -1, -1, -1, -1)
config = dpap.PruningConfig(target=0.6, start_epoch=EPOCHS // 4, end_epoch=EPOCHS - EPOCHS // 4)
pruner = dpap.Pruner(model, (example,), optimizer, config)  # 2
for _ in range(EPOCHS):
    model.train()
    for batch in train[torch.randperm(len(train))].split(BATCH):
        loss = nn.functional.cross_entropy(rates(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pruner.step()  # 3
report("before compaction")
pruner.compact()  # 4
report("after compaction")
