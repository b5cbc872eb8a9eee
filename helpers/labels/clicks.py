"""Clicks: traffic simulated by a published model, and what clicks teach once position bias is taken out.

The model is position-based: P(click on a passage of grade g at rank r) = examination(r) · attraction(g), the chance
that a person looks there times the chance that what they see attracts them.

Sources: Richardson, Dominowska and Ragno, Predicting Clicks, WWW 2007; Craswell, Zoeter, Taylor and Ramsey, An
Experimental Comparison of Click Position-Bias Models, WSDM 2008; Joachims, Swaminathan and Schnabel, Unbiased
Learning-to-Rank with Biased Feedback, WSDM 2017, for the simulation and the correction. The other events have no
published model: their constants below are assumptions, chosen to be plausible.

``searches`` and ``events`` are what ``SearchLog.searches()`` and ``.events()`` give, or lists of such rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from helpers.labels.search_log import EVENTS, as_utc
from helpers.retrieval.first_stages import top_k
from helpers.store.files import WorkbookError, fingerprint

Rows = pd.DataFrame | Sequence[Mapping]
SHUFFLED = " (shuffled)"  # ends the system name of searches whose results were shown in random order
DAYS = 28
# Chances in the simulation; gain = (2^grade − 1) / (2^highest grade − 1), between 0 and 1.
REFORMULATED = {"no relevant passage": 0.5, "no click": 0.35, "clicked": 0.08}  # a search: is it worded again?
CITED_AMONG, CITED_AT_MOST = 5, 2  # the answer cites the first two of the top five that pass the chance below
CITED = (0.05, 0.75)  # first + second · gain
COPIED = (0.02, 0.28)  # of a clicked passage: first + second · gain
THUMBS_UP = 0.04  # · the best gain in the top five
THUMBS_DOWN = 0.03  # · (1 − the best gain in the top five)


def examination(rank: np.ndarray | int, eta: float = 1.0) -> np.ndarray:
    """The chance that a person looks at a rank (1, 2, …): (1/rank)^eta; eta = 0 is no position bias."""
    return (1.0 / np.asarray(rank, dtype=float)) ** eta


def gain(grade: np.ndarray | int, highest: int) -> np.ndarray:
    """(2^grade − 1) / (2^highest − 1): 0 for grade 0, 1 for the highest grade."""
    return (2.0 ** np.maximum(grade, 0) - 1) / (2.0**highest - 1)


def attraction(grade: np.ndarray | int, highest: int, noise: float = 0.1) -> np.ndarray:
    """The chance of a click on what is looked at: ``noise`` at grade 0, 1 at the highest grade."""
    return noise + (1 - noise) * gain(grade, highest)


def simulate(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    *,
    searches: int,
    seed: int,
    k: int = 10,
    eta: float = 1.0,
    noise: float = 0.1,
    system: str,
    start: datetime | str,
    shuffled: float = 0.0,
    kinds: Iterable[str] | None = None,
) -> tuple[list[dict], list[dict]]:
    """Simulated searches and events as ``SearchLog.add`` takes them, marked with the source "simulated".

    Queries are drawn with a popularity that falls like 1/rank over a seeded order (Zipf), in sessions of one to three,
    over four weeks from ``start``. Each search shows the top ``k`` of ``run``; a share ``shuffled`` of them shows it in
    random order, with " (shuffled)" after the system's name. A query without a relevant passage in ``qrels`` gets
    clicks by noise only.

    ``kinds`` are the events to return, by default all; the choice does not change what happens. The ids come from the
    arguments, so the same call gives the same rows.
    """
    kinds = tuple(EVENTS if kinds is None else kinds)
    _check(queries, run, searches, k, noise, shuffled, kinds)
    rng, start = np.random.default_rng(seed), as_utc(start)
    ids = list(queries)
    top = [list(top_k(list(run[q]), list(run[q].values()), k)) for q in ids]
    highest = max([1, *(grade for docs in qrels.values() for grade in docs.values())])
    grades = np.full((len(ids), k), -1)  # −1: nothing is shown there
    for i, q in enumerate(ids):
        grades[i, : len(top[i])] = [max(0, qrels.get(q, {}).get(doc, 0)) for doc in top[i]]
    answerable = np.array([any(grade > 0 for grade in qrels.get(q, {}).values()) for q in ids])

    popularity = 1 / np.arange(1, len(ids) + 1)
    chosen = rng.permutation(len(ids))[rng.choice(len(ids), size=searches, p=popularity / popularity.sum())]
    session, seconds = _sessions(searches, rng)
    mixed = rng.random(searches) < shuffled
    sort_key = np.where(mixed[:, None], rng.random((searches, k)), np.arange(k) / k)
    # Shape (searches, k): which of the top k stands where.
    order = np.argsort(np.where(grades[chosen] < 0, 2.0, sort_key), axis=1)
    shown = np.take_along_axis(grades[chosen], order, axis=1)
    there, gains = shown >= 0, gain(shown, highest)

    clicked = there & (
        rng.random(shown.shape) < examination(np.arange(1, k + 1), eta) * attraction(shown, highest, noise)
    )
    copied = clicked & (rng.random(shown.shape) < COPIED[0] + COPIED[1] * gains)
    cited = there & (rng.random(shown.shape) < CITED[0] + CITED[1] * gains) & (np.arange(k) < CITED_AMONG)
    cited &= np.cumsum(cited, axis=1) <= CITED_AT_MOST
    best, thumbs = gains[:, :CITED_AMONG].max(axis=1), rng.random(searches)
    up = thumbs < THUMBS_UP * best
    down = ~up & (thumbs < THUMBS_UP * best + THUMBS_DOWN * (1 - best))
    again = np.where(clicked.any(axis=1), REFORMULATED["clicked"], REFORMULATED["no click"])
    again = np.where(answerable[chosen], again, REFORMULATED["no relevant passage"])
    reformulated = rng.random(searches) < again

    key = fingerprint(
        dict(queries),
        {q: {d: int(g) for d, g in qrels.get(q, {}).items()} for q in ids},
        [[(d, float(s)) for d, s in run[q].items()] for q in ids],
        searches,
        seed,
        k,
        eta,
        noise,
        system,
        start.isoformat(),
        shuffled,
    )
    search_rows, happened = [], []
    for i, (query, places) in enumerate(zip(chosen, order, strict=True)):
        docs = [top[query][place] for place in places[: len(top[query])]]
        search_rows.append(
            {
                "search_id": f"{key}{i:016x}",
                "time": start + timedelta(seconds=int(seconds[i])),
                "session": f"{key}s{session[i]:x}",
                "system": system + SHUFFLED if mixed[i] else system,
                "query": queries[ids[query]],
                "doc_ids": docs,
                "scores": [float(run[ids[query]][doc]) for doc in docs],
                "source": "simulated",
            }
        )
    # Events on a passage come ``delay`` seconds after the search; clicks and copies two later for each rank above it.
    for kind, cells, delay in (("cited", cited, 1), ("clicked", clicked, 3), ("copied", copied, 4)):
        for i, place in zip(*np.nonzero(cells), strict=True):
            later = timedelta(seconds=delay + (0 if kind == "cited" else 2 * int(place)))
            happened.append((i, later, kind, search_rows[i]["doc_ids"][place]))
    for kind, rows, delay in (("thumbs_up", up, 50), ("thumbs_down", down, 50), ("reformulated", reformulated, 55)):
        happened += [(i, timedelta(seconds=delay), kind, None) for i in np.nonzero(rows)[0]]
    happened.sort(key=lambda event: (event[0], event[1]))
    return search_rows, [
        {
            "search_id": search_rows[i]["search_id"],
            "time": search_rows[i]["time"] + later,
            "kind": kind,
            "doc_id": doc,
            "detail": None,
        }
        for i, later, kind, doc in happened
        if kind in kinds
    ]


def _check(queries: Mapping, run: Mapping, searches: int, k: int, noise: float, shuffled: float, kinds: tuple) -> None:
    if not queries:
        raise WorkbookError("There are no queries to simulate traffic with: pass {query_id: text}.")
    if missing := next((q for q in queries if q not in run), None):
        raise WorkbookError(
            f"The run has no results for query {missing!r}: retrieve all the queries that are simulated."
        )
    if searches < 1 or k < 1:
        raise WorkbookError(f"A simulation has at least one search and one result, not {searches} and {k}.")
    for name, value in (("noise", noise), ("shuffled", shuffled)):
        if not 0 <= value <= 1:
            raise WorkbookError(f"{name} is a share between 0 and 1, not {value}.")
    if wrong := set(kinds) - set(EVENTS):
        raise WorkbookError(f"There is no event {min(wrong)!r}: use {', '.join(EVENTS)}.")


def _sessions(searches: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For each search the number of its session and the seconds from the start.

    60 to 180 seconds lie between two searches of a session.
    """
    sizes = rng.integers(1, 4, size=searches)
    session = np.repeat(np.arange(searches), sizes)[:searches]
    begins = np.sort(rng.integers(0, DAYS * 86_400 - 600, size=session[-1] + 1))
    gaps = rng.integers(60, 181, size=searches)
    passed = np.cumsum(gaps)
    first = np.flatnonzero(np.diff(session, prepend=-1))
    return session, begins[session] + passed - passed[first][session]


