"""Files of a run, damaged in thousands of ways: is what is read the same, or named, and never silently something else?

    python benchmarks/reliability/damage.py

Every kind of file is damaged by flipped bits, by truncation and by zeroed sectors of 512 bytes, each time a fresh copy,
and read by what reads it: the resume of a run, the report, `dpap.load`, the tables of a comparison.

    same         what is read is what was written
    mended       it was written anew, equal, from another file
    named        an error or a message names the file
    different    something else was read, and nothing said so
    traceback    an error that is no message for a user

`--resumes` runs of each kind are also gone on with to their end, and their files compared with those of an undisturbed
run. Results go to a file of lines; a second call goes on with it.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from trials import EPOCHS, HERE, Heard, Trials, difference, machine, script_of, small_run

import dpap
from dpap.experiment.checkpoint import read_checkpoint, read_last
from dpap.experiment.comparing.compare import compare
from dpap.experiment.comparing.grid import Row, plan
from dpap.experiment.comparing.results import read_results
from dpap.experiment.config import load_run_config
from dpap.experiment.errors import UserError
from dpap.experiment.mending import check_configuration, mend_lines, what_is_damaged
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import read_json, write_json
from dpap.experiment.train import resume, train
from dpap.models import build_network
from dpap.report.records import read_run
from support.runs import tensors

SECTOR = 512
DAMAGES = {"flips": 1000, "truncations": 200, "zeroed sectors": 100}
OUTCOMES = ("same", "mended", "named", "different", "traceback")
OLD = HERE.parents[1] / "tests" / "versions" / "0.1.0" / "run" / "checkpoint.pt"
Said = list[str]


@dataclass(frozen=True)
class Kind:
    """A kind of file, and what reads it.

    Attributes:
        files: paths in the folder of the trial; all are damaged, each on its own.
        read: (folder, messages) -> something that can be compared.
        resumed: the run, in the folder of the trial, that is gone on with; None where none is.
    """

    files: tuple[str, ...]
    read: Callable[[Path, Said], Any]
    resumed: str | None = None


def plain(state: Any) -> dict[str, Any]:
    """A state that can be compared by ==."""
    leaves = tensors(state)
    return {
        name: (leaf.dtype, leaf.shape, leaf.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        if isinstance(leaf, torch.Tensor)
        else leaf
        for name, leaf in leaves.items()
    }


def newest(folder: Path, said: Said) -> Any:
    """The checkpoint that a resumed run takes."""
    return plain(read_last(RunFolder(folder / "run"), said.append))


def kept(folder: Path, said: Said) -> Any:
    """The checkpoint of the chosen epoch."""
    return plain(read_checkpoint(folder / "run" / "kept.pt"))


def old(folder: Path, said: Said) -> Any:
    """A checkpoint of dpap 0.1.0, which has no checksum of its own."""
    return plain(read_checkpoint(folder / "old.pt"))


def mended(folder: Path, said: Said) -> Any:
    """The lines of a run after it was brought to its checkpoint."""
    files = RunFolder(folder / "run")
    records = mend_lines(files, read_last(files, said.append), said.append)
    return records, files.metrics.read_bytes(), files.survival.read_bytes()


def reported(folder: Path, said: Said) -> Any:
    """The records of a finished run, as its report reads them."""
    run = read_run(folder / "all" / "dpap-0.5-seed0")
    said += run.missing
    return replace(run, missing=(), twin=None), run.twin


def configured(folder: Path, said: Said) -> Any:
    """The configuration of a run that is gone on with, compared with the one in run.json."""
    files = RunFolder(folder / "run")
    config = replace(load_run_config(files.config), out=str(files.path))
    check_configuration(files, config, said.append)
    return config


def begun(folder: Path, said: Said) -> Any:
    """The facts with which that is compared."""
    files = RunFolder(folder / "run")
    check_configuration(files, small_run(files.path, protocol="validation"), said.append)
    return read_json(files.facts)


def summed_up(folder: Path, said: Said) -> Any:
    """The summary of a finished run, as `compare` and --resume read it."""
    files = RunFolder(folder / "all" / "dpap-0.5-seed0")
    if (why := what_is_damaged(files)) is not None:
        raise UserError(why)
    return read_json(files.summary)


def loaded(folder: Path, said: Said) -> Any:
    """The network in a model file."""
    model = build_network(small_run(folder).network, (1, 8, 8), 10)
    try:
        return plain(dpap.load(folder / "all" / "dpap-0.5-seed0" / "model.safetensors", model).state_dict())
    except ValueError as error:  # what dpap.load raises of a damaged file
        raise UserError(str(error)) from error


def loaded_as(dense: Callable[[], nn.Module], path: str) -> Callable[[Path, Said], Any]:
    """The network in another model file."""

    def read(folder: Path, said: Said) -> Any:
        try:
            return plain(dpap.load(folder / path, dense()).state_dict())
        except ValueError as error:
            raise UserError(str(error)) from error

    return read


def by_script(folder: Path, said: Said) -> Any:
    """The network that the script of a hub's folder builds, without dpap, and what it computes."""
    try:
        model = script_of(folder / "hub" / "model_builder.py").load()
    except ValueError as error:
        raise UserError(str(error)) from error
    with torch.no_grad():
        return plain({"of ones": model(torch.ones(1, 8)), **model.state_dict()})


