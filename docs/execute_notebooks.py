"""Executes the notebooks of docs/notebooks/ in place, and keeps of their outputs what is the same in every run.

python docs/execute_notebooks.py [NAME …]
"""

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parent / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path, timeout: int = 1800) -> None:
    """Executes a notebook in its folder, and writes it with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: when a cell fails; the file is as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the kernel: results are the same to the bit with one number of threads
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    clean(client.execute())
    nbformat.write(notebook, path)


def clean(notebook: NotebookNode) -> None:
    """Leaves the cells and their outputs: no warnings, timings, names of kernels or versions of Python."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = joined([output for output in cell.outputs if output.get("name") != "stderr"])
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = small(output.data["image/png"])


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs, with adjacent ones that are printed as one: how they are cut depends on the machine's load."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def small(png: str) -> str:
    """A picture in base64 with 256 colors: a third of its size."""
    colors = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    colors.save(file := io.BytesIO(), "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        print(f"{path.name} …", flush=True)
        execute(path)
