"""The notebooks: stored clean, and every cell runs without an error, a failed assert or a warning.

`python tests/test_notebooks.py` cleans them: no outputs, no counts, no word of who ran them last.
"""
import json
import os
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 300                                # for one cell: a slow machine compiles with a cold cache
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}


def cleaned(text):
    """The notebook's text as it is to be stored."""
    notebook = json.loads(text)
    notebook["metadata"] = METADATA
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_without_outputs(path):
    text = path.read_text(encoding="utf-8")
    clean = text == cleaned(text)            # not inside assert: pytest would print the difference
    assert clean, f"{path.name} is stored with outputs or metadata: `python tests/test_notebooks.py` removes them"


@pytest.mark.filterwarnings("ignore")        # those of Jupyter in this process; the notebook's own are looked for below
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT", "0") != "0", reason="the notebooks look at compiled code")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_cell_runs(path, tmp_path, monkeypatch):
    for number, cell in enumerate(executed(path, tmp_path, monkeypatch).cells, 1):
        said = "".join(o.text for o in cell.get("outputs", ()) if o.output_type == "stream" and o.name == "stderr")
        assert not said, f"{path.name}: cell {number} warns:\n{said}"


def executed(path, folder, monkeypatch):
    """The notebook with outputs, run by this interpreter in the repository's root."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    kernelspec = pytest.importorskip("ipykernel.kernelspec")
    pytest.importorskip("matplotlib")
    kernelspec.write_kernel_spec(str(folder / "kernels" / "python3"))    # sys.executable, whatever else is installed
    found = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for name, value in (("JUPYTER_PATH", folder), ("IPYTHONDIR", folder / "ipython"), ("PYTHONPATH", found),
                        ("ENGINE_QUIET", 1), ("MPLBACKEND", "agg")):
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3",
                                     resources={"metadata": {"path": str(ROOT)}})
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        pytest.fail(f"{path.name} ({sys.executable}):\n" + re.sub(r"\x1b\[[0-9;]*m", "", str(error)), pytrace=False)
    return notebook


if __name__ == "__main__":
    for place in NOTEBOOKS:
        place.write_text(cleaned(place.read_text(encoding="utf-8")), encoding="utf-8")
