import pytest

from dpap.data import DataConfig
from dpap.data.registry import DATASETS
from dpap.data.source import is_stray

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


STRAY = (".ipynb_checkpoints", "__MACOSX", "._x.bin", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir")


@pytest.mark.parametrize("name", STRAY)
def test_what_systems_leave_is_no_data(tmp_path, name):
    assert is_stray(tmp_path / name) and not is_stray(tmp_path / "x.bin")


def test_a_folder_of_stray_files_is_passed_over(tmp_path):
    for folder, name in (("a", "._x.bin"), ("b", "x.bin")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    assert MNIST.find(DataConfig(root=str(tmp_path)), ["a", "b"], "*.bin") == tmp_path / "b"


def test_a_text_is_not_read_beyond_what_such_have(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa\xff" + b" " * 100)
    assert MNIST.read_text(path).strip() == "a\ufffd"
    path.write_bytes(b" " * 70_000)
    with pytest.raises(ValueError, match=r"list\.txt must be a text of at most 65536 bytes"):
        MNIST.read_text(path)
