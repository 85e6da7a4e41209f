"""Without the packages the export says what to install."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import dpap
from dpap.spiking import LIF


@pytest.mark.parametrize(("package", "extra"), [("onnx", "export"), ("onnxscript", "export"), ("nir", "nir")])
def test_an_absent_package_is_named_with_its_extra(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None: an import of it fails, also where it is installed
    for name in {package, *(name for name in sys.modules if name.split(".")[0] == package)}:
        monkeypatch.setitem(sys.modules, name, None)
    model = nn.Sequential(nn.Linear(4, 3), LIF(), nn.Linear(3, 2))
    write = dpap.export_nir if extra == "nir" else dpap.export_onnx
    with pytest.raises(ImportError, match=rf'pip install "\.\[{extra}\]"'):
        write(model, torch.rand(3, 2, 4), tmp_path / "file")
    assert not list(tmp_path.iterdir())
