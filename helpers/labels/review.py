"""Which searches should a person look at? A sample of the traffic, signals of failure, topics, and verdicts."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

import ipywidgets
import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import CountVectorizer

from helpers.collection.text import normalise, tokenize
from helpers.evaluation.measures import interval
from helpers.store.files import WorkbookError, write_text
from helpers.store.rows import Text, read_rows, read_text

SIGNALS = ("low precision", "low top score", "no click", "reformulated", "cited but ranked low")
LOWEST_SCORES = 0.1  # low top score: nothing found, or in the lowest tenth of the system's searches, if they differ
RANKED_LOW = 3  # cited but ranked low: an answer cited a passage below this rank
QUERIES_A_TOPIC = 25
NO_TOPIC, GONE = "(no topic)", "(no longer in the collection)"
SHOWN = 110  # characters of a passage in the widget; its tooltip shows all of it
Relevance = Mapping[tuple[str, str], float]  # (query, doc) → how probably relevant, in [0, 1]


def sample_searches(searches: pd.DataFrame, n: int, seed: int = 0) -> pd.DataFrame:
    """n searches drawn at random from the log, so that frequent queries count as often as they are asked."""
    if searches.empty:
        raise WorkbookError("The log has no searches: log some, import some, or simulate some first.")
    rows = np.random.default_rng(seed).permutation(len(searches))[:n]
    return searches.iloc[np.sort(rows)].reset_index(drop=True)


def precision(searches: pd.DataFrame, relevance: Relevance, k: int = 5, seed: int = 0) -> tuple[float, float, float]:
    """Mean precision@k over the searches with its 95 % bootstrap interval: (mean, low, high).

    A result counts with its probability of being relevant; searches with a result that was not judged are left out, and
    WorkbookError is raised when none is left.
    """
    rows = [
        [relevance[query, doc] for doc in docs[:k]]
        for query, docs in zip(searches["query"], searches["doc_ids"], strict=True)
        if all((query, doc) in relevance for doc in docs[:k])
    ]
    if not rows:
        raise WorkbookError("None of these searches has judged results: judge the sample first.")
    values = [sum(row) / k for row in rows]
    return float(np.mean(values)), *interval(values, seed)


def review_queue(
    searches: pd.DataFrame, events: pd.DataFrame, relevance: Relevance | None = None, k: int = 5
) -> pd.DataFrame:
    """One row per query, those first that most need a person's look.

    Columns: ``searches``; one per signal, in [0, 1], higher is worse (see SIGNALS); ``precision`` by the judge if there
    is one, else nan; ``priority`` = searches x mean of the known signals; ``why``, the signals from 0.5 on; ``doc_ids``
    of the first search.
    """
    if searches.empty:
        raise WorkbookError("The log has no searches: log some, import some, or simulate some first.")
    kinds = events.groupby("search_id")["kind"].agg(set) if len(events) else pd.Series(dtype=object)
    cited = events[events["kind"] == "cited"] if len(events) else events
    cited_docs = cited.groupby("search_id")["doc_id"].agg(list) if len(cited) else pd.Series(dtype=object)
    top = searches["scores"].map(lambda scores: scores[0] if len(scores) else np.nan).astype(float)
    of_system = top.groupby(searches["system"])
    floor = of_system.transform(lambda values: values.quantile(LOWEST_SCORES))
    low = ((top <= floor) & (top < of_system.transform("max"))).astype(float).mask(top.isna())  # not logged: unknown

    def ranked_low(search: str, docs: Sequence[str]) -> bool:
        places = {doc: rank for rank, doc in enumerate(docs, 1)}
        return any(places.get(doc, 0) > RANKED_LOW for doc in cited_docs.get(search, []))

    def judged(query: str, docs: Sequence[str]) -> float:
        known = [relevance[query, doc] for doc in docs[:k] if (query, doc) in relevance] if relevance else []
        return sum(known) / len(known) if known else np.nan

    happened = [kinds.get(search, set()) for search in searches["search_id"]]
    shown = list(zip(searches["search_id"], searches["query"], searches["doc_ids"], strict=True))
    table = pd.DataFrame({"query": searches["query"], "searches": 1})
    table["precision"] = [judged(query, docs) for _, query, docs in shown]
    table["low precision"] = 1 - table["precision"]
    table["low top score"] = low.mask(searches["doc_ids"].map(len) == 0, 1.0)
    clicks = any("clicked" in kinds_ for kinds_ in happened)  # a log without any never recorded them
    table["no click"] = [float("clicked" not in kinds_) if clicks else np.nan for kinds_ in happened]
    table["reformulated"] = [float("reformulated" in kinds_) for kinds_ in happened]
    table["cited but ranked low"] = [float(ranked_low(search, docs)) for search, _, docs in shown]
    queue = table.groupby("query", sort=True).agg(
        {"searches": "sum", "precision": "mean", **dict.fromkeys(SIGNALS, "mean")}
    )
    queue["priority"] = queue["searches"] * queue[list(SIGNALS)].mean(axis=1)
    queue["why"] = [", ".join(s for s in SIGNALS if row[s] >= 0.5) for _, row in queue.iterrows()]
    queue["doc_ids"] = searches.groupby("query")["doc_ids"].first()
    return queue.sort_values("priority", ascending=False, kind="stable").reset_index()


def topics(queries: Sequence[str], vectors: np.ndarray, n: int | None = None, seed: int = 0) -> list[str]:
    """A topic for each query: clusters of its vectors (k-means), named by their three most distinctive words.

    Distinctive words are frequent in the cluster and rare elsewhere: class-based tf-idf (Grootendorst, BERTopic, 2022).
    ``n`` is the number of clusters, by default one per 25 queries, at least 2 and at most 12; never more than there are
    different vectors.
    """
    if len(queries) != len(vectors):
        raise WorkbookError(f"There are {len(queries)} queries and {len(vectors)} vectors: embed the same queries.")
    if len(queries) < 2:
        return ["all"] * len(queries)
    points = np.asarray(vectors, dtype=np.float64)
    n = min(n or int(np.clip(len(queries) // QUERIES_A_TOPIC, 2, 12)), len(np.unique(points, axis=0)))
    labels = KMeans(n, n_init=4, random_state=seed).fit_predict(points)
    joined = [" ".join(q for q, c in zip(queries, labels, strict=True) if c == i) for i in range(n)]
    counter = CountVectorizer(stop_words="english", token_pattern=r"(?u)\b[^\W\d_]{3,}\b")
    try:
        counts = counter.fit_transform(joined)
    except ValueError:  # nothing but stop words
        return [f"topic {label + 1}" for label in labels]
    dense = counts.toarray()
    weights = dense * np.log1p(dense.sum(axis=1).mean() / dense.sum(axis=0))
    words = counter.get_feature_names_out()
    best = [[words[j] for j in np.argsort(-row, kind="stable")[:9] if row[j] > 0] for row in weights]
    names = [", ".join(_one_a_stem(top_words)[:3]) or f"topic {i + 1}" for i, top_words in enumerate(best)]
    twice = Counter(names)
    names = [f"{name} ({i + 1})" if twice[name] > 1 else name for i, name in enumerate(names)]
    return [names[label] for label in labels]


def _one_a_stem(words: Sequence[str]) -> list[str]:
    """The words without those that differ from an earlier one in their ending only."""
    kept: dict[str, str] = {}
    for word in words:
        kept.setdefault(" ".join(tokenize(word)), word)
    return list(kept.values())


def by_topic(queue: pd.DataFrame, topic: Mapping[str, str]) -> pd.DataFrame:
    """One row per topic, the worst first: queries, searches, and the signals weighted by searches.

    ``topic`` is {query: topic}; queries that it does not have make a topic of their own. ``failing`` is the mean of the
    known signals.
    """
    table = queue.assign(topic=[topic.get(query, NO_TOPIC) for query in queue["query"]])
    columns = ["precision", *SIGNALS]

    def mean(group: pd.DataFrame) -> pd.Series:
        weighted = {
            c: np.average(group[c].dropna(), weights=group.loc[group[c].notna(), "searches"])
            if group[c].notna().any()
            else np.nan
            for c in columns
        }
        return pd.Series({"queries": len(group), "searches": group["searches"].sum(), **weighted})

    rows = {name: mean(group) for name, group in table.groupby("topic")}
    summary = pd.DataFrame(rows, index=["queries", "searches", *columns]).T
    summary["failing"] = summary[list(SIGNALS)].mean(axis=1)
    summary[["queries", "searches"]] = summary[["queries", "searches"]].astype(int)
    return summary.sort_values("failing", ascending=False, kind="stable").rename_axis("topic")


class Panel(ipywidgets.VBox):
    """A box of widgets that prints a sentence on pages where widgets are not shown."""

    def __repr__(self) -> str:
        return "(buttons to accept and reject: run this notebook to see them)"


class Grade(BaseModel):
    """A person's verdict on one passage for a query: 2 answers it, 1 helps with it, 0 does not."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    query: Text
    doc: Text
    grade: Literal[0, 1, 2]
    comment: str | None = None


