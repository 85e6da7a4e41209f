import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from dpap.report import write_report
from dpap.report.page import drawable

MakeRun = Callable[..., Path]
VOID = {"meta", "br", "link", "hr", "img"}


class _Balance(HTMLParser):
    """Every element is closed by its own end tag; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: Path) -> tuple[str, str]:
    html = page.read_text(encoding="utf-8")
    parser = _Balance()
    parser.feed(html)
    assert parser.open == []
    return html, parser.text


def test_the_page_holds_the_numbers_of_the_run(twins: Path) -> None:
    page = write_report(twins)
    assert page == twins / "report" / "index.html"
    html, text = read(page)
    summary = json.loads((twins / "summary.json").read_text())
    assert f"{100 * summary['sparsity']:.1f}% of the weights died" in text
    twin = json.loads((twins.parent / "dense" / "summary.json").read_text())
    for cost in (twin["after"], summary["after"]):
        for key in ("parameters", "weights", "macs", "synaptic_operations", "accumulates"):
            assert f"{cost[key]:,.0f}" in text
    for part in (
        "2.08 µJ",
        "2.12 µJ",
        "4.2 ms",
        "n = 1, seed 0",
        "Xeon, 2.1 GHz",
        "dpap train recipes/mnist_snn.yaml",
    ):
        assert part in text
    assert "last: the last epoch's network" in text
    assert text.count("Survival in") == 3
    assert html.count("<svg ") == 13


def test_the_page_needs_nothing_from_outside(twins: Path) -> None:
    html, _ = read(write_report(twins))
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)", html)
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"'\s<]+", html)) <= namespaces


def test_figures_lie_beside_the_page_and_nothing_else(twins: Path) -> None:
    files = sorted(path.name for path in write_report(twins).parent.iterdir())
    assert files == [
        "accuracy.png", "epsilon.png", "fates.png", "index.html", "network.png", "seconds.png", "sparsity.png",
        "spikes-1-spike1.png", "spikes-2-spike-fc1.png",
        "survival-1-conv1.png", "survival-2-conv2.png", "survival-3-fc1.png", "units.png", "weights.png",
    ]  # fmt: skip


def test_writing_again_gives_the_same_bytes(twins: Path) -> None:
    first = write_report(twins).read_bytes()
    assert write_report(twins).read_bytes() == first


def test_names_are_escaped(make_run: MakeRun) -> None:
    evil = "<script>alert('x')</script>"
    path = make_run(name=evil)
    for file in ("metrics.jsonl", "survival.jsonl"):
        content = (path / file).read_text().replace('"conv1"', json.dumps(f"../{evil}$_$"))
        (path / file).write_text(content)
    (path / "config.yaml").write_text(f"name: {evil}")
    page = write_report(path)
    html, text = read(page)
    assert "<script" not in html and f"../{evil}" in text
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", file.name) for file in page.parent.iterdir())


def test_unfinished(make_run: MakeRun) -> None:
    path = make_run(finished=False, epochs=3)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_lo')
    _, text = read(write_report(path))
    assert "The run has no summary.json" in text and "cut off" in text and "State after epoch 3" in text
    assert "Synaptic operations" not in text


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_first_epochs(make_run: MakeRun, epochs: int) -> None:
    _, text = read(write_report(make_run(finished=False, epochs=epochs)))
    assert f"20 s for {epochs} epoch" in text or f"{epochs} epochs" in text


def test_before_the_first_epoch(make_run: MakeRun) -> None:
    path = make_run(finished=False)
    (path / "metrics.jsonl").unlink()
    (path / "survival.jsonl").unlink()
    html, text = read(write_report(path))
    assert "no epoch is finished yet" in text and "<svg" not in html


def test_the_metrics_of_a_finished_run_are_missing(make_run: MakeRun) -> None:
    path = make_run()
    (path / "metrics.jsonl").unlink()
    _, text = read(write_report(path))
    assert "of the weights died while the network learned" in text and "metrics.jsonl, is missing" in text
    assert "no epoch is finished" not in text and "dpap train --resume" in text
    assert "target 60.0%" in text and "no target" not in text
    (path / "config.yaml").write_text("pruning: {target: null}")
    assert "no target: as the rule prunes" in read(write_report(path))[1]
    (path / "config.yaml").write_text("pruning: {target: 0.5, target_of: macs}")
    assert "the target is of the macs" in read(write_report(path))[1]
    for damaged in ("pruning: [", "3", "pruning: 3", "pruning: {target: much}", "pruning: {target: 7}"):
        (path / "config.yaml").write_text(damaged)
        assert "no target" in read(write_report(path))[1]


def test_dense(make_run: MakeRun) -> None:
    _, text = read(write_report(make_run(dense=True)))
    assert "nothing pruned" in text and "Survival" not in text and "588,000" in text


def test_survival_of_many_layers_is_folded(make_run: MakeRun) -> None:
    path = make_run()
    lines = [json.loads(line) for line in (path / "survival.jsonl").read_text().splitlines()]
    for line in lines:
        line["layers"] = {f"conv{i}": line["layers"]["conv1"] for i in range(9)}
    (path / "survival.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, text = read(write_report(path))
    assert "Survival in 3 more layers" in text


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_spikes_of_the_untrained_network_are_no_measure(make_run: MakeRun, twins: Path) -> None:
    row = r"Synaptic operations<small>neither is zero</small></th><td>2,310,000</td><td>815,664</td><td>(.*?)</td>"
    alone, _ = read(write_report(make_run("alone")))
    beside, _ = read(write_report(twins))
    assert re.findall(row, alone) == ["–"] and re.findall(row, beside) == ["0.35×"]
    assert "the twin’s synaptic operations" in beside and "the twin’s synaptic operations" not in alone


def test_a_target_of_another_cost_stands_beside_the_dead_weights(twins: Path) -> None:
    lines = [json.loads(line) for line in (twins / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"target_of": "synaptic_operations", "achieved": 0.4321, "target": 0.4567}
    (twins / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, text = read(write_report(twins))
    assert "43.2%" in text and "of the synaptic operations saved" in text and "scheduled 45.7%" in text
    assert "the target is of the synaptic operations" in text


def test_the_report_of_a_run_is_removed_with_it(twins: Path) -> None:
    page = write_report(twins)
    assert list(page.parent.glob("*.png"))
    RunFolder(twins).clear()
    assert not page.parent.exists()


@pytest.mark.parametrize("error", [OverflowError, ZeroDivisionError, ValueError, RuntimeError, MemoryError])
def test_numbers_that_cannot_be_drawn_are_named(tmp_path: Path, error: type[Exception]) -> None:
    expected = f"{tmp_path}: its numbers cannot be drawn .{error.__name__}: why"
    with pytest.raises(UserError, match=expected), drawable(tmp_path):
        raise error("why")
