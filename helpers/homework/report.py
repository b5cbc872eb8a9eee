"""The homework's report.html: one page to send to a colleague, which loads nothing from elsewhere."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from helpers.collection.collection import Collection
from helpers.evaluation import plots
from helpers.evaluation.measures import read_scoreboard
from helpers.evaluation.report import STYLE, format_scoreboard
from helpers.homework import handover
from helpers.models.services import priced
from helpers.store.files import write_text

_MORE = """
.decision { background: #eef4fb; border-left: 6px solid #2f6db5; padding: .8rem 1.2rem; font-size: 1.15rem; }
.caution { background: #fdf4ec; border-left: 6px solid #d1682a; padding: .6rem 1.2rem; }
pre { background: #f5f6f8; padding: .8rem 1rem; overflow-x: auto; font-size: 13px; } \
td.text, th.text { text-align: left; white-space: normal; }
"""
_MEASURES = (
    "nDCG@10: how much of what is right is among the first ten, and how high; "
    "R@10, R@100: the share of the right passages among the first 10 and 100; "
    "RR@10: 1 / rank of the first right one. All from 0 to 1, higher is better. "
    "Judged@10: the share of the first ten that somebody judged; the rest counts as wrong. "
    "ms/query: on this machine."
)


def _table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> str:
    kinds = ["" if isinstance(c, int | float) else " class='text'" for c in next(iter(rows), columns)]
    head = "".join(f"<th{k}>{html.escape(c)}</th>" for k, c in zip(kinds, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{html.escape(str(c))}</td>" for k, c in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _figure(figure: Figure, caption: str) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    text, data = html.escape(caption), base64.b64encode(picture.getvalue()).decode()
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def gain_in_words(gain: Mapping[str, float] | None) -> str:
    """A sentence on what twice the data may bring; ``gain`` is what ``expected_gain`` gave."""
    if not gain:
        return "Too few queries for a learning curve, so nobody knows what twice the data would bring."
    span = f"{gain['gain']:+.3f} nDCG@10 [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    word = "Twice the data should help" if gain["low"] > 0 else "Twice the data may or may not help"
    return (
        f"{word}: {span} on dev by a straight line over the doublings; "
        "how much one training differs from the next is not in the interval."
    )


def _scoreboards(board: pd.DataFrame, result: Mapping[str, Any]) -> str:
    parts = []
    for split in [s for s in ("test", "dev") if s in set(board["split"])]:
        table = format_scoreboard(board, split).reset_index()
        free = (table["$/1000 queries"].astype(float) == 0).all()
        table = table.drop(columns="$/1000 queries" if free else []).to_html(index=False, border=0)
        word = "reported" if split == "test" else "what picked the candidates"
        parts.append(f"<h2>Scoreboard on {split} ({word})</h2><div class='scroll'>{table}</div>")
    final = board[board["split"] == result["final"]]
    if len(final):
        collect = any(v.yes and v.name == "collect more data first" for v in result["verdicts"])
        decided = "more data is needed first" if collect else f"{result['chosen']} is the decision"
        title = f"nDCG@10 on {result['final']}: {decided}"
        parts.insert(0, _figure(plots.scores_with_intervals(final, title), "Bars are 95 % intervals over queries."))
    if parts:
        parts.append(f"<p>{_MEASURES}</p>")
    return "".join(parts)


def _curve(result: Mapping[str, Any]) -> str:
    curve = {int(size): value for size, value in result["curve"].items()}
    if not curve:
        return f"<p>{html.escape(result['trained_on'][:1].upper() + result['trained_on'][1:])}.</p>"
    figure, axes = plots.blank(7.5, 3.8)
    sizes = sorted(curve)
    axes.plot(sizes, [curve[s] for s in sizes], "o-", color=plots.COLORS[0], linewidth=2, label="tuned encoder")
    axes.axhline(result["start"], color=plots.COLORS[1], linestyle="--", label="untuned encoder")
    gain = result["gain"]
    if gain:
        last, twice = sizes[-1], 2 * sizes[-1]
        low, mean, high = (curve[last] + gain[key] for key in ("low", "gain", "high"))
        axes.errorbar(
            [twice],
            [mean],
            [[mean - low], [high - mean]],
            fmt="o",
            color=plots.COLORS[6],
            capsize=5,
            label="expected at twice the data",
        )
    axes.set_xscale("log", base=2)
    ticks = [*sizes, 2 * sizes[-1]] if gain else sizes
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set(xlabel="queries trained on (log scale)", ylabel="nDCG@10 on dev, small collection\n(does not start at 0)")
    axes.legend(frameon=False, fontsize=9)
    plots.bold_title(axes, "What more data buys")
    return _figure(figure, gain_in_words(gain))


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _dollars(dollars: float) -> str:
    return f"${dollars:.4f}" if dollars >= 0.0001 or dollars == 0 else "less than $0.0001"


def _cost(cost: Mapping[str, float], board: pd.DataFrame, result: Mapping[str, Any]) -> str:
    rows = []
    if not math.isnan(cost["encode_seconds"]):
        rows.append(
            (
                "encode all passages, on this machine",
                f"{_seconds(cost['encode_seconds'])} "
                f"({cost['passages_per_second']:,.0f} a second, chunks counted one by one)",
            )
        )
    row = board[(board["system"] == result["chosen"]) & (board["split"] == result["final"])] if len(board) else board
    if len(row):
        rows.append((f"one query, {result['chosen']}, on this machine", f"{row['ms_per_query'].iloc[0]:.1f} ms"))
    if result["training"]["seconds"] and result["chosen"].startswith("tuned"):
        rows.append(("the encoder's training, on this machine", f"{result['training']['seconds']:,.0f} s"))
    if cost["api_usd_index"] == cost["api_usd_index"]:
        model = handover.API_MODEL
        rows.append((f"the same passages once by {model}", _dollars(cost["api_usd_index"])))
        rows.append((f"1,000 queries by {model}", _dollars(cost["api_usd_1000_queries"])))
    return _table(rows, ("what", "cost")) + f"<p>API prices as of {priced(handover.API_MODEL)}.</p>"


def _failures(result: Mapping[str, Any]) -> str:
    rows = [
        (
            f["query"],
            f"{f['wanted']} (rank {f['rank'] or 'over 100'}): {f['wanted_text']}",
            f"{f['came']}: {f['came_text']}",
        )
        for f in result["failures"]
    ]
    parts = []
    if rows:
        parts.append(_table(rows, (f"query ({result['failures_on']})", "wanted", "came first instead")))
    elif result["final"]:
        parts.append(f"<p>Every {result['failures_on']} query finds something right among its first ten.</p>")
    if result["queue"]:
        parts.append("<p>From the search log, the most urgent first:</p>")
        parts.append(
            _table([(q["query"], q["searches"], q["why"]) for q in result["queue"]], ("query", "searches", "why"))
        )
    return "".join(parts)


def page(collection: Collection, result: Mapping[str, Any]) -> str:
    """The report as HTML; ``result`` is what ``homework.run`` gathered."""
    board = read_scoreboard(collection) if result["final"] else pd.DataFrame(columns=["split", "system"])
    escaped = html.escape
    parts = [f"<h1>Retrieval on {escaped(collection.name)}: what to do next</h1>"]
    parts.append(f"<p class='decision'><b>{escaped(result['decision'])}</b></p>")
    if not result["judged"] or result["final"] != "test":
        reason = next(v.evidence for v in result["verdicts"] if v.name == "collect more data first")
        parts.append(f"<p class='caution'>{escaped(reason)}</p>")
    rows = [("yes" if v.yes else "no", v.name, v.evidence) for v in result["verdicts"]]
    parts.append(_table(rows, ("", "verdict", "evidence")))
    parts.append(f"<h2>What was measured</h2><p>{escaped(result['summary'])}</p>")
    parts.append(_table(result["sources"], ("what", "queries", "from")))
    why = result["trained_on"]
    told = f"Trained on: {why}." if result["training"]["size"] else f"{why[:1].upper()}{why[1:]}."
    parts.append(f"<p>{escaped(told)} {escaped(result['enough'].split(' This is a rule')[0])}</p>")
    parts.append("<ul>" + "".join(f"<li>{escaped(n)}</li>" for n in result["notices"]) + "</ul>")
    parts.append(_scoreboards(board, result))
    if result["comparisons"]:
        parts.append("<h2>Which differences are real?</h2><ul>")
        parts += [f"<li>{escaped(str(c))}.</li>" for c in result["comparisons"]]
        parts.append(
            f"</ul><p>Paired randomisation tests on {result['final']}, Holm-corrected. "
            "Dev picked the systems and weights; "
            "a costlier system is taken only where it is better by more than luck.</p>"
        )
    parts.append(f"<h2>Would more data help?</h2>{_curve(result)}")
    parts.append(f"<h2>Failures to look at</h2>{_failures(result)}")
    parts.append(f"<h2>Cost and latency</h2>{_cost(result['cost'], board, result)}")
    parts.append("<h2>How to load the model</h2>")
    if result["beside"]:
        parts.append(
            "<p>The lines below load the encoder. The system that was measured is not the encoder alone. "
            f"{escaped(result['beside'])}</p>"
        )
    for name, code in handover.loading("chosen").items():
        parts.append(f"<p>With {name}, from the folder that holds <code>chosen</code>:</p><pre>{escaped(code)}</pre>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Retrieval on {escaped(collection.name)}</title><style>{STYLE}{_MORE}</style></head>"
        f"<body>{''.join(parts)}</body></html>"
    )


def write(collection: Collection, result: Mapping[str, Any]) -> Path:
    """Write ``build/<collection>/report.html`` and return its path."""
    path = collection.build / "report.html"
    write_text(path, page(collection, result))
    return path
