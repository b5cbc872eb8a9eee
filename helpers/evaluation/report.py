"""What a run leaves behind to look at: figures with their sentence, verdicts, and one self-contained HTML page."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import display
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from helpers.collection.collection import AUTHORS, Collection
from helpers.evaluation.measures import read_scoreboard
from helpers.store.files import write_text

WELL_JUDGED = 0.95  # Judged@10 from which on a score needs no second one beside it


def png(figure: Figure) -> str:
    """The figure as a PNG in base64, as a page holds it."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(picture.getvalue()).decode()


def render(room: str, **values: Any) -> str:
    """The page that ``templates/report.html`` of a room, such as "helpers.homework", makes of these values.

    The skeleton ``page.html`` is this room's. All text is escaped.
    """
    pages = Environment(
        loader=ChoiceLoader([PackageLoader(room), PackageLoader("helpers.evaluation")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("report.html").render(values)


def _file(collection: Collection) -> Path:
    return collection.build / "findings.json"


def _findings(collection: Collection) -> dict:
    """Verdicts and figures of this version of the collection; those of an older version are dropped."""
    path = _file(collection)
    findings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return findings if findings.get("key") == collection.key else {"key": collection.key, "verdicts": {}, "figures": {}}


def _in_order(kept: dict[str, Any]) -> list[Any]:
    """The kept values by notebook, and within a notebook in the order in which they were first kept."""
    return [kept[key] for key in sorted(kept, key=lambda key: key.split("/")[0])]


class Findings:
    """What one notebook adds to a collection's report; the same name replaces what was there."""

    def __init__(self, collection: Collection, notebook: str):
        self.collection, self.notebook = collection, notebook

    def _keep(self, kind: str, name: str, value: str | list[str]) -> None:
        findings = _findings(self.collection)
        findings[kind][f"{self.notebook}/{name}"] = value
        write_text(_file(self.collection), json.dumps(findings, ensure_ascii=False))

    def say(self, name: str, sentence: str) -> None:
        """Print a verdict, a sentence that a cell computed, and keep it for the report."""
        self._keep("verdicts", name, sentence)
        print(sentence)

    def show(self, name: str, figure: Figure, caption: str) -> None:
        """Display a figure and keep it with its caption for the report."""
        self._keep("figures", name, [caption, png(figure)])
        display(figure)


def format_scoreboard(board: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """The scoreboard's rows of one split for people to read: best first, the interval in one column, three decimals.

    Beside nDCG@10 of the whole split stands that of each slice of it, and of the authors' sentences. Where less than
    0.95 of what some system shows first was judged, nDCG@10 of the judged passages alone stands beside ``Judged@10``.
    """
    rows = board[board["split"] == split].sort_values(["ndcg@10", "system"], ascending=[False, True])
    table = pd.DataFrame(
        {"system": rows["system"], "queries": rows["n_queries"], "nDCG@10": rows["ndcg@10"].map("{:.3f}".format)}
    )
    table["95 % interval"] = [
        f"{low:.3f} – {high:.3f}" for low, high in zip(rows["ndcg@10_low"], rows["ndcg@10_high"], strict=True)
    ]
    slices = [name for name in dict.fromkeys(board["split"]) if name.startswith(f"{split}/")]
    for name in sorted(slices) + [AUTHORS] * (split == "test" and AUTHORS in set(board["split"])):
        scores = board[board["split"] == name].set_index("system")["ndcg@10"]
        table[name.rpartition("/")[2]] = rows["system"].map(scores).map(_three)
    for column, shown in (
        ("recall@10", "R@10"),
        ("recall@100", "R@100"),
        ("mrr@10", "RR@10"),
        ("judged@10", "Judged@10"),
    ):
        table[shown] = rows[column].map("{:.3f}".format)
    if (rows["judged@10"] < WELL_JUDGED).any():
        few = rows["judged@10"] < WELL_JUDGED
        table["of the judged"] = rows["ndcg@10_judged"].where(few).map(_three)
    table["ms/query"] = rows["ms_per_query"].map("{:.1f}".format)
    table["$/1000 queries"] = rows["usd_per_1000_queries"].map("{:.3f}".format)
    return table.set_index("system")


def _three(score: float) -> str:
    """Three decimals, or nothing for a score that there is not."""
    return f"{score:.3f}" if score == score else ""


def scoreboards(board: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{split: its rows as ``format_scoreboard`` gives them}, test before dev, of the splits that were scored."""
    return {split: format_scoreboard(board, split) for split in ("test", "dev") if split in set(board["split"])}


def write_report(collection: Collection) -> Path:
    """Write ``report.html`` with scoreboard, figures and verdicts, and return its path; the page loads nothing else."""
    findings = _findings(collection)
    page = render(
        "helpers.evaluation",
        collection=collection,
        scoreboards=scoreboards(read_scoreboard(collection)),
        verdicts=_in_order(findings["verdicts"]),
        figures=_in_order(findings["figures"]),
    )
    path = collection.build / "report.html"
    write_text(path, page)
    return path
