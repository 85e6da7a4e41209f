"""Is it fast? Training steps beside other frameworks, pruned beside dense, observed beside not, and where time goes."""

import copy
import warnings
from functools import partial
from typing import Any

import neurons
import torch
from candidates import Step, built, candidate, measured, small, spikingjelly_takes, stepper
from jobs import Job, Setting
from steps import check
from timing import alternate, compared, random_batch, training_step
from torch import nn

import dpap
from anatomy import mask_half
from dpap.anatomy import find_wiring
from dpap.metrics import macs
from dpap.models import NetworkConfig
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead

OURS = ["ours", "ours, channels last", "ours, bfloat16", "ours, channels last, bfloat16"]
THEIRS = ["SpikingJelly" + each.removeprefix("ours") for each in OURS]
GRAPHS = [
    "ours, graph",
    "ours, channels last, bfloat16, graph",
    "SpikingJelly, channels last, bfloat16, graph",
]
CORNER = 96
COMPILED = ["ours, channels last, bfloat16, torch.compile"]


def beside(name: str, batch: int, names: list[str], setting: Setting) -> dict[str, Any]:
    """Steps of one of Table I's networks, ours and others'."""
    same = "not checked" if setting.rehearse else the_same(name, setting.device)
    config, shape, batch = small(setting, name, batch)
    makers = {each: partial(candidate, each, config, shape, batch, setting.device) for each in names}
    outcome = measured(makers, setting, "SpikingJelly")
    takes = spikingjelly_takes(setting.device)
    return {"n": setting.rounds, "batch": batch, "same": same, "SpikingJelly takes": takes, **outcome}


