"""Run the notebooks of the documentation, one after the other, and write what they print and draw into them.

python docs/site/run_notebooks.py
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
FORGET = "get_ipython().reset(new_session=True)"
"""Between two notebooks: all their names, but not the modules that are loaded, which would take seconds again."""


def run(paths: list[Path]) -> Iterator[NotebookNode]:
    """Each notebook after a run of its cells, in one process for all.

    Raises:
        nbclient.exceptions.CellExecutionError: where a cell raises; it holds the cell and the traceback.
    """
    client = NotebookClient(NotebookNode(), kernel_name="python3", timeout=300)
    client.create_kernel_manager().transport = "ipc"  # a file; TCP is open to all on a machine, and warned of
    with client.setup_kernel():
        for path in paths:
            notebook = nbformat.read(path, as_version=4)
            client.nb = notebook
            client.reset_execution_trackers()
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index, execution_count=None)
            client.execute_cell(nbformat.v4.new_code_cell(FORGET), -1, store_history=False)
            yield notebook


def digest(notebook: NotebookNode) -> str:
    """Of the code, so that outputs which are not its own are noticed."""
    code = "\n\0\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def main() -> None:
    """Write every notebook anew, without what depends on the machine or the time."""
    for path, notebook in zip(NOTEBOOKS, run(NOTEBOOKS), strict=True):
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, cell in enumerate(code, 1):
            cell.execution_count = number
            cell.metadata = {}
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = number
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata = {"kernelspec": kernel, "dpap": {"code": digest(notebook)}}
        nbformat.write(notebook, path)
        print(path.name, file=sys.stderr)


if __name__ == "__main__":
    main()
