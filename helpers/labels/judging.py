"""The LLM ranker: graded relevance with a reason, and whether its grades can be trusted."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from scipy.stats import bootstrap
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.evaluation.measures import Qrels
from helpers.labels.questions import shown
from helpers.models.llm import LLM
from helpers.models.prompts import Prompt
from helpers.retrieval.first_stages import Run, top_k
from helpers.store.files import WorkbookError

GRADES = (0, 1, 2)
TRUSTED, USABLE = 0.6, 0.4  # of quadratic kappa: "substantial" and "moderate" agreement (Landis and Koch, 1977)
FOLDS = 5


class Judgment(BaseModel):
    """What a judge answers."""

    model_config = ConfigDict(extra="forbid")
    reason: str
    grade: Literal[0, 1, 2]


def pairs(run: Run, k: int) -> list[tuple[str, str]]:
    """(query, passage) for the first k of each query, queries in their order."""
    return [(q, d) for q, docs in run.items() for d in top_k(list(docs), list(docs.values()), k)]


def _wanted(run: Run, k: int, queries: Mapping[str, str], corpus: Mapping[str, str]) -> list[tuple[str, str]]:
    """The pairs of ``pairs``; raises WorkbookError when the text of one is missing."""
    wanted = pairs(run, k)
    for what, key, texts in [("query", q, queries) for q, _ in wanted] + [("passage", d, corpus) for _, d in wanted]:
        if key not in texts:
            raise WorkbookError(
                f"The run names the {what} {key!r}, which has no text here: "
                "judge with the queries and the corpus it was made from."
            )
    return wanted


def judge(llm: LLM, queries: Mapping[str, str], run: Run, corpus: Mapping[str, str], k: int = 5) -> pd.DataFrame:
    """Grade (0, 1, 2) and reason for the first k passages of each query: columns query, doc, grade, reason.

    The judge sees only the query and the passage: no system, rank, score or other passage. Pairs without a usable
    answer are missing from the table and counted in ``llm.counts``.
    """
    prompt = Prompt("judge_small" if llm.small else "judge")
    wanted = _wanted(run, k, queries, corpus)
    conversations = [prompt.fill(query=queries[q], passage=shown(corpus[d], llm.small)) for q, d in wanted]
    answers = llm.ask(conversations, Judgment)
    rows = [(q, d, a.grade, a.reason) for (q, d), a in zip(wanted, answers, strict=True) if a]
    return pd.DataFrame(rows, columns=["query", "doc", "grade", "reason"])


def query_likelihood(
    llm: LLM, queries: Mapping[str, str], run: Run, corpus: Mapping[str, str], k: int = 5
) -> pd.DataFrame:
    """How likely a small model finds each query after reading the passage: columns query, doc, score.

    The score is the query's mean log-probability per token given the passage, minus the same without a passage, so that
    frequent phrases gain nothing; higher is more relevant.

    Source: Ponte and Croft, SIGIR 1998; with a language model, Sachan et al., EMNLP 2022 (UPR).
    """
    prompt = Prompt("likelihood")
    wanted = _wanted(run, k, queries, corpus)
    asked = list(dict.fromkeys(q for q, _ in wanted))
    given = llm.log_likelihoods(
        [prompt.fill(passage=shown(corpus[d], True)) for _, d in wanted], [queries[q] for q, _ in wanted]
    )
    alone = llm.log_likelihoods([prompt.fill(passage="(none)")] * len(asked), [queries[q] for q in asked])
    base = dict(zip(asked, alone, strict=True))
    rows = [(q, d, value - base[q]) for (q, d), value in zip(wanted, given, strict=True)]
    return pd.DataFrame(rows, columns=["query", "doc", "score"])


def _kappa(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Quadratic kappa (Cohen, 1968) of grades 0, 1, 2; 0 if one of the two never varies: kappa says nothing then."""
    if min(len(np.unique(truth)), len(np.unique(predicted))) < 2:
        return 0.0
    return float(cohen_kappa_score(truth, predicted, labels=list(GRADES), weights="quadratic"))


def _within(grade: int) -> int:
    """The grade on our scale of 0 to 2; grades beyond its ends are cut to 2 and 0."""
    return int(min(GRADES[-1], max(GRADES[0], grade)))


def grade_by_thresholds(scores: Sequence[float], thresholds: tuple[float, float]) -> np.ndarray:
    """Grade 1 from the first threshold on, 2 from the second."""
    return np.digitize(np.asarray(scores, dtype=float), thresholds)


def choose_thresholds(scores: Sequence[float], grades: Sequence[int]) -> tuple[float, float]:
    """The thresholds of grades 1 and 2 with the best quadratic kappa to the grades.

    They are chosen among the 5 %, 10 %, … 100 % quantiles of the scores. Raises WorkbookError when the grades are all
    the same.
    """
    values, truth = np.asarray(scores, dtype=float), np.array([_within(grade) for grade in grades])
    if len(set(truth.tolist())) < 2:
        raise WorkbookError("Thresholds need pairs of different grades: judge more queries, of good and bad results.")
    steps = np.unique(np.quantile(values, np.linspace(0.05, 1, 20))).tolist()
    options = [(low, high) for i, low in enumerate(steps) for high in steps[i:]]
    return max(options, key=lambda pair: _kappa(truth, grade_by_thresholds(values, pair)))