def tables(folder: Path, said: Said) -> Any:
    """The tables of a comparison."""
    return read_results(folder / "all")


def sparse() -> nn.Module:
    """A layer of which most weights are zero."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    nn.init.sparse_(layer.weight, 0.95)
    return layer


def layers() -> nn.Module:
    """Layers in turn, of which one has a setting that no weight shows."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.LeakyReLU(0.3), nn.Linear(6, 3))


DPAP = "all/dpap-0.5-seed0"
SPIKES = {
    "label": 1,
    "timesteps": 3,
    "total_layers": 1,
    "layers": [
        {"name": "spike1", "units": 1, "neurons": 1, "spikes": 2, "rows": [{"unit": 0, "spikes": "1-1"}]}
    ],
}
KINDS = {
    "checkpoint.pt": Kind(("run/checkpoint.pt",), newest, "run"),
    "checkpoint.pt and the one before": Kind(
        ("run/checkpoint.pt", "run/checkpoint-previous.pt"), newest, "run"
    ),
    "checkpoint.pt of dpap 0.1.0": Kind(("old.pt",), old),
    "kept.pt": Kind(("run/kept.pt",), kept, "run"),
    "metrics.jsonl, to go on": Kind(("run/metrics.jsonl",), mended, "run"),
    "survival.jsonl, to go on": Kind(("run/survival.jsonl",), mended, "run"),
    "config.yaml, to go on": Kind(("run/config.yaml",), configured, "run"),
    "run.json, to go on": Kind(("run/run.json",), begun, "run"),
    "metrics.jsonl, finished": Kind((f"{DPAP}/metrics.jsonl",), reported, DPAP),
    "survival.jsonl, finished": Kind((f"{DPAP}/survival.jsonl",), reported, DPAP),
    "config.yaml, finished": Kind((f"{DPAP}/config.yaml",), reported),
    "run.json, finished": Kind((f"{DPAP}/run.json",), reported),
    "summary.json": Kind((f"{DPAP}/summary.json",), summed_up, DPAP),
    "twin": Kind((f"{DPAP}/twin",), reported),
    "model.safetensors": Kind((f"{DPAP}/model.safetensors",), loaded),
    "model.safetensors, sparse": Kind(("sparse.safetensors",), loaded_as(sparse, "sparse.safetensors")),
    "hub folder, model.safetensors": Kind(
        ("hub/model.safetensors",), loaded_as(layers, "hub/model.safetensors")
    ),
    "hub folder, model.safetensors, by its script": Kind(("hub/model.safetensors",), by_script),
    "hub folder, model_widths.json, by its script": Kind(("hub/model_widths.json",), by_script),
    "spikes.json": Kind((f"{DPAP}/spikes.json",), reported, DPAP),
    "results.csv": Kind(("all/results.csv",), tables),
    "epochs.csv": Kind(("all/epochs.csv",), tables),
    "results.sha256": Kind(("all/results.sha256",), tables),
}


