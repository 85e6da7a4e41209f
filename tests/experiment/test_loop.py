import pytest
import torch
from torch import nn
from torch.nn import functional

from dpap.experiment.errors import Diverged
from dpap.experiment.loop import evaluate, train_epoch

CPU = torch.device("cpu")


def batches(samples: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, labels = torch.randn(samples, 4), torch.arange(samples) % 3
    return list(zip(x.split(size), labels.split(size), strict=True))


def test_an_epoch_is_the_steps_written_out() -> None:
    model, data = nn.Linear(4, 3), batches(10, 4)
    twin = nn.Linear(4, 3)
    twin.load_state_dict(model.state_dict())
    counts: list[int] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=9.0)
    score = train_epoch(
        model, iter(data), optimizer, functional.cross_entropy, [0.1, 0.2, 0.3], 0.5, CPU, counts.append
    )
    loss_sum, hits = 0.0, 0
    for (x, labels), rate in zip(data, [0.1, 0.2, 0.3], strict=True):
        logits = twin(x)
        loss = functional.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        norm = torch.sqrt(sum((each**2).sum() for each in gradients)).item()
        with torch.no_grad():
            for parameter, gradient in zip(twin.parameters(), gradients, strict=True):
                parameter -= rate * gradient * min(1.0, 0.5 / norm)
        loss_sum += loss.item() * len(x)
        hits += int((logits.argmax(1) == labels).sum())
    assert torch.allclose(model.weight, twin.weight, atol=1e-6)
    assert score.loss == pytest.approx(loss_sum / 10)
    assert score.accuracy == hits / 10
    assert counts == [1, 2, 3]


def test_bfloat16_is_the_precision_of_the_network_and_not_of_the_loss() -> None:
    model, seen = nn.Linear(4, 3), []

    def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(logits.dtype)
        return functional.cross_entropy(logits, labels)

    model.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = iter(batches(4, 4))
    train_epoch(model, data, optimizer, loss_of, [0.1], None, CPU, lambda done: None, torch.bfloat16)
    assert seen == [torch.bfloat16, torch.float32]
    assert model.weight.dtype == torch.float32


def test_evaluation_changes_nothing_and_weighs_samples_alike() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.9)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = batches(10, 4)
    score = evaluate(model, iter(data), functional.cross_entropy, CPU)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    logits = model(torch.cat([x for x, _ in data]))
    labels = torch.cat([labels for _, labels in data])
    assert score.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert score.accuracy == int((logits.argmax(1) == labels).sum()) / 10


def test_a_loss_that_is_no_number_leaves_the_weights() -> None:
    model, data = nn.Linear(4, 3), batches(8, 4)
    data[1] = (torch.full((4, 4), float("inf")), data[1][1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(Diverged, match=r"batch 2, at learning rate 0\.2"):
        train_epoch(
            model, iter(data), optimizer, functional.cross_entropy, [0.1, 0.2], None, CPU, lambda done: None
        )
    assert model.weight.isfinite().all()
    with pytest.raises(Diverged, match="in evaluation"):
        evaluate(model, iter(data), functional.cross_entropy, CPU)
