"""A spiking network of one's own: pruned while it learns, exported, and run in onnxruntime and in snnTorch.

python examples/out_of_the_door.py        # needs: pip install ".[export,nir]" snntorch nirtorch
"""

import sys
from contextlib import redirect_stdout

import nir
import onnxruntime
import torch
from digits import batches, load
from snntorch.import_nir import import_from_nir
from torch import Tensor, nn

import dpap
from dpap.spiking import LIF

T = 5


class Own(nn.Module):
    """Two layers of spiking neurons and one that counts their spikes; an image is shown T times."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.spikes = LIF(tau=2.0)
        self.hidden = nn.Linear(16 * 4 * 4, 64)
        self.fired = LIF(tau=2.0)
        self.classes = nn.Linear(64, 10)
        self.counted = LIF(tau=2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 1, 8, 8] to rates [B, 10]."""
        time = x.expand(T, *x.shape)
        current = self.features(time.flatten(0, 1)).unflatten(0, (T, x.shape[0]))
        spikes = self.spikes(current).flatten(2)
        return self.counted(self.classes(self.fired(self.hidden(spikes)))).mean(0)


def accuracy(rates: Tensor, labels: Tensor) -> str:
    """The share of samples whose class has the highest rate."""
    return f"{(rates.argmax(1) == labels).float().mean():.1%}"


def in_snntorch(path: str, images: Tensor) -> Tensor:
    """Rates [B, 10] of the graph in a NIR file, one timestep after the other."""
    with redirect_stdout(None):  # the reader prints the weights
        network = import_from_nir(nir.read(path))
    state, spikes = None, []
    with torch.no_grad():
        for _ in range(T):
            fired, state = network(images, state)
            spikes.append(fired)
    return torch.stack(spikes).mean(0)


def main(epochs: int) -> None:
    """Train, prune, compact, save, export, and compare."""
    torch.manual_seed(0)
    train, test = load()
    model = Own()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    print(f"dense: {sum(one.numel() for one in model.parameters()):,} parameters")

    config = dpap.PruningConfig(target=0.8, start_epoch=0, end_epoch=max(1, epochs - 2))
    pruner = dpap.Pruner(model, train.images[:16], optimizer, config)
    for _ in range(epochs):
        model.train()
        for images, labels in batches(train):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(images), nn.functional.one_hot(labels, 10).float()).backward()
            optimizer.step()
        print(pruner.step())
    pruner.compact()
    pruner.detach()
    model.eval()
    with torch.no_grad():
        rates = model(test.images)
    print(
        f"compact: {sum(one.numel() for one in model.parameters()):,} parameters, {accuracy(rates, test.labels)}"
    )

    dpap.save(model, "own.safetensors")
    print(dpap.export_onnx(model, test.images[:32], "own.onnx"))
    session = onnxruntime.InferenceSession("own.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: test.images.numpy()})
    print(f"in onnxruntime: {accuracy(torch.from_numpy(found), test.labels)}")
    print(dpap.export_nir(model, test.images[:32], "own.nir"))
    simulated = in_snntorch("own.nir", test.images)
    print(f"in snnTorch: {accuracy(simulated, test.labels)}, rates equal: {torch.equal(simulated, rates)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
