"""Notebooks share values through the brain: the magics, and the notebooks of examples/, with real kernels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import plasmon
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def executed(name: str, socket: str) -> Any:
    """Run a notebook in a kernel of its own, and return it with what it printed."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}})
    return client.execute(env={**os.environ, "PLASMON_SOCKET": socket})


def printed(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_two_notebooks_share_a_frame_and_an_array_at_the_same_time(store: plasmon.Store) -> None:
    # Each waits for the other, so that neither can end without both running.
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(executed, name, store.path) for name in ("consumer.ipynb", "producer.ipynb")]
        consumer, producer = (notebook.result() for notebook in running)
    recalled = re.search(r"(\d+) MB recalled; resident memory has grown by (-?[\d.]+) MB", printed(consumer))
    assert recalled and int(recalled[1]) > 150 and float(recalled[2]) < 5, printed(consumer)
    assert re.search(r"(\d+) MB more are resident, (\d+) MB of them", printed(consumer)), printed(consumer)
    assert "read-only" in printed(consumer)
    (summary,) = [
        output["data"]["text/plain"]
        for output in producer.cells[-1]["outputs"]
        if output.output_type == "execute_result"
    ]
    assert "'rows': 2000000" in summary
    tables = [output["data"]["text/html"] for output in producer.cells[4]["outputs"]]
    assert "measurements" in tables[-1] and "image" in tables[-1]
    assert set(store.connect("notebooks")) == {"measurements", "image", "summary"}


@pytest.fixture
def shell(brain: plasmon.Brain) -> Iterator[Any]:
    brain.clear()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "plasmon")
    with capture_output():
        shell.run_line_magic("brain", brain.path)
    yield shell
    InteractiveShell.clear_instance()


def test_magics_learn_and_recall_variables(shell: Any, brain: plasmon.Brain) -> None:
    shell.push({"frame": pd.DataFrame({"n": [1, 2]}), "array": np.arange(3)})
    shell.run_line_magic("learn", "frame array")
    shell.run_line_magic("learn", "array --as 'some array'")
    assert sorted(brain) == ["array", "frame", "some array"]
    shell.run_line_magic("recall", "'some array' --as back")
    assert shell.user_ns["back"].tolist() == [0, 1, 2]
    shell.user_ns.pop("frame")
    shell.run_line_magic("recall", "frame array")
    assert shell.user_ns["frame"].n.tolist() == [1, 2]


def test_brain_shows_what_is_there_and_moves(shell: Any, brain: plasmon.Brain) -> None:
    brain["<b>"] = np.zeros(5000)
    with capture_output() as shown:
        shell.run_line_magic("brain", "")
    (output,) = shown.outputs
    assert "&lt;b&gt;" in output.data["text/html"] and "39.96 KiB" in output.data["text/html"]
    assert re.search(r"<b> +tensor +float64 +\(5000,\) +\S+ KiB +\d+", output.data["text/plain"])
    with capture_output() as shown:
        shell.run_line_magic("brain", "--namespace elsewhere")
    assert "elsewhere" in shown.outputs[0].data["text/plain"]
    shell.push({"x": 1})
    shell.run_line_magic("learn", "x")
    assert brain.in_namespace("elsewhere")["x"] == 1
    brain.remove_namespace("elsewhere")


def test_names_of_the_store_complete(shell: Any, brain: plasmon.Brain) -> None:
    brain.update({"prices": 1, "price list": 2, "volume": 3})
    shell.push({"brain": brain})

    def completed(line: str) -> list[str]:
        with provisionalcompleter():
            return [one.text for one in shell.Completer.completions(line, len(line))]

    for line in ("%recall pri", "recall pri", "%recall volume pri"):
        assert "prices" in completed(line)
        assert "volume" not in completed(line)
    assert "price list'" in completed("%recall 'pri")
    assert any("prices" in one for one in completed('brain["pri'))


@pytest.mark.parametrize(
    ("magic", "line", "said"),
    [
        ("learn", "nothing", "there is no variable 'nothing'"),
        ("learn", "", "required"),
        ("learn", "In Out --as both", "--as"),
        ("recall", "nothing", "nothing is bound to"),
        ("recall", "nothing --timeout 0.1", "nothing"),
        ("recall", "'no identifier'", "--as"),
        ("brain", "/nowhere/at/all.sock", "/nowhere/at/all.sock"),
    ],
)
def test_mistakes_with_magics_are_told_in_a_line(shell: Any, magic: str, line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        shell.run_line_magic(magic, line)