def _shown(searches: Rows, events: Rows) -> pd.DataFrame:
    """One row per passage shown, with columns search_id, query, doc_id, rank, shown, shuffled and clicked.

    ``rank`` counts from 1; ``shown`` is the number of passages that the search showed.
    """
    searches = pd.DataFrame(searches, columns=None if len(searches) else ["search_id", "query", "system", "doc_ids"])
    events = pd.DataFrame(events, columns=None if len(events) else ["search_id", "kind", "doc_id"])
    sizes = searches["doc_ids"].map(len).to_numpy(dtype=int)
    row = np.repeat(np.arange(len(searches)), sizes)
    table = searches[["search_id", "query"]].iloc[row].reset_index(drop=True)
    table["doc_id"] = [doc for docs in searches["doc_ids"] for doc in docs]
    table["rank"] = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    table["shown"] = sizes[row]
    table["shuffled"] = searches["system"].astype(str).str.endswith(SHUFFLED).to_numpy(dtype=bool)[row]
    clicks = events.loc[events["kind"] == "clicked", ["search_id", "doc_id"]]
    pairs = set(zip(clicks["search_id"], clicks["doc_id"], strict=True))
    table["clicked"] = [pair in pairs for pair in zip(table["search_id"], table["doc_id"], strict=True)]
    return table