def the_same(name: str, device: torch.device) -> str:
    """Whether all compute the same logits and gradients without TensorFloat-32."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        check(name, device)
    except AssertionError as error:
        return f"no: {error}"[:500]
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    return "yes"


def one_layer(setting: Setting) -> dict[str, Any]:
    """One layer of neurons, forwards and backwards, in float32."""
    sizes = {"MNIST, 1st": (8, 128, 15, 28, 28), "6Conv2FC, 1st": (8, 64, 128, 32, 32)}
    rows = {}
    for name, shape in sizes.items():
        shape = (2, 2, 3, 4, 4) if setting.rehearse else shape
        each = neurons.candidates(shape, setting.device)
        del each["ours, compiled"]
        rows[name] = compared(alternate(each, setting.rounds, setting.device), neurons.BASELINE)
    return {"n": setting.rounds, "rows": rows}


def halved(model: Any, images: torch.Tensor, kept: float = 0.5) -> Any:
    """The network with a random half of the units of every prunable layer, or another share; widths multiples of 8.

    Of large images a corner serves: wiring takes minutes on 224 x 224, and residual networks pool any size.
    """
    images = images[..., :CORNER, :CORNER]
    shape = getattr(model, "input_shape", None)
    if shape is not None:
        model.input_shape = tuple(images.shape[1:])
    wiring = find_wiring(model, (images,))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    mask_half(wiring, masks, kept)
    silence = Silence(model, wiring, [])
    silence.impose(masks)
    remove_dead(model, wiring, masks, [], (images,), 8)
    silence.remove()
    if shape is not None:
        model.input_shape = shape
    return model


def half(config: NetworkConfig, shape: tuple[int, int, int], batch: int, setting: Setting) -> dict[str, Any]:
    """Steps of a dense network, and of half of its channels, in the ways that are fast on a GPU."""
    device = setting.device
    if setting.rehearse:
        batch, config = 2, NetworkConfig(**{**vars(config), "width": 0.1})
        shape = (shape[0], min(shape[1], 32), min(shape[2], 32))
    images, labels = random_batch(batch, shape, device)
    networks = {"dense": built(config, shape, device)}
    networks["half"] = halved(built(config, shape, device), images[:2])
    counted = {name: macs(network, images[:2]) for name, network in networks.items()}
    outcome: dict[str, Any] = {"n": setting.rounds, "batch": batch, "macs of 2": counted, "ways": {}}
    saved = counted["dense"] / counted["half"]
    for options in ([], ["channels last", "bfloat16"], ["channels last", "bfloat16", "graph"]):
        makers: dict[str, Any] = {
            name: partial(fresh, network, images, labels, options) for name, network in networks.items()
        }
        rows = measured(makers, setting, "dense")
        if "half" in rows["rows"]:
            rows["speed-up over MACs"] = rows["rows"]["half"]["ratio"] / saved
        outcome["ways"][", ".join(options) or "float32"] = rows
    return outcome


def fresh(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, options: list[str]) -> Step:
    """The step of a copy."""
    return stepper(copy.deepcopy(network), images, labels, options)


def observed(name: str, batch: int, options: list[str], setting: Setting) -> dict[str, Any]:
    """What a `Pruner` adds to a step, observing every fourth, before anything died and with half of it dead."""
    config, shape, batch = small(setting, name, batch)
    images, labels = random_batch(batch, shape, setting.device)

    def run(watched: bool, dead: bool) -> Step:
        model = built(config, shape, setting.device)
        if "channels last" in options:
            model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), fused=images.is_cuda)
        model.train()
        if watched:
            plan = dpap.PruningConfig.paper(target=0.6, start_epoch=0, end_epoch=1, observe_every=4)
            pruner = dpap.Pruner(model, images[:4], optimizer, plan)
            if dead:
                training_step(model, optimizer, images, labels, "bfloat16" in options)
                pruner.step()

        def four() -> None:
            for _ in range(4):
                training_step(model, optimizer, images, labels, "bfloat16" in options)

        return four

    makers = {"bare": run(False, False), "observed": run(True, False), "observed, 60 % dead": run(True, True)}
    rows = compared(alternate(makers, setting.rounds, setting.device), "bare")
    for row in rows.values():
        row["milliseconds"] /= 4
        row["cost"] = 1 / row["ratio"] - 1
    return {"n": setting.rounds, "batch": batch, "rows": rows}


def waits(name: str, setting: Setting) -> dict[str, Any]:
    """How often eight steps wait for the device: bare, observed every second, and with half of the weights dead."""
    config, shape, batch = small(setting, name, 32)
    images, labels = random_batch(batch, shape, setting.device)
    counts = {}
    where: dict[str, int] = {}
    for kind in ("bare", "observed", "60 % dead"):
        model = built(config, shape, setting.device).train()
        optimizer = torch.optim.Adam(model.parameters(), fused=images.is_cuda)
        if kind != "bare":
            plan = dpap.PruningConfig.paper(target=0.6, start_epoch=0, end_epoch=1, observe_every=2)
            pruner = dpap.Pruner(model, images[:4], optimizer, plan)
        training_step(model, optimizer, images, labels)
        if kind == "60 % dead":
            pruner.step()
            training_step(model, optimizer, images, labels)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if images.is_cuda:
                torch.cuda.set_sync_debug_mode("warn")
            for _ in range(8):
                training_step(model, optimizer, images, labels)
            if images.is_cuda:
                torch.cuda.set_sync_debug_mode("default")
        synchronising = [each for each in caught if "called a synchronizing" in str(each.message)]
        counts[kind] = len(synchronising)
        for each in synchronising:
            place = f"{'/'.join(each.filename.split('/')[-3:])}:{each.lineno}"
            where[place] = where.get(place, 0) + 1
    return {"n": 8, "waits": counts, "where": where}


def profile(name: str, batch: int, setting: Setting) -> dict[str, Any]:
    """Milliseconds on the device by kernel, of one step of ours in bfloat16, channels last."""
    config, shape, batch = small(setting, name, batch)
    step = candidate("ours, channels last, bfloat16", config, shape, batch, setting.device)
    for _ in range(3):
        step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setting.device.type == "cuda":
        activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiled:
        for _ in range(4):
            step()
        if setting.device.type == "cuda":
            torch.cuda.synchronize()
    averages = profiled.key_averages()
    cuda = setting.device.type == "cuda"
    spent = {e.key[:90]: e.self_device_time_total if cuda else e.self_cpu_time_total for e in averages}
    times = {key: microseconds / 4e3 for key, microseconds in spent.items() if microseconds}
    longest = sorted(times.items(), key=lambda item: -item[1])[:16]
    return {"n": 4, "batch": batch, "milliseconds": dict(longest), "all": sum(times.values())}


SEW = NetworkConfig("resnet18", timesteps=4, tau=2.0, detach_reset=True)
SIX = NetworkConfig("snn_6conv2fc", timesteps=8, tau=2.0, detach_reset=True)
TWO = NetworkConfig("snn_2conv2fc", timesteps=8, tau=2.0, detach_reset=True)
VGG, RESNET = NetworkConfig("vgg16", neuron="relu"), NetworkConfig("resnet50", neuron="relu")
BEST = [
    "SpikingJelly",
    "SpikingJelly, channels last, bfloat16",
    "ours, channels last",
    "ours, channels last, bfloat16",
]
TABLE = ["SpikingJelly", "SpikingJelly's torch", "snnTorch", *THEIRS[1:], *OURS, *GRAPHS]
CAST = ["channels last", "bfloat16"]

JOBS = [
    Job("fast", "6Conv2FC, batch 64", 55, partial(beside, "cifar", 64, TABLE)),
    Job("fast", "2Conv2FC, batch 128", 20, partial(beside, "mnist", 128, TABLE)),
    Job("fast", "half of 6Conv2FC, batch 64", 14, partial(half, SIX, (3, 32, 32), 64)),
    Job("fast", "half of VGG16, batch 256", 18, partial(half, VGG, (3, 32, 32), 256)),
    Job("fast", "waits of 2Conv2FC", 8, partial(waits, "mnist")),
    Job("fast", "observing 6Conv2FC, batch 64, bfloat16", 8, partial(observed, "cifar", 64, CAST)),
    Job("fast", "observing 2Conv2FC, batch 128", 3, partial(observed, "mnist", 128, [])),
    Job("fast", "one layer of neurons", 3, one_layer),
    Job("fast", "profile of 6Conv2FC, batch 64", 3, partial(profile, "cifar", 64)),
    Job("fast", "6Conv2FC, batch 256", 30, partial(beside, "cifar", 256, BEST)),
    Job("fast", "2Conv2FC, batch 1024", 16, partial(beside, "mnist", 1024, BEST)),
    Job("fast", "half of 2Conv2FC, batch 128", 8, partial(half, TWO, (1, 28, 28), 128)),
    Job("fast", "compiled 6Conv2FC, batch 64", 60, partial(beside, "cifar", 64, [*BEST, *COMPILED])),
    Job("fast", "compiled 2Conv2FC, batch 128", 40, partial(beside, "mnist", 128, [*BEST, *COMPILED])),
    Job("fast", "half of ResNet-50, 224, batch 64", 60, partial(half, RESNET, (3, 224, 224), 64)),
    Job("fast", "half of SEW-ResNet-18, 224, T = 4, batch 32", 60, partial(half, SEW, (3, 224, 224), 32)),
]
