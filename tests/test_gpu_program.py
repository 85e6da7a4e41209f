"""The program of `benchmarks/gpu` skips what is done, ends in time, and lists its jobs; with jobs that do nothing."""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu"
CPU = torch.device("cpu")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules `jobs` and `results`."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("jobs"), importlib.import_module("results")
    for name in ("jobs", "results"):
        sys.modules.pop(name, None)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_done_is_skipped_and_what_failed_runs_again(program: Any, tmp_path: Path) -> None:
    jobs, results = program
    ran: list[str] = []

    def run(name: str) -> Any:
        def job(setting: Any) -> dict[str, Any]:
            ran.append(name)
            if name == "bad" and ran.count("bad") == 1:
                raise ValueError("once")
            return {"n": 1}

        return jobs.Job("part", name, 0.0, job)

    given = [run("good"), run("bad"), run("last")]
    store = results.Results(tmp_path / "results.jsonl", "card")
    left = jobs.work(given, store, jobs.Setting(CPU), time.monotonic() + 60)
    assert [job.name for job in left] == ["bad"] and ran == ["good", "bad", "last"]
    assert "once" in lines(store.path)[1]["error"]
    assert not jobs.work(given, store, jobs.Setting(CPU), time.monotonic() + 60)
    assert ran == ["good", "bad", "last", "bad"]
    other = results.Results(store.path, "another card")
    assert other.done() == set() and len(store.done()) == 3
    assert {"part", "job", "card", "seconds", "n", "torch", "cuda", "triton", "commit"} <= set(
        lines(store.path)[0]
    )


def test_a_line_that_was_cut_off_is_left_out_and_written_over(program: Any, tmp_path: Path) -> None:
    _, results = program
    store = results.Results(tmp_path / "results.jsonl", "card")
    store.add("part", "first", 0.0, {})
    store.path.write_text(store.path.read_text() + '{"part": "part", "jo')
    assert store.done() == {("part", "first")}
    store.add("part", "second", 0.0, {})
    assert [line["job"] for line in lines(store.path)] == ["first", "second"]


def test_what_can_go_on_is_begun_late_and_is_not_done_before_it_is_whole(
    program: Any, tmp_path: Path
) -> None:
    jobs, results = program
    outcomes = [{"n": 1, "error": "1 of 2 runs finished"}, {"n": 2}]
    job = jobs.Job("part", "long", 10_000.0, lambda setting: outcomes.pop(0), resumable=True)
    store = results.Results(tmp_path / "results.jsonl", "card")
    assert jobs.work([job], store, jobs.Setting(CPU), time.monotonic() + jobs.LEAST - 1) == [job]
    assert len(outcomes) == 2
    for left in ([job], []):
        assert jobs.work([job], store, jobs.Setting(CPU), time.monotonic() + jobs.LEAST + 5) == left
    assert store.done() == {("part", "long")} and [line["n"] for line in lines(store.path)] == [1, 2]


def test_it_ends_in_time(program: Any, tmp_path: Path) -> None:
    jobs, results = program

    def forever(setting: Any) -> dict[str, Any]:
        time.sleep(30)
        return {}

    given = [
        jobs.Job("part", "too long by its estimate", 100.0, forever),
        jobs.Job("part", "too long in fact", 0.1, forever),
        jobs.Job("part", "after the end", 0.1, forever),
    ]
    store = results.Results(tmp_path / "results.jsonl", "card")
    start = time.monotonic()
    left = jobs.work(given, store, jobs.Setting(CPU), start + 0.5)
    assert time.monotonic() - start < 5
    assert len(left) == 3 and "OutOfTime" in lines(store.path)[0]["error"] and len(lines(store.path)) == 1


def test_jobs_are_listed(tmp_path: Path) -> None:
    words = [
        "--list",
        "--device",
        "cpu",
        "--only",
        "right",
        "batch 1024",
        "--out",
        str(tmp_path / "none.jsonl"),
    ]
    pytest.importorskip("spikingjelly")
    listed = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), *words], capture_output=True, text=True, check=True
    )
    assert "right: tests/cuda/test_pruner.py" in listed.stdout
    assert "fast: 2Conv2FC, batch 1024" in listed.stdout and "6Conv2FC" not in listed.stdout
