"""What a run leaves behind to look at: figures with their sentence, verdicts, and one self-contained HTML page."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import display
from matplotlib.figure import Figure

from helpers.collection.collection import Collection
from helpers.evaluation.measures import read_scoreboard
from helpers.store.files import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
table { border-collapse: collapse; font-size: 14px; } \
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #1c2430; } td { border-bottom: 1px solid #d8dde5; } \
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; } img { max-width: 100%; } figcaption { color: #4a5568; } .scroll { overflow-x: auto; }
"""


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
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        self._keep("figures", name, [caption, base64.b64encode(picture.getvalue()).decode()])
        display(figure)


def format_scoreboard(board: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """The scoreboard's rows of one split for people to read: best first, the interval in one column, three decimals."""
    rows = board[board["split"] == split].sort_values(["ndcg@10", "system"], ascending=[False, True])
    table = pd.DataFrame(
        {"system": rows["system"], "queries": rows["n_queries"], "nDCG@10": rows["ndcg@10"].map("{:.3f}".format)}
    )
    table["95 % interval"] = [
        f"{low:.3f} – {high:.3f}" for low, high in zip(rows["ndcg@10_low"], rows["ndcg@10_high"], strict=True)
    ]
    for column, shown in (
        ("recall@10", "R@10"),
        ("recall@100", "R@100"),
        ("mrr@10", "RR@10"),
        ("judged@10", "Judged@10"),
    ):
        table[shown] = rows[column].map("{:.3f}".format)
    table["ms/query"] = rows["ms_per_query"].map("{:.1f}".format)
    table["$/1000 queries"] = rows["usd_per_1000_queries"].map("{:.3f}".format)
    return table.set_index("system")


def write_report(collection: Collection) -> Path:
    """Write ``report.html`` with scoreboard, figures and verdicts, and return its path; the page loads nothing else."""
    board, findings = read_scoreboard(collection), _findings(collection)
    parts = [f"<h1>Retrieval on {html.escape(collection.name)}</h1>", f"<p>{html.escape(repr(collection))}</p>"]
    parts += [f"<p>{html.escape(notice)}</p>" for notice in collection.notices]
    for split in [s for s in ("test", "dev") if s in set(board["split"])]:
        table = format_scoreboard(board, split).reset_index().to_html(index=False, border=0)
        parts.append(f"<h2>Scoreboard on {split}</h2><div class='scroll'>{table}</div>")
    if board.empty:
        parts.append("<p>Nothing was scored: the collection has no judged queries yet.</p>")
    if findings["verdicts"]:
        rows = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in _in_order(findings["verdicts"]))
        parts.append(f"<h2>Verdicts</h2><ul>{rows}</ul>")
    for caption, picture in _in_order(findings["figures"]):
        text = html.escape(caption)
        parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{picture}"><figcaption>{text}</figcaption></figure>'
        )
    page = (
        '<!doctype html><html lang="en"><head>'
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Retrieval on {html.escape(collection.name)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )
    path = collection.build / "report.html"
    write_text(path, page)
    return path
