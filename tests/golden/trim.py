"""Cut the golden vectors down to what the tests need: python trim.py SOURCE, the folder of the full files."""

import sys
from pathlib import Path

import numpy as np

LAYERS = (6, 7, 9)
SHOWN = [0, 12, 39]  # epochs whose large arrays are kept: first, while synapses die, last


def trim(source: Path, target: Path) -> None:
    full = np.load(source / "driven_f64.npz")
    kept: dict[str, np.ndarray] = {"shown": np.array(SHOWN)}
    for index in (5, 6, 8, 9):
        spikes = full[f"spk_{index}"]
        if not np.isin(spikes, (0, 1)).all():
            raise ValueError(f"spk_{index} must hold spikes, 0 or 1")
        kept[f"spk_{index}"] = np.packbits(spikes)
        kept[f"spk_{index}_shape"] = np.array(spikes.shape)
    for index in (5, 6, 7):
        kept[f"csum_{index}"] = full[f"csum_{index}"][0]
    for index in (8, 9):
        kept[f"fcsum_{index}"] = full[f"fcsum_{index}"][0]
    for layer in LAYERS:
        for name in ("bcm", "neuron_th", "epoch_trace"):
            kept[f"{name}_{layer}"] = full[f"{name}_{layer}"][SHOWN, -1]
        for name in ("spines", "n_delta", "reduce"):
            kept[f"{name}_{layer}"] = full[f"{name}_{layer}"]
        mask = full[f"mask_{layer}"]
        kept[f"mask_{layer}"] = np.packbits(mask if layer == 9 else mask[:, :, 0, 0, 0])
    for name in ("ww_delta_9", "reduceww_9"):
        kept[name] = full[name][SHOWN]
    np.savez_compressed(target / "driven.npz", **kept)
    for name in ("unit", "edge", "decay"):
        with np.load(source / f"{name}.npz") as arrays:
            np.savez_compressed(target / f"{name}.npz", **arrays)


if __name__ == "__main__":
    trim(Path(sys.argv[1]), Path(__file__).parent)
