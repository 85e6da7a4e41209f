"""Without the frameworks: the core does not need them, and each module says what to install."""

import subprocess
import sys

import pytest

import dpap

EXTRAS = ("accelerate", "lightning", "skorch", "transformers")


def run(code: str) -> subprocess.CompletedProcess[str]:
    paths = [str(path) for path in (*sys.path, *map(str, dpap.__path__))]
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path[:] = {paths!r}\n{code}"], capture_output=True, text=True
    )


def test_the_core_imports_none_of_them() -> None:
    code = f"import dpap\nfound = sorted(set({EXTRAS!r}) & sys.modules.keys())\nassert not found, found"
    ran = run(code)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_absent_framework_is_named_with_its_extra(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # None: an import of it fails, also where it is installed
    for name in {extra, *(name for name in sys.modules if name.split(".")[0] == extra)}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"dpap.integrations.{extra}", raising=False)
    with pytest.raises(ImportError, match=rf'pip install "\.\[{extra}\]"'):
        __import__(f"dpap.integrations.{extra}")