def _rates(table: pd.DataFrame, weight: pd.Series) -> pd.DataFrame:
    table = table.assign(weight=weight.where(table["clicked"], 0.0))
    rates = table.groupby(["query", "doc_id"], as_index=False).agg(
        impressions=("rank", "size"), clicks=("clicked", "sum"), rate=("weight", "mean"), mean_rank=("rank", "mean")
    )
    return rates.astype({"impressions": int, "clicks": int, "rate": float, "mean_rank": float})


def click_rates(searches: Rows, events: Rows) -> pd.DataFrame:
    """Raw click rates, one row per query (its text) and passage shown for it.

    Columns: query, doc_id, impressions, clicks (searches with at least one click on it), rate = clicks / impressions,
    mean_rank.
    """
    table = _shown(searches, events)
    return _rates(table, pd.Series(1.0, index=table.index))


def estimate_examination(searches: Rows, events: Rows, k: int) -> dict[int, float]:
    """{rank: chance to be looked at, relative to rank 1} for ranks 1 to k, from searches shown in random order.

    In random order every rank holds equally good passages on average, so click rates differ by examination alone. Only
    shuffled searches with at least k results count. Raises WorkbookError when there are none, or no click at rank 1.
    Source: Joachims, Swaminathan and Schnabel, WSDM 2017, section 5.
    """
    table = _shown(searches, events)
    table = table[table["shuffled"] & (table["shown"] >= k)]
    if table.empty:
        raise WorkbookError(
            f"No shuffled search shows {k} results: show a small share of searches in random order, "
            f"with {SHUFFLED!r} after the system's name."
        )
    rates = table[table["rank"] <= k].groupby("rank")["clicked"].mean()
    if not rates[1]:
        raise WorkbookError(
            "No shuffled search has a click at rank 1: collect more of them before estimating examination."
        )
    return {int(rank): float(rate / rates[1]) for rank, rate in rates.items()}


def inverse_propensity(
    searches: Rows, events: Rows, examination: Mapping[int, float], clip: float = 10
) -> pd.DataFrame:
    """Click rates without position bias, with the columns of ``click_rates``.

    The rate is the sum of 1 / examination(rank) over the clicks, divided by the impressions: an unbiased estimate of
    attraction if the examination is right, which can exceed 1 by chance. A weight above ``clip`` is cut to it. One
    click far down then counts for less than it should (a bias towards 0 there), but no longer decides a label alone
    (less variance). Ranks that ``examination`` does not have are left out.

    Source: Joachims, Swaminathan and Schnabel, WSDM 2017.
    """
    if not examination or clip <= 0 or any(value < 0 for value in examination.values()):
        raise WorkbookError(
            "Correction needs {rank: examination}, none below 0, and a clip above 0: see estimate_examination."
        )
    weights = {rank: min(clip, 1 / value) if value else clip for rank, value in examination.items()}
    table = _shown(searches, events)
    table = table[table["rank"].isin(weights)]
    return _rates(table, table["rank"].map(weights).astype(float))


def labels_from_clicks(
    rates: pd.DataFrame, *, least: float = 0.3, strong: float = 0.7, min_impressions: int = 3
) -> dict[str, dict[str, int]]:
    """Qrels {query text: {doc_id: grade}}: grade 1 from a rate of ``least`` on, 2 from ``strong`` on.

    ``rates`` come from ``inverse_propensity`` (or from ``click_rates``, to see how those mislead). Passages with fewer
    than ``min_impressions`` get no grade, and neither do those that are rarely clicked: they may be relevant and
    unseen.
    """
    if not 0 < least <= strong:
        raise WorkbookError(f"Thresholds rise from above 0: least = {least} and strong = {strong} do not.")
    labels: dict[str, dict[str, int]] = {}
    enough = rates[(rates["impressions"] >= min_impressions) & (rates["rate"] >= least)]
    for query, doc, rate in zip(enough["query"], enough["doc_id"], enough["rate"], strict=True):
        labels.setdefault(query, {})[doc] = 2 if rate >= strong else 1
    return labels
