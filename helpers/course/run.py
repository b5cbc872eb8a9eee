"""Run the course: ``python -m helpers.course run`` executes the notebooks in order and prints the scoreboard."""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from helpers.collection.collection import open_collection
from helpers.evaluation.measures import read_scoreboard
from helpers.evaluation.report import format_scoreboard, write_report
from helpers.store.files import ROOT, SETTINGS, WorkbookError, build_dir, exit_code

CELL_SECONDS = 3600


def notebooks(wanted: str = "") -> list[Path]:
    """The course's notebooks in order; ``wanted`` picks some by number, "02 06"."""
    paths = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    numbers = wanted.replace(",", " ").split()
    unknown = [n for n in numbers if not any(p.name.startswith(n) for p in paths)]
    if unknown:
        raise WorkbookError(f"There is no notebook {unknown[0]!r}: choose from {', '.join(p.name[:2] for p in paths)}.")
    return [p for p in paths if not numbers or any(p.name.startswith(n) for n in numbers)]


def execute(path: Path, target: Path, env: dict[str, str]) -> None:
    """Execute one notebook in a fresh kernel and save it with its outputs as ``target``, also when it fails.

    Raises WorkbookError with the notebook, the number of the cell and the error.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.extra_arguments = ["--log-level=ERROR"]  # the kernel's note about TCP is no news to a reader
    running = [0]
    client.on_cell_execute = lambda cell, cell_index: running.__setitem__(0, cell_index)
    try:
        client.execute(env=env)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        name = getattr(error, "ename", type(error).__name__)
        value = getattr(error, "evalue", str(error).strip().splitlines()[-1])
        raise WorkbookError(f"{path.name} stopped at cell {running[0] + 1}: {name}: {value}") from None
    finally:
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)


def run_notebooks(wanted: str = "") -> None:
    """Execute the notebooks into build/<collection>/notebooks/, then print the scoreboard and where the report is."""
    chosen = os.environ.get("COLLECTION") or "pydocs"
    path = Path(chosen).expanduser()
    if path.exists() and chosen != "pydocs":
        chosen = str(path.resolve())  # the kernels run in notebooks/, where a relative path means another place
    collection = open_collection(chosen)
    print(collection, *collection.notices, sep="\n", flush=True)
    env = {**os.environ, "COLLECTION": chosen, "TQDM_DISABLE": "1"}  # nobody watches: it is read when it is done
    start = time.perf_counter()
    for notebook in notebooks(wanted):
        print(f"{notebook.stem:<30}", end="", flush=True)
        began = time.perf_counter()
        try:
            execute(notebook, collection.build / "notebooks" / notebook.name, env)
        except WorkbookError:
            print(f"  failed after {time.perf_counter() - began:.0f} s", flush=True)
            raise
        print(f"{time.perf_counter() - began:7.0f} s", flush=True)
    report = write_report(collection)
    board = read_scoreboard(collection)
    print(f"{'all':<30}{time.perf_counter() - start:7.0f} s\n")
    for split in [s for s in ("test", "dev") if s in set(board["split"])]:
        print(f"Scoreboard on {split}\n")
        with pd.option_context("display.width", 200, "display.max_columns", None):
            print(format_scoreboard(board, split).to_string(), end="\n\n")
    if board.empty:
        print("No scoreboard: the collection has no judged queries, so nothing could be scored.\n")
    print(f"Report: {report}")


def refresh(wanted: str = "") -> None:
    """Execute the committed notebooks on the default collection, without a person's settings, and keep their outputs.

    So the outputs are the same for everybody and show nothing of this machine; ``run_notebooks`` is for one's own keys,
    models and data.
    """
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    env = {**plain, "COLLECTION": "pydocs", "TQDM_DISABLE": "1"}
    solved = [p.parent / "solutions" / p.name for p in notebooks(wanted)]
    for path in [*notebooks(wanted), *(p for p in solved if p.is_file())]:
        # executed elsewhere, so that a failing notebook leaves the committed one as it was
        executed = build_dir("pydocs") / "notebooks" / path.relative_to(ROOT / "notebooks")
        execute(path, executed, env)
        notebook = nbformat.read(executed, as_version=4)
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number:02d}"
            cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        nbformat.write(notebook, path)
        print(f"{path.name} executed in place", flush=True)


def main() -> int:
    """The command line; 0 when all went well, 1 with one sentence on stderr when not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "refresh"])
    parser.add_argument("--notebooks", default="", help='numbers of notebooks, such as "02 06"; all by default')
    arguments = parser.parse_args()
    return exit_code(lambda: (run_notebooks if arguments.command == "run" else refresh)(arguments.notebooks))


if __name__ == "__main__":
    sys.exit(main())
