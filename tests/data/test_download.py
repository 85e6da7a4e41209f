import errno
import gzip
import hashlib
import io
import os
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import dpap.data.download
from dpap.cli import main
from dpap.data import DataConfig, load_data
from dpap.data.download import DownloadError, Remote, download, remotes
from dpap.data.registry import DATASETS


class Server(HTTPServer):
    """Serves `content` by path; `asked` are the requests: path and range."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.ranges = True
        self.cut: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append((self.path, asked))
        content = self.server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        begin = 0
        if asked and self.server.ranges:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin : self.server.cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def ignore(*_: Any) -> None:
    """No progress."""


@pytest.fixture
def remote(server: Server) -> Remote:
    content = bytes(range(256)) * 20
    server.content["/file"] = content
    return Remote("SET/raw/file", md5(content), (f"{server.url}/file",))


def part_of(root: Path) -> Path:
    return root / "SET" / "raw" / ".file.part"


def test_files_are_put_where_they_belong(server: Server, tmp_path: Path) -> None:
    contents = {"a.gz": b"one" * 1000, "b.gz": b"two"}
    server.content = {f"/far/{name}": content for name, content in contents.items()}
    files = remotes(
        "SET/raw", {name: md5(content) for name, content in contents.items()}, [f"{server.url}/far"]
    )
    seen: list[Any] = []
    done = download(files, tmp_path / "new", lambda *given: seen.append(given))
    assert done == [str(tmp_path / "new" / "SET" / "raw" / name) for name in contents]
    assert {path.name: path.read_bytes() for path in (tmp_path / "new/SET/raw").iterdir()} == contents
    assert seen == [("a.gz", 3000, 3000), ("b.gz", 3, 3)]
    asked = len(server.asked)
    assert all(line.endswith("is there already") for line in download(files, tmp_path / "new", ignore))
    assert len(server.asked) == asked


@pytest.mark.parametrize(("ranges", "begin"), [(True, 1000), (False, 1000), (True, 5120)])
def test_what_was_interrupted_goes_on(
    server: Server, remote: Remote, tmp_path: Path, ranges: bool, begin: int
) -> None:
    server.ranges = ranges
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(server.content["/file"][:begin])
    download([remote], tmp_path, ignore)
    assert server.asked == [("/file", f"bytes={begin}-")]
    assert (tmp_path / remote.path).read_bytes() == server.content["/file"]
    assert not part_of(tmp_path).exists()


def test_an_answer_that_ends_early_is_kept_and_gone_on_with(
    server: Server, remote: Remote, tmp_path: Path
) -> None:
    server.cut = 2000
    with pytest.raises(DownloadError, match="ended after 2,000 of 5,120 bytes"):
        download([remote], tmp_path, ignore)
    assert part_of(tmp_path).stat().st_size == 2000
    assert not (tmp_path / remote.path).exists()
    server.cut = None
    download([remote], tmp_path, ignore)
    assert server.asked[-1] == ("/file", "bytes=2000-")
    assert (tmp_path / remote.path).read_bytes() == server.content["/file"]


def test_a_wrong_file_is_removed_and_the_next_address_is_tried(
    server: Server, remote: Remote, tmp_path: Path
) -> None:
    server.content["/other"] = b"<html>moved</html>"
    with pytest.raises(DownloadError) as failed:
        download([replace(remote, urls=(f"{server.url}/other",))], tmp_path, ignore)
    assert f"its MD5 is {md5(b'<html>moved</html>')}, not {remote.md5}; it was removed" in str(failed.value)
    assert f"{server.url}/other" in str(failed.value)
    assert not list(part_of(tmp_path).parent.iterdir())
    urls = (f"{server.url}/other", f"{server.url}/nowhere", *remote.urls)
    download([replace(remote, urls=urls)], tmp_path, ignore)
    assert [path for path, _ in server.asked] == ["/other", "/other", "/nowhere", "/file"]
    assert (tmp_path / remote.path).read_bytes() == server.content["/file"]


def test_without_a_network_every_address_and_its_reason_are_given(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/file"
        with pytest.raises(DownloadError) as failed:
            download([Remote("file", "0", (refused, "http://name.invalid/file"))], tmp_path, ignore)
    message = str(failed.value)
    assert "Connection refused" in message and refused in message and "name.invalid" in message
    assert "is there a network?" in message and str(tmp_path / "file") in message


def test_a_full_disk_names_the_file_and_keeps_what_is_there(
    server: Server, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failed:
        download([remote], tmp_path, ignore)
    assert failed.value.filename == str(part_of(tmp_path))
    assert part_of(tmp_path).exists() and not (tmp_path / remote.path).exists()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("set/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("set") if hasattr(archive, "mkdir") else archive.writestr("set/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [tar, zipped])
def test_an_archive_is_unpacked_and_removed(pack: Any, server: Server, tmp_path: Path) -> None:
    inside = {
        "set/a.bin": b"a",
        "set/0/b.bin": b"b",
        "set/../../evil": b"x",
        "../evil": b"x",
        "other/c": b"c",
    }
    server.content["/archive"] = pack(inside)
    file = Remote("set.archive", md5(server.content["/archive"]), (f"{server.url}/archive",), "in/set")
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    assert download([file], root, ignore) == [str(root / "in/set")]
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if not path.is_dir()}
    assert found == {"root/in/set/a.bin", "root/in/set/0/b.bin"}
    with pytest.raises(ValueError, match="must hold files in a folder elsewhere; it has none"):
        download([replace(file, folder="elsewhere")], root, ignore)
    assert not [path for path in root.iterdir() if path.name.endswith(".part")]


def test_a_file_that_was_put_there_is_checked_and_kept(tmp_path: Path) -> None:
    content = zipped({"set/a.bin": b"a"})
    (tmp_path / "set.zip").write_bytes(content)
    file = Remote("set.zip", md5(content), (), "set")
    with pytest.raises(ValueError, match="not the published file"):
        download([replace(file, md5="0")], tmp_path, ignore)
    download([file], tmp_path, ignore)
    assert (tmp_path / "set/a.bin").read_bytes() == b"a" and (tmp_path / "set.zip").exists()


@pytest.mark.parametrize("name", [name for name, source in DATASETS.items() if source.files])
def test_a_data_set_is_read_from_where_it_is_put(
    name: str,
    server: Server,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fixture = {"cifar10": "cifar_root", "nmnist": "nmnist_root"}.get(name, "mnist_root")
    origin: Path = request.getfixturevalue(fixture)
    files = []
    for file in DATASETS[name].files:
        if file.folder is None:
            plain = origin / "MNIST" / "raw" / Path(file.path).name
            unpacked = plain.with_suffix("")
            content = plain.read_bytes() if plain.exists() else gzip.compress(unpacked.read_bytes())
        else:
            folder = origin / file.folder
            paths = [path for path in folder.rglob("*") if path.is_file()]
            pack = zipped if file.path.endswith("zip") else tar
            content = pack({path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in paths})
        server.content[f"/{file.path}"] = content
        files.append(replace(file, md5=md5(content), urls=(f"{server.url}/{file.path}",)))
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], files=tuple(files)))
    root, cache = tmp_path / "fresh", tmp_path / "cache"
    flags = [f"--root={root}", f"--cache={cache}"]
    assert main(["data", "--download", name, *flags]) == 0
    said = capsys.readouterr()
    assert f"{name}: " in said.out and str(root) in said.out and said.err == ""
    assert len(load_data(DataConfig(name=name, root=str(root), cache=str(cache))).train)
    assert main(["data", name, "--download", *flags]) == 0
    assert capsys.readouterr().out.count("is there already") == len(files)


def test_the_published_files_have_checksums_and_addresses() -> None:
    assert {name for name, source in DATASETS.items() if source.files} == {
        "mnist", "fashion_mnist", "cifar10", "nmnist",
    }  # fmt: skip
    every = [file for source in DATASETS.values() for file in source.files]
    assert len({file.md5 for file in every}) == len(every)
    assert all(len(file.md5) == 32 and set(file.md5) <= set("0123456789abcdef") for file in every)
    assert all(url.startswith("http") and not url.endswith("/") for file in every for url in file.urls)
    assert "(dpap data mnist --download --root FOLDER)" in DATASETS["mnist"].advice
    assert "--download" not in DATASETS["dvs_gesture"].advice


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data", "--download"], "--download is for one of mnist, fashion_mnist, cifar10, nmnist; got ''"),
        (["data", "--download", "minst"], "did you mean mnist?"),
        (["data", "--download", "dvs_gesture"], "research.ibm.com"),
        (["data", "--download", "mnist"], "set --root or the environment variable DPAP_DATA"),
        (["data", "--download", "mnist", "--root=file/below"], "Not a directory"),
    ],
)
def test_what_cannot_be_downloaded(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DPAP_DATA", raising=False)
    monkeypatch.setattr(dpap.data.download, "urlopen", None)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
