import pytest

from dpap.data import DataConfig
from dpap.data.registry import DATASETS

MNIST = DATASETS["mnist"]


def test_the_first_folder_that_holds_the_marker_is_found(tmp_path):
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.bin").touch()
    config = DataConfig(root=str(tmp_path))
    assert MNIST.find(config, ["a", "b", "c"], "*.bin") == tmp_path / "b"
    with pytest.raises(FileNotFoundError, match=r"no \*\.txt in .*a, .*b; mnist is expected as"):
        MNIST.find(config, ["a", "b"], "*.txt")


def test_the_configured_root_goes_before_the_environment(tmp_path, monkeypatch):
    (tmp_path / "x.bin").touch()
    monkeypatch.setenv("DPAP_DATA", "/nowhere")
    assert MNIST.find(DataConfig(root=str(tmp_path)), ["."], "x.bin") == tmp_path


def test_the_name_decides_what_is_gzip(tmp_path):
    import gzip

    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text"))
    (tmp_path / "a").write_bytes(b"text")
    for name in ("a", "a.gz"):
        with MNIST.open(tmp_path / name) as file:
            assert file.read() == b"text"