class Reviews:
    """A person's verdicts on (query, passage), one JSON line each in a file; the last one on a pair counts.

    ``accept`` and ``reject`` write at once; ``widget`` offers the same as buttons; ``as_qrels`` turns them into labels.
    """

    def __init__(self, file: Path):
        self.file = Path(file)

    def _write(self, query: str, doc: str, grade: int, comment: str) -> None:
        row = {"query": query, "doc": doc, "grade": grade, "comment": comment}
        before = read_text(self.file).rstrip() if self.file.is_file() else ""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkbookError(
                f"Cannot create {self.file.parent} ({error.strerror}): name a folder of yours."
            ) from error
        write_text(self.file, f"{before}\n{json.dumps(row, ensure_ascii=False)}\n".lstrip())

    def accept(self, query: str, doc: str, comment: str = "", grade: int = 2) -> None:
        """Note that the passage answers the query (grade 2), or helps with it (1)."""
        if grade not in (1, 2):
            raise WorkbookError(f"A passage is accepted with grade 1 or 2, not {grade!r}: reject gives 0.")
        self._write(query, doc, int(grade), comment)

    def reject(self, query: str, doc: str, comment: str = "") -> None:
        """Note that the passage does not answer the query (grade 0)."""
        self._write(query, doc, 0, comment)

    def read(self) -> pd.DataFrame:
        """The verdicts that count: columns query, doc, grade, comment."""
        rows = read_rows(self.file, Grade).values() if self.file.is_file() else []
        table = pd.DataFrame(
            [(v.query, v.doc, v.grade, v.comment or "") for v in rows], columns=list(Grade.model_fields)
        )
        return table.drop_duplicates(["query", "doc"], keep="last").reset_index(drop=True)

    def as_qrels(self) -> dict[str, dict[str, int]]:
        """{query text: {doc: grade}}: labels for evaluation and training."""
        table = self.read()
        return {
            q: dict(zip(rows["doc"], map(int, rows["grade"]), strict=True))
            for q, rows in table.groupby("query", sort=False)
        }

    def widget(self, queue: pd.DataFrame, corpus: Mapping[str, str], k: int = 3) -> Panel:
        """Buttons to accept or reject, with a comment, the first k passages of each query.

        Tab moves on, Space presses a button. Verdicts that the file has already are shown, and may be changed.
        """
        known = {(row.query, row.doc): row for row in self.read().itertuples()}
        boxes = []
        for query, docs in zip(queue["query"], queue["doc_ids"], strict=True):
            lines = [self._pair(query, doc, corpus.get(doc, GONE), known.get((query, doc))) for doc in docs[:k]]
            boxes.append(ipywidgets.VBox([ipywidgets.HTML(f"<b>{escape(query)}</b>"), *lines]))
        return Panel(boxes)

    def _pair(self, query: str, doc: str, text: str, known: Any) -> ipywidgets.HBox:
        comment = ipywidgets.Text(known.comment if known else "", placeholder="comment", layout={"width": "12em"})
        done = ipywidgets.Label("" if known is None else "accepted" if known.grade else "rejected")
        accept, reject = (ipywidgets.Button(description=word, layout={"width": "5em"}) for word in ("accept", "reject"))

        def press(button: ipywidgets.Button) -> None:
            try:
                (self.accept if button is accept else self.reject)(query, doc, comment.value)
                done.value = f"{button.description}ed"
            except WorkbookError as error:
                done.value = str(error)

        accept.on_click(press)
        reject.on_click(press)
        line = normalise(text)  # as HTML, since a label would set what stands between two $ as a formula
        passage = ipywidgets.HTML(escape(line[:SHOWN]), tooltip=line, layout={"width": "48em"})
        return ipywidgets.HBox([accept, reject, comment, passage, done])
