"""The notebooks in docs run from top to bottom and are stored without outputs."""

import os
import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def read_notebook(path):
    return nbformat.read(path, as_version=4)


def list_code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebooks_exist():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for cell in list_code_cells(read_notebook(path)):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # warnings of the notebook runner
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs the extra `train`")
    for name in ("zoo", "docs/examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "docs/notebooks"
    folder.mkdir()
    shutil.copy(path, folder)
    notebook = read_notebook(path)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [output for cell in list_code_cells(notebook) for output in cell.outputs]
    pages = [o.data["text/html"] for o in outputs if "text/html" in o.get("data", {})]
    text = "".join(pages)
    assert "data:image/svg+xml;base64," in text
    assert "background:#0969da" in text
    assert "images by true class" in text
    assert not any(output.output_type == "error" for output in outputs)
    assert os.listdir(folder) == [path.name]
