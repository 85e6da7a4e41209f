"""The example of a network of one's own, from training to other simulators."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore")
def test_other_simulators_fire_the_same_spikes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("onnxruntime", "onnxscript", "nir", "nirtorch", "snntorch"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "out_of_the_door.py"))["main"](2)
    *_, in_onnx, exported, compared, in_snntorch = capsys.readouterr().out.splitlines()
    assert "0 of" in compared and exported.startswith("own.nir")
    assert in_snntorch.endswith("rates equal: True")
    assert in_onnx.split()[-1] == in_snntorch.split()[2].rstrip(",")
