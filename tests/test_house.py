"""The house: each folder is one floor, and uses only what stands below it."""

import ast
from pathlib import Path

import dpap

SOURCE = Path(dpap.__file__).parent
FLOORS = (
    {"files", "spelling"},
    {"archive"},
    {"spiking", "plasticity"},
    {"anatomy"},
    {"surgery"},
    {"pruning"},
    {"baselines", "integrations", "export"},
    {"metrics"},
    {"models", "data"},
    {"experiment"},
    {"report"},
    {"cli", "testing"},
    {"__main__"},
)
"""Folders and files of `dpap`, from the lowest floor to the highest; those of one floor do not use each other."""
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
CORE = {"spiking", "plasticity", "anatomy", "surgery", "pruning"}
"""What a user's training loop imports."""
NOT_IN_THE_CORE = {
    "matplotlib",
    "sklearn",
    "jsonargparse",
    "rich",
    "jinja2",
    "yaml",
    "lightning",
    "accelerate",
    "transformers",
    "skorch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "nir",
}


def _imports() -> list[tuple[str, str, str]]:
    """(place, the file's part of dpap, module) of every import, also of those inside functions."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        part = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(str(relative), part, each.name) for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{relative}: imports are absolute"
                found.append((str(relative), part, str(node.module)))
                if node.module == "dpap":
                    found += [(str(relative), part, f"dpap.{each.name}") for each in node.names]
    return found


def test_every_part_has_its_floor() -> None:
    parts = {
        path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()
    }
    assert parts - {"__init__", "__pycache__", "py.typed", "recipes"} == HEIGHT.keys()


def test_no_import_runs_upwards() -> None:
    upwards = [
        f"{place} imports {module}"
        for place, part, module in _imports()
        if part != "__init__" and module.startswith("dpap.") and (used := module.split(".")[1]) in HEIGHT
        if used != part and HEIGHT[used] >= HEIGHT[part]
    ]
    assert not upwards


def test_no_file_needs_itself_by_a_detour() -> None:
    def named(place: str) -> str:
        return ("dpap." + place.removesuffix(".py").replace("/", ".")).removesuffix(".__init__")

    files = {named(str(path.relative_to(SOURCE))) for path in SOURCE.rglob("*.py")}
    needs: dict[str, set[str]] = {name: set() for name in files}
    for place, _, module in _imports():
        name = named(place)
        # what a folder offers as a whole is made of its files
        if module in files and module != name and not name.startswith(f"{module}."):
            needs[name].add(module)
    order: list[str] = []
    while ready := sorted(name for name in needs.keys() - set(order) if needs[name] <= set(order)):
        order += ready
    rest = sorted(needs.keys() - set(order))
    assert not rest, f"in or behind a circle: {', '.join(rest)}"


def test_the_core_needs_neither_files_nor_screens() -> None:
    heavy = [
        f"{place} imports {module}"
        for place, part, module in _imports()
        if part in CORE and module.split(".")[0] in NOT_IN_THE_CORE
    ]
    assert not heavy


def test_files_can_be_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(SOURCE)): lines
        for path in SOURCE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long