def damaged(content: bytes, how: str, rng: random.Random) -> bytes:
    """Some of the bytes are others, or not there."""
    if how == "flips":
        place = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        return bytes(changed)
    if how == "truncations":
        return content[: rng.randrange(len(content))]
    start = SECTOR * rng.randrange(-(-len(content) // SECTOR))
    zeroed = min(SECTOR, len(content) - start)
    return content[:start] + bytes(zeroed) + content[start + zeroed :]


class Copy:
    """A folder that is put back between trials: only what a trial damaged or changed is copied again."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.original, self.folder = original, folder
        self.content = {
            path.relative_to(original): path.read_bytes() for path in original.rglob("*") if path.is_file()
        }
        shutil.copytree(original, folder)

    def put_back(self, everything: bool = True) -> None:
        """All files as they were, or those of the run that stopped alone: reading changes no others."""
        for path in self.folder.rglob("*") if everything else ():
            if path.is_file() and path.relative_to(self.folder) not in self.content and path.name != ".lock":
                path.unlink()
        for name, content in self.content.items():
            path = self.folder / name
            if (everything or name.parts[0] == "run") and not (
                path.is_file() and path.read_bytes() == content
            ):
                path.write_bytes(content)


def judge(kind: Kind, folder: Path, act: Callable[[Path, Said], Any], right: Any) -> tuple[str, str]:
    """The outcome of an act on damaged files, and what was said."""
    said: Said = []
    try:
        value = act(folder, said)
    except (UserError, FileNotFoundError) as error:
        said.append(str(error))
        value = None
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    text = "; ".join(said)
    name = "checkpoint" if "checkpoint" in kind.files[0] else Path(kind.files[0]).name
    if value == right:
        return ("mended" if said else "same"), text
    return ("named" if name in text else "different"), text


def trial(
    kind: Kind, copy: Copy, how: str, rng: random.Random, act: Callable[[Path, Said], Any], right: Any
) -> tuple[str, str]:
    """Damage, read, put back."""
    for name in kind.files:
        (copy.folder / name).write_bytes(damaged(copy.content[Path(name)], how, rng))
    outcome = judge(kind, copy.folder, act, right)
    for name in kind.files:
        (copy.folder / name).write_bytes(copy.content[Path(name)])
    copy.put_back(act is not kind.read)
    return outcome


def make_files(folder: Path) -> None:
    """A run that stopped after its third epoch, and a comparison that is finished."""

    class Stop(Heard):
        def begin_epoch(self, epoch: int, epochs: int, batches: int) -> None:
            if epoch == EPOCHS:
                raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        train(small_run(folder / "run", protocol="validation"), progress=Stop())
    compare(
        plan([Row("small", small_run(folder / "all"), ["dpap"], [0.5], [0])], folder / "all"), folder / "all"
    )
    write_json(RunFolder(folder / DPAP).spikes, SPIKES)
    dpap.save(sparse(), folder / "sparse.safetensors")
    dpap.export_hub(layers(), folder / "hub", name="small", licence="mit", licence_text="MIT")
    shutil.copyfile(OLD, folder / "old.pt")


def main(words: list[str] | None = None) -> int:
    """Damage what was not damaged yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of 1,000 flips, 200 truncations, 100 sectors"
    )
    parser.add_argument("--resumes", type=int, default=12, help="runs of each kind that are gone on with")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--out", default=str(HERE / "results" / "damage.jsonl"), help="file of the results")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="kinds whose name contains one"
    )
    given = parser.parse_args(words)
    trials = Trials(Path(given.out))
    done = {(each["kind"], each["damage"]) for each in trials.done}
    with tempfile.TemporaryDirectory() as name:
        original = Path(name) / "original"
        make_files(original)
        copy = Copy(original, Path(name) / "copy")
        ends: dict[str, Path] = {}
        for kind_name, kind in KINDS.items():
            if not any(word in kind_name for word in given.only):
                continue
            right = kind.read(copy.folder, [])
            copy.put_back()
            for how, number in DAMAGES.items():
                if (kind_name, how) not in done:
                    rng = random.Random(f"{given.seed} {kind_name} {how}")
                    outcomes = [
                        trial(kind, copy, how, rng, kind.read, right)
                        for _ in range(max(1, round(given.share * number)))
                    ]
                    note(trials, kind_name, how, outcomes)
            if kind.resumed is not None and given.resumes and (kind_name, "gone on with") not in done:
                rng = random.Random(f"{given.seed} {kind_name}")
                if kind.resumed not in ends:
                    ends[kind.resumed] = Path(name) / f"end of {Path(kind.resumed).name}"
                    resume(copy.folder / kind.resumed)
                    shutil.copytree(copy.folder / kind.resumed, ends[kind.resumed])
                    copy.put_back()
                end = ends[kind.resumed]

                def go_on(folder: Path, said: Said, run: str = kind.resumed, end: Path = end) -> Any:
                    progress = Heard()
                    try:
                        resume(folder / run, progress=progress)
                    finally:
                        said += [each for each in progress.messages if not each.startswith("going on after")]
                    return difference(folder / run, end)

                outcomes = [
                    trial(kind, copy, how, rng, go_on, "")
                    for _ in range(-(-given.resumes // len(DAMAGES)))
                    for how in DAMAGES
                ]
                note(trials, kind_name, "gone on with", outcomes)
    total: Counter[str] = Counter()
    for each in trials.done:
        total.update(each["outcomes"])
    print(
        f"{sum(total.values())} trials:", *(f"{total[outcome]} {outcome}" for outcome in OUTCOMES), sep="  "
    )
    print(machine())
    return 1 if total["different"] or total["traceback"] else 0


def note(trials: Trials, kind: str, how: str, outcomes: list[tuple[str, str]]) -> None:
    """Write down how often each outcome came, and one example of each."""
    counts = Counter(outcome for outcome, _ in outcomes)
    examples = dict(reversed(outcomes))
    trials.add({"kind": kind, "damage": how, "outcomes": dict(counts), "examples": examples})
    print(f"{kind:34} {how:15}", *(f"{counts[each]:5} {each}" for each in OUTCOMES), flush=True)
    for outcome in ("different", "traceback"):
        for said in {said for each, said in outcomes if each == outcome}:
            print(f"    {outcome}: {said}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
