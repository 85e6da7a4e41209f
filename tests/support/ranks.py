"""Small networks that several processes train together, and the same training in one."""

import multiprocessing
import os
import random
import socket
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import dpap
from dpap.spiking import LIF

BATCH, BATCHES, EPOCHS = 8, 4, 2
SCALE = 2.0**10
"""At first, of a gradient scaler; it halves where a step is skipped."""
SMALL = {"target": 0.6, "start_epoch": 0, "end_epoch": EPOCHS, "observe_every": 1, "deaths_per_epoch": 2}


def on_ranks(
    call: Callable[..., Any], ranks: int, folder: Path, *given: Any, seconds: float = 30
) -> list[Any]:
    """What `call(rank, *given)` returns in each of so many processes that reach each other; their errors, too."""
    # one import of torch for all processes, in which nothing has run yet
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dpap", "torch.distributed"])
    folder.mkdir(parents=True, exist_ok=True)
    running = [
        context.Process(target=_run, args=(call, rank, ranks, str(folder), seconds, given))
        for rank in range(ranks)
    ]
    return _results(running, folder)


def launched(call: Callable[..., Any], ranks: int, folder: Path, *given: Any) -> list[Any]:
    """What `call(*given)` returns in each of so many processes that are started as torchrun does; their errors, too."""
    first, *ports = _free_ports(64)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dpap", "torch.distributed"])
    folder.mkdir(parents=True, exist_ok=True)
    environments = [
        {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": ranks,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": first,
            "NEXT_PORTS": " ".join(ports),
        }
        for rank in range(ranks)
    ]
    running = [
        context.Process(target=_launched, args=(call, environment, str(folder), given))
        for environment in environments
    ]
    return _results(running, folder)


def next_port() -> None:
    """Meet the others elsewhere from now on: a process that is early must not find what the last meeting left."""
    os.environ["MASTER_PORT"], _, os.environ["NEXT_PORTS"] = os.environ["NEXT_PORTS"].partition(" ")


def _free_ports(number: int) -> list[str]:
    """Below those that the system gives to connections, of which there are many meanwhile."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    below = int(given.read_text().split()[0]) if given.exists() else 32768
    candidates = random.SystemRandom().sample(range(10_000, below), below - 10_000)
    found: list[str] = []
    while len(found) < number:
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port := candidates.pop()))
            found.append(str(port))
    return found


def _launched(call: Callable[..., Any], environment: dict[str, Any], folder: str, given: Any) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    try:
        result = call(*given)
    except BaseException as error:
        result = error
    torch.save(result, f"{folder}/{environment['RANK']}.pt")


def _results(running: list[Any], folder: Path) -> list[Any]:
    """What the processes left, once all have ended."""
    for process in running:
        process.start()
    for process in running:
        process.join(1000)
        if process.is_alive():
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(len(running))]


def _run(call: Callable[..., Any], rank: int, ranks: int, folder: str, seconds: float, given: Any) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=seconds)
    )
    try:
        result = call(rank, *given)
    except Exception as error:
        result = error
    torch.save(result, f"{folder}/{rank}.pt")
    if not isinstance(result, Exception):
        dist.destroy_process_group()


class Spiking(nn.Module):
    """Two spiking layers over three timesteps."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(6, 12), nn.Linear(12, 8), nn.Linear(8, 2)
        self.first, self.second = LIF(threshold=0.3), LIF(threshold=0.3)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.first(self.one(x).expand(3, -1, -1))
        return self.out(self.second(self.two(spikes)).mean(0))


def network(spiking: bool = False) -> nn.Module:
    """The same weights whenever it is called, in double precision."""
    torch.manual_seed(3)
    dense = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    return (Spiking() if spiking else dense).double()


def batches() -> list[tuple[Tensor, Tensor]]:
    """Batches of all processes together."""
    drawn = torch.Generator().manual_seed(1)
    x = torch.rand(BATCHES * BATCH, 6, generator=drawn, dtype=torch.float64)
    return list(zip(x.split(BATCH), (x.sum(1) > 3).long().split(BATCH), strict=True))