def grades_from_scores(scored: pd.DataFrame, qrels: Qrels, seed: int = 0) -> pd.DataFrame:
    """The table query, doc, score with a column ``grade``, by thresholds chosen on *other* judged queries.

    The queries are cut into five folds, so that the grades may be compared with ``qrels`` afterwards. Queries without
    judgments get thresholds from all that have some; an unjudged pair of a judged query counts as 0, as in
    ``evaluate``. Raises WorkbookError with fewer than ten judged queries or a single grade: thresholds would be chance.
    """
    judged = scored["query"].map(lambda q: q in qrels)
    names = sorted(set(scored.loc[judged, "query"]))
    if len(names) < 2 * FOLDS:
        raise WorkbookError(
            f"Thresholds need at least {2 * FOLDS} judged queries, here are {len(names)}: judge more first."
        )
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[i]: int(position % FOLDS) for position, i in enumerate(order)}
    truth = np.array([qrels.get(q, {}).get(d, 0) for q, d in zip(scored["query"], scored["doc"], strict=True)])
    table = scored.assign(grade=0)
    own = scored["query"].map(lambda q: fold.get(q, -1)).to_numpy()
    for part in sorted(set(own)):
        others = (own != part) & judged.to_numpy()
        thresholds = choose_thresholds(scored["score"].to_numpy()[others], truth[others])
        table.loc[own == part, "grade"] = grade_by_thresholds(scored["score"].to_numpy()[own == part], thresholds)
    return table


def probabilities(scored: pd.DataFrame, judged: pd.DataFrame, qrels: Qrels) -> dict[tuple[str, str], float]:
    """{(query, doc): probability of a grade of 1 or more} from a judge's scores, by logistic regression.

    ``scored`` and ``judged`` have columns query, doc, score; ``judged`` are the pairs that ``qrels`` grades, on which
    the regression is fitted. Even a judge that cannot be trusted on a single pair gives a fair mean this way, as long
    as the traffic resembles the judged queries (Platt, 1999). The scale of the scores does not matter. Raises
    WorkbookError when the judged pairs are all relevant, or none is.
    """
    known = [
        (s, qrels[q][d] > 0)
        for q, d, s in judged[["query", "doc", "score"]].itertuples(index=False)
        if d in qrels.get(q, {})
    ]
    if len({relevant for _, relevant in known}) < 2:
        raise WorkbookError("The judged pairs are all relevant or all not: judge more queries, of both kinds.")
    if scored.empty:
        return {}
    values, relevant = zip(*known, strict=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.array(values)[:, None], relevant)
    chances = model.predict_proba(scored["score"].to_numpy(dtype=float)[:, None])[:, 1]
    return dict(zip(zip(scored["query"], scored["doc"], strict=True), chances.tolist(), strict=True))


class Calibration(NamedTuple):
    """A judge compared with the judged pairs; rows of ``confusion`` are the true grades, columns the judge's."""

    pairs: int
    confusion: pd.DataFrame
    kappa: float
    kappa_low: float
    kappa_high: float
    precision: float
    share_relevant: float
    verdict: str


def calibrate(judged: pd.DataFrame, qrels: Qrels, seed: int = 0) -> Calibration:
    """Compare a judge's grades with the judged pairs of the same queries; unjudged pairs are left out.

    ``kappa`` has quadratic weights and a 95 % bootstrap interval over *queries*. ``precision`` is the share of relevant
    pairs (grade 1 or more) among those that the judge calls relevant; ``share_relevant`` is what a judge who always
    says yes would get. The verdict rests on the interval's lower end: from 0.6 on the judge can be trusted, from 0.4 on
    it is usable beside a person, below that or with a single query, which has no interval, it is not to be trusted.

    Raises WorkbookError when none of the pairs is judged.
    """
    known = [
        (q, _within(g), _within(qrels[q][d]))
        for q, d, g in judged[["query", "doc", "grade"]].itertuples(index=False)
        if d in qrels.get(q, {})
    ]
    if not known:
        raise WorkbookError("None of these pairs is judged: calibrate on the queries of a judged split.")
    names, predicted, truth = (np.array(column) for column in zip(*known, strict=True))
    by_query = [np.flatnonzero(names == q) for q in dict.fromkeys(names.tolist())]

    def resampled(rows: np.ndarray) -> float:
        chosen = np.concatenate([by_query[i] for i in rows])
        return _kappa(truth[chosen], predicted[chosen])

    low = high = float("nan")
    if len(by_query) > 1:
        interval = bootstrap(
            (np.arange(len(by_query)),),
            resampled,
            vectorized=False,
            n_resamples=999,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    kappa, yes = _kappa(truth, predicted), predicted > 0
    matrix = pd.DataFrame(confusion_matrix(truth, predicted, labels=list(GRADES)), index=GRADES, columns=GRADES)
    sure = low if low == low else -1.0
    verdict = "trust it" if sure >= TRUSTED else "use it beside a person" if sure >= USABLE else "do not trust it"
    return Calibration(
        len(known),
        matrix.rename_axis(index="true grade", columns="judge says"),
        kappa,
        low,
        high,
        float((truth[yes] > 0).mean()) if yes.any() else float("nan"),
        float((truth > 0).mean()),
        verdict,
    )


def with_zeros(qrels: Qrels, run: Run) -> dict[str, dict[str, int]]:
    """The qrels, with grade 0 for all other passages of the run where the qrels name relevant passages only.

    Many test collections judge no passage as irrelevant. Counting the rest as 0 is the usual assumption, and too
    strict.
    """
    if any(grade == 0 for docs in qrels.values() for grade in docs.values()):
        return {q: dict(docs) for q, docs in qrels.items()}
    return {q: {**dict.fromkeys(run.get(q, {}), 0), **docs} for q, docs in qrels.items()}


def as_qrels(judged: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Judged pairs (columns query, doc, grade) as qrels."""
    qrels: dict[str, dict[str, int]] = {}
    for query, doc, grade in judged[["query", "doc", "grade"]].itertuples(index=False):
        qrels.setdefault(query, {})[doc] = int(grade)
    return qrels
