"""Make the student's homework from the notebook with the solutions.

``python -m helpers.course.student`` reads notebooks/solutions/11_homework.ipynb and writes notebooks/11_homework.ipynb.
In a cell tagged ``exercise``, each name that the check looks at is set to ``...``; the cell's code goes, folded, below
the hint that follows the check. All other cells are the same.
"""

import ast
import sys
from copy import deepcopy
from pathlib import Path

import nbformat

from helpers.store.files import ROOT, WorkbookError

HINT = "<details><summary>Hint</summary>"


def answers(solution: str, check: str) -> list[str]:
    """The names that the solution makes and the check looks at, in the solution's order."""
    made: list[str] = []
    for node in ast.parse(solution).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.append(node.name)
        elif isinstance(node, ast.Assign):
            made += [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    asked = {n.id for n in ast.walk(ast.parse(check)) if isinstance(n, ast.Name)}
    return [name for name in dict.fromkeys(made) if name in asked]


def _folded(code: str) -> str:
    return f"<details><summary>Solution</summary>\n\n```python\n{code.strip()}\n```\n\n</details>"


def student_version(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with the exercises to do, without outputs.

    Raises WorkbookError for an exercise that is not followed by its check and its hint, or whose check looks at none of
    the names that it makes.
    """
    made = deepcopy(notebook)
    for number, cell in enumerate(made.cells):
        cell.source = cell.source.replace("](../", "](")  # the student's notebook lies one folder higher
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "exercise" not in cell.metadata.get("tags", []):
            continue
        check, below = made.cells[number + 1 : number + 3]
        names = answers(cell.source, check.source)
        if check.cell_type != "code" or HINT not in below.source or not names:
            raise WorkbookError(
                f"Cell {number} is tagged exercise: "
                "below it come its check, which uses a name that it makes, and a folded hint."
            )
        end = below.source.index("</details>", below.source.index(HINT)) + len("</details>")
        below.source = f"{below.source[:end]}\n{_folded(cell.source)}{below.source[end:]}"
        cell.source = "\n".join(f"{name} = ..." for name in names)
    return made


def paths() -> tuple[Path, Path]:
    """(the solutions, the student's notebook)."""
    return ROOT / "notebooks" / "solutions" / "11_homework.ipynb", ROOT / "notebooks" / "11_homework.ipynb"


def main() -> int:
    """Write the student's notebook; outputs of cells that did not change are kept."""
    source, target = paths()
    made = student_version(nbformat.read(source, as_version=4))
    if target.is_file():
        before = {(cell.id, cell.source): cell for cell in nbformat.read(target, as_version=4).cells}
        for cell in made.cells:
            if cell.cell_type == "code" and (old := before.get((cell.id, cell.source))):
                cell.outputs, cell.execution_count = old.outputs, old.execution_count
    nbformat.write(made, target)
    print(f"{target.relative_to(ROOT)}: {sum('exercise' in c.metadata.get('tags', []) for c in made.cells)} exercises")
    return 0


if __name__ == "__main__":
    sys.exit(main())