def masks_of(pruner: dpap.Pruner) -> dict[str, Tensor]:
    """Copies of what is alive, and of the numbers of the units that are left."""
    kinds = {
        f"{kind} {name}": one.clone()
        for kind, all_ in pruner._state.masks.tensors()
        for name, one in all_.items()
    }
    return kinds | {f"left {name}": index.clone() for name, index in pruner._structure.index.items()}


def trained(
    rank: int,
    ranks: int,
    *,
    spiking: bool = False,
    accumulate: int = 1,
    copies: bool = False,
    precision: torch.dtype | None = None,
    wrapped: bool = True,
    inner: bool = False,
    broken: int | None = None,
    overflow: int | None = None,
    closure: bool = False,
    **config: Any,
) -> dict[str, Any]:
    """The masks after every epoch of a training, and the weights after the last.

    Args:
        rank, ranks: this process, of how many.
        spiking: which network.
        accumulate: parts of every batch before a step of the optimizer.
        copies: whether a moving average follows.
        precision: of autocast.
        wrapped: by DistributedDataParallel; else gradients are averaged here.
        inner: give Pruner the network inside.
        broken: the batch of which the last sample is not a number.
        overflow: a gradient scaler is used, and the gradients of the last part of this batch are infinite: of one rank.
        closure: let the optimizer's step compute the gradients.
        config: of the pruner.
    """
    model = network(spiking)
    net: nn.Module = DistributedDataParallel(model) if ranks > 1 and wrapped else model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    average = AveragedModel(model) if copies else None
    # each rank has other samples, and another number of them
    example = batches()[rank][0][: 4 + rank]
    pruner = dpap.Pruner(
        model if inner else net,
        example,
        optimizer,
        dpap.PruningConfig(**{**SMALL, **config}),
        copies=() if average is None else average,
    )
    scaler = torch.amp.GradScaler("cpu", SCALE, enabled=overflow is not None)
    history: list[dict[str, Tensor]] = []
    for _ in range(EPOCHS):
        for number, (x, y) in enumerate(batches()):
            if number == broken:
                x = x.clone()
                x[-1] = torch.nan
            parts = list(zip(x.chunk(accumulate), y.chunk(accumulate), strict=True))
            optimizer.zero_grad()
            if closure:
                optimizer.step(lambda x=x, y=y: _backward(net, x.chunk(ranks)[rank], y.chunk(ranks)[rank]))
                continue
            for place, (some, labels) in enumerate(parts, 1):
                last = place == len(parts) and number != broken
                held = isinstance(net, DistributedDataParallel) and not last
                with net.no_sync() if held else nullcontext():
                    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
                        logits = net(some.chunk(ranks)[rank])
                    loss = nn.functional.cross_entropy(logits.double(), labels.chunk(ranks)[rank])
                    if number == overflow and rank == ranks - 1:
                        loss = loss * torch.inf
                    if number != broken:  # a step with such a loss would leave no weight as it was
                        scaler.scale(loss / accumulate).backward()
            if ranks > 1 and not wrapped and number != broken:
                for parameter in model.parameters():
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= ranks
            if number != broken:
                scaler.step(optimizer)
                scaler.update()
            if average is not None:
                average.update_parameters(model)
        report = pruner.step()
        history.append(masks_of(pruner))
    pruner.compact()
    net(batches()[0][0]).sum().backward()  # the wrapper fits what is left
    pruner.detach()
    weights = {name: each.detach().clone() for name, each in model.named_parameters()}
    followed = {} if average is None else {name: each.clone() for name, each in average.named_parameters()}
    return {
        "masks": history,
        "left": masks_of(pruner),
        "weights": weights,
        "average": followed,
        "left out": report.left_out,
        "samples": {name: one.samples for name, one in pruner._state.statistics.items()},
        "scale": scaler.get_scale(),
    }


def _backward(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    return loss


def all_cases(rank: int, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every case, one after the other, on all ranks."""
    return {name: trained(rank, dist.get_world_size(), **how) for name, how in cases.items()}
