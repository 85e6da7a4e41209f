"""A run folder as training writes it: 20 epochs of a small spiking network, steep-then-level sparsity."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# name, kind, units, weights, final share of the units that died
LAYERS = [
    ("conv1", "conv", 15, 135, 0.35),
    ("conv2", "conv", 40, 5400, 0.4),
    ("fc1", "fc", 300, 588000, 0.5),
    ("fc2", "fc", 10, 3000, 0.0),
]
EPOCHS = 20


def _survival(epochs: int) -> list[dict[str, list[float | None]]]:
    """Survival by (11): F <- 0.999 F + exp(-epoch/12) dF, from 1; the useful are protected by C."""
    rng = np.random.default_rng(7)
    recorded: list[dict[str, list[float | None]]] = [{} for _ in range(epochs)]
    for name, kind, units, _, share in LAYERS[:3]:
        usefulness = rng.permutation(np.linspace(0, 1, units))
        value, alive = np.ones(units), np.ones(units, dtype=bool)
        for epoch in range(epochs):
            noise = rng.normal(0, 0.12, units)
            delta = 2 * np.clip(usefulness + noise, 0, 1) - 2 * share
            step = np.where(delta >= 0, delta + (5 if kind == "conv" else 2), delta)
            value = 0.999 * value + math.exp(-epoch / 12) * step
            alive &= value >= 0
            recorded[epoch][name] = [float(v) if a else None for v, a in zip(value, alive, strict=True)]
    return recorded


def _cost(scale: float) -> dict[str, Any]:
    return {
        "parameters": int(596900 * scale),
        "weights": int(596535 * scale),
        "macs": 11_500_000 * scale,
        "synaptic_operations": 2_310_000 * scale**1.2,
        "accumulates": 2_300_000 * scale**1.2,
        "multiplies": 10_000 * scale**1.2,
        "picojoules": 2.116e6 * scale**1.2,
        "energy": 2.08e-6 * scale**1.2,
        "latency_low": 0.0041 * (0.4 + 0.6 * scale),
        "latency_seconds": 0.0042 * (0.4 + 0.6 * scale),
        "latency_high": 0.0044 * (0.4 + 0.6 * scale),
        "layers": [
            {"name": name, "units": int(units * scale), "features": units, "weights": int(weights * scale)}
            for name, _, units, weights, _ in LAYERS
        ],
    }


def _spikes() -> dict[str, Any]:
    """Two layers over 8 timesteps; of the second the neurons may not fire at the first timestep."""
    rows = {"spike1": ["01001000", "00000001", "11111111"], "spike_fc1": ["-0010010", "-1000000"]}
    layers = [
        {
            "name": name, "units": 9 if name == "spike1" else 2, "neurons": 7056 if name == "spike1" else 2,
            "spikes": 41, "silenced": 0.0 if name == "spike1" else 0.125,
            "rows": [{"unit": 3 * unit, "spikes": text} for unit, text in enumerate(texts)],
        }
        for name, texts in rows.items()
    ]  # fmt: skip
    return {"label": 7, "timesteps": 8, "total_layers": 2, "layers": layers}


def write_run(
    path: Path, dense: bool = False, epochs: int = EPOCHS, finished: bool = True, name: str = ""
) -> Path:
    """Writes a run folder as the training loop does, and returns it."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(3 + dense)
    survival = _survival(epochs)
    facts = {
        "name": name or ("mnist-dense" if dense else "mnist-pruned"),
        "network": "15C3-AvgPool2-40C3-AvgPool2-300FC-10FC",
        "dataset": "MNIST",
        "data": "MNIST: images of 1x28x28, 10 classes\nsamples: 60000 training, 10000 test",
        "spiking": True,
        "timesteps": 8,
        "machine": {"cpu": "Xeon, 2.1 GHz", "cores": 2, "python": "3.11.9", "torch": "2.8.0"},
        "seed": 0,
        "command": "dpap train recipes/mnist_snn.yaml --epochs 20",
        "protocol": "last",
        "started": "2026-11-22T09:14:02+00:00",
        "wiring": "conv1 -> conv2   15 channels, prunable\nconv2 -> fc1     40 channels, prunable",
    }
    (path / "run.json").write_text(json.dumps(facts))
    (path / "config.yaml").write_text("network:\n  layers: 15C3-AvgPool2\npruning:\n  target: 0.6\n")
    lines = []
    compacted_units = 0
    for index in range(epochs):
        layers = []
        for name_, kind, units, weights, _ in [] if dense else LAYERS:
            values = survival[index].get(name_)
            alive = units if values is None else sum(v is not None for v in values)
            extra = 0.2 * (1 - math.exp(-index / 3)) if kind == "fc" else 0.0
            layers.append(
                {
                    "name": name_, "kind": kind, "units": units, "alive": alive, "weights": weights,
                    "weights_alive": int(weights * alive / units * (1 - extra)), "timesteps_alive": 1.0,
                }
            )  # fmt: skip
        total = sum(layer["weights"] for layer in layers) or 1
        sparsity = 0.0 if dense else 1 - sum(layer["weights_alive"] for layer in layers) / total
        compacts = not dense and index in (3, 8)
        compacted_units += compacts
        reached = (0.9885 if dense else 0.988) - 0.12 * math.exp(-index / 2.2) + rng.normal(0, 0.0007)
        lines.append(
            {
                "epoch": index + 1, "train_loss": 0.4 * math.exp(-index / 5) + 0.02,
                "train_accuracy": min(reached + 0.006 - 0.01 * math.exp(-index / 2), 1.0),
                "test_loss": 0.35 * math.exp(-index / 4) + 0.04, "test_accuracy": float(reached),
                "validation_accuracy": None, "learning_rate": 1e-3 * 0.5 * (1 + math.cos(math.pi * index / epochs)),
                "sparsity": sparsity, "timestep_sparsity": 0.0,
                "target": None if dense else 0.6 * (1 - (1 - min(index / 18, 1)) ** 3),
                "epsilon": {} if dense else {
                    "conv": 0.65 + 0.02 * index, "neuron": 0.61 + 0.015 * index, "synapse": 0.61 + 0.015 * index,
                },
                "seconds": 21 - 3.5 * compacted_units + float(rng.normal(0, 0.3)),
                "evaluate_seconds": 1.9, "prune_seconds": 0.04,
                "compacted": {
                    "parameters_before": 400000, "parameters_after": 300000, "largest_difference": 2e-7,
                    "seconds": 0.1,
                } if compacts else None,
                "layers": layers,
            }
        )  # fmt: skip
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if not dense:
        records = ({"epoch": i + 1, "layers": layers} for i, layers in enumerate(survival))
        (path / "survival.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if finished:
        (path / "spikes.json").write_text(json.dumps(_spikes()))
        best = max(lines, key=lambda line: line["test_accuracy"])
        summary = {
            "epochs": epochs, "best_epoch": best["epoch"], "best_test_accuracy": best["test_accuracy"],
            "final_epoch": epochs, "final_test_accuracy": lines[-1]["test_accuracy"], "protocol": facts["protocol"],
            "sparsity": lines[-1]["sparsity"], "timestep_sparsity": 0.0,
            "seconds_training": sum(line["seconds"] for line in lines), "before": _cost(1.0),
            "after": _cost(1.0 if dense else 0.42), "finished": "2026-11-22T09:21:40+00:00",
        }  # fmt: skip
        (path / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder of the given name under tmp_path."""
    return lambda folder="run", **how: write_run(tmp_path / folder, **how)


@pytest.fixture
def twins(make_run: Callable[..., Path]) -> Path:
    """A pruned run that names its dense twin."""
    make_run("dense", dense=True)
    run = make_run("pruned")
    (run / "twin").write_text("../dense\n")
    return run
