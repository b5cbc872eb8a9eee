"""Where training data can come from: questions that a language model writes, labels that it gives, headings and their passages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from helpers.collection import Collection
from helpers.embedding import Embedder
from helpers.evaluation import Qrels
from helpers.examples import same
from helpers.gates import GATES, check_questions
from helpers.labels import as_qrels, calibrate, judge, with_zeros
from helpers.llm import LLM, open_llm
from helpers.prompts import Prompt
from helpers.questions import KINDS, Question, generate_questions, shipped_questions, small_prompt
from helpers.retrievers import Retriever, Run
from helpers.review import Reviews
from helpers.stages import Stages
from helpers.store import WorkbookError, fingerprint

SMALL_LLM_QUESTIONS, LLM_QUESTIONS = (
    300,
    800,
)  # asked for at most; a small model takes about 0.7 s for each on two cores
JUDGED_QUERIES, JUDGED_DEPTH = 25, 5  # what a judge is calibrated on
FEWEST_JUDGED = 10  # judged queries below which no judge can be calibrated
LABELLED_QUERIES = 400  # queries without judgments that a judge labels at most
MOST_OPENINGS = 1000
BODY = " (body)"  # after a doc id: its text without the heading, for training alone
# The first line, or what stands before the first colon or full stop.
_OPENING = re.compile(r"^(?P<head>[^\n]{3,150}?)(?:\n+|[:.?!]\s+)(?P<body>\S.*)$", re.S)

Queries = dict[str, str]
Labels = dict[str, dict[str, int]]


@dataclass
class Tools:
    """What finding data needs: stages, a cached embedder, two indexed retrievers over documents, and how the passages hang together.

    pieces : {piece_id: text}, the passages as they are searched;  owner : {piece_id: doc_id} of those that were cut
    duplicates : {doc_id: the first id of its group} of near-duplicates;  questions : how many an LLM may be asked for
    """

    stages: Stages
    embedder: Embedder
    retrievers: Sequence[Retriever]
    pieces: Mapping[str, str]
    owner: Mapping[str, str] = field(default_factory=dict)
    duplicates: Mapping[str, str] = field(default_factory=dict)
    questions: int = SMALL_LLM_QUESTIONS


@dataclass
class Pool:
    """Questions for training, the ids of those that are fit for evaluation too, and who wrote them."""

    questions: list[Question]
    fit: set[str]
    writer: str


def make_questions(collection: Collection, tools: Tools) -> Pool:
    """Shipped questions, else new ones by the LLM.

    For training a question may copy words of its passage; for evaluation it has to pass every gate of notebook 03.
    """
    known = [q for q in shipped_questions(collection) if q.doc in collection.corpus]
    if known and collection.qrels.get("dev"):  # none will be evaluated with
        return Pool(known, {q.id for q in known}, "questions that are there already")
    if known:
        return _gated(known, collection, tools, "questions that are there already")
    if tools.questions < 1:
        return Pool([], set(), "no language model was asked")
    llm = open_llm(collection.build)
    most = SMALL_LLM_QUESTIONS if llm.small else LLM_QUESTIONS
    n = min(tools.questions, most, max(60, 2 * len(tools.pieces)))
    searched = replace(collection, corpus=dict(tools.pieces), pages=collection.pages if not tools.owner else {})
    try:
        prompts = [small_prompt(searched, kind) for kind in KINDS] if llm.small else [Prompt("questions")]
        tell = lambda made: f"{len(made)} written by {llm.name}"  # noqa: E731
        rows = tools.stages.run("questions", _written, searched, searched.groups(), llm, prompts, n, tell=tell)
    except WorkbookError as error:
        if not llm.small:  # a service that was set is meant to be used
            raise
        return Pool([], set(), f"no questions could be written ({error})")
    questions = [Question(*row) for row in rows]
    questions = [q._replace(doc=tools.owner.get(q.doc, q.doc)) for q in questions]
    if not questions:
        return Pool([], set(), f"{llm.name} wrote none")
    return _gated(questions, collection, tools, llm.name)


def _written(
    searched: Collection, groups: Mapping[str, str], llm: LLM, prompts: Sequence[Prompt], n: int
) -> list[list[str]]:
    """The questions; ``groups`` spread them over the collection, and ``prompts`` are what is asked with."""
    return [[*q] for q in generate_questions(searched, llm, n)]


def _checked(
    questions: Sequence[Question], collection: Collection, retrievers: Sequence[Retriever], embedder: Embedder
) -> list[list[str]]:
    """(ids of the questions that are usable for training, ids of those that are fit for evaluation too)."""
    table = check_questions(questions, collection, retrievers, embedder)
    fit = table[list(GATES)].all(axis=1).tolist()
    usable = table[[gate for gate in GATES if gate != "no copy"]].all(axis=1).tolist()
    return [[q.id for q, good in zip(questions, flags, strict=True) if good] for flags in (usable, fit)]


def _gated(questions: Sequence[Question], collection: Collection, tools: Tools, writer: str) -> Pool:
    tell = lambda made: f"{len(made[0])} of {len(questions)} usable"  # noqa: E731
    usable, fit = tools.stages.run(
        "gates", _checked, questions, collection, tools.retrievers, tools.embedder, tell=tell
    )
    return Pool([q for q in questions if q.id in set(usable)], set(fit), writer)


def pooled(retrievers: Sequence[Retriever], queries: Mapping[str, str], depth: int) -> Run:
    """What to judge: the best ``depth`` of each retriever, taken in turns, so that none is favoured; scores are minus the place."""
    runs = [retriever.retrieve(queries, depth) for retriever in retrievers]
    found: Run = {}
    for q in queries:
        turns = zip_longest(*(list(run.get(q, {}))[:depth] for run in runs))
        mixed = dict.fromkeys(doc for turn in turns for doc in turn if doc is not None)
        found[q] = {doc: -float(place) for place, doc in enumerate(mixed)}
    return found


def openings(corpus: Mapping[str, str], most: int = MOST_OPENINGS) -> tuple[Queries, Labels, dict[str, str]]:
    """Titles and headings as queries: ({id: heading}, {id: {doc + BODY: 1}}, {doc + BODY: the passage without its heading}).

    A heading is a passage's first line or what stands before its first colon or full stop, 2 to 20 words, before at least 8 more. Learning
    to find the rest of a passage by its beginning needs no LLM: the inverse cloze task (Lee, Chang and Toutanova, ACL 2019).
    """
    queries: Queries = {}
    positives: Labels = {}
    bodies: dict[str, str] = {}
    seen: set[str] = set()
    for doc in sorted(corpus, key=lambda d: fingerprint("opening", d)):
        found = _OPENING.match(corpus[doc].strip())
        if len(queries) == most or not found:
            continue
        parts = found["head"].split(" › ")
        head = same(" ".join(parts[1:] if len(parts) > 1 else parts).strip("#*= "))  # without the document's name
        if not 2 <= len(head.split()) <= 20 or len(found["body"].split()) < 8 or head.lower() in seen:
            continue
        seen.add(head.lower())
        query = f"o-{fingerprint(doc)[:12]}"
        queries[query], positives[query], bodies[doc + BODY] = head, {doc + BODY: 1}, found["body"].strip()
    return queries, positives, bodies


@dataclass
class Labelled:
    """Qrels for queries that had none; whether a person or a trusted judge made them; what to say, and rows for the report."""

    qrels: Labels
    trusted: bool = True
    notices: list[str] = field(default_factory=list)
    rows: list[tuple[str, int, str]] = field(default_factory=list)


def reviewed(collection: Collection, queries: Queries) -> Labels:
    """A person's verdicts (``reviews.jsonl``) on those of the queries that have some."""
    by_text = {same(text): docs for text, docs in Reviews(collection.build / "reviews.jsonl").as_qrels().items()}
    found = {q: by_text.get(same(text), {}) for q, text in queries.items()}
    found = {q: {d: g for d, g in docs.items() if d in collection.corpus} for q, docs in found.items()}
    return {q: docs for q, docs in found.items() if docs}


def label_unjudged(collection: Collection, tools: Tools) -> Labelled:
    """Qrels for queries that have none: a person's verdicts (``reviews.jsonl``, notebook 04), then the LLM ranker if it can be trusted.

    The judge is calibrated on judged queries. Where too few are judged to do so, an endpoint's labels are used and not called trusted;
    the packaged small model is never asked.
    """
    judged = {q for qrels in collection.qrels.values() for q in qrels}
    unjudged = {q: text for q, text in collection.queries.items() if q not in judged}
    found = Labelled({})
    if not unjudged:
        return found
    found.qrels = reviewed(collection, unjudged)
    rest = {q: text for q, text in unjudged.items() if q not in found.qrels}
    if found.qrels:
        found.rows.append(("queries judged by you", len(found.qrels), "reviews.jsonl"))
    llm = open_llm(collection.build)
    if rest and llm.small:
        found.notices.append(
            f"{len(rest):,} queries have no judgments and need labels: {llm.name} is too small to judge them (notebook 04 measures it), so set "
            "OPENAI_API_KEY or OPENAI_BASE_URL, or judge the pairs in to_judge.csv."
        )
    elif rest:
        _by_judge(collection, llm, rest, tools, found)
    return found


def _by_judge(collection: Collection, llm: LLM, rest: Queries, tools: Tools, found: Labelled) -> None:
    trusted = _trusted(collection, llm, tools, found)
    if trusted is False:
        found.notices.append(
            f"{len(rest):,} queries have no judgments and need labels: judge the pairs in to_judge.csv."
        )
        return
    chosen = {q: rest[q] for q in sorted(rest, key=lambda q: fingerprint("label", q))[:LABELLED_QUERIES]}
    run = pooled(tools.retrievers, chosen, JUDGED_DEPTH)
    labels = as_qrels(judge(llm, chosen, run, collection.corpus, 2 * JUDGED_DEPTH))
    labels = {q: docs for q, docs in labels.items() if any(docs.values())}
    found.rows.append((f"queries labelled by {llm.name}", len(labels), "calibrated" if trusted else "not calibrated"))
    found.qrels |= labels
    if trusted is None:
        found.trusted = False
        found.notices.append(
            f"Too few queries are judged by a person to know how far {llm.name} can be trusted: judge the pairs in to_judge.csv."
        )


def _trusted(collection: Collection, llm: LLM, tools: Tools, found: Labelled) -> bool | None:
    """Whether the judge agrees with judged queries; None where too few are judged to tell."""
    qrels: Qrels = collection.qrels.get("dev") or collection.qrels.get("train") or found.qrels
    if len(qrels) < FEWEST_JUDGED:
        return None
    some = {q: qrels[q] for q in sorted(qrels, key=lambda q: fingerprint("calibrate", q))[:JUDGED_QUERIES]}
    texts = {q: collection.queries[q] for q in some}
    run = pooled(tools.retrievers, texts, JUDGED_DEPTH)
    known = with_zeros(some, run)
    judged = judge(llm, texts, run, collection.corpus, 2 * JUDGED_DEPTH)
    if not any(d in known.get(q, {}) for q, d in zip(judged["query"], judged["doc"], strict=True)):
        return None
    result = calibrate(judged, known)
    found.notices.append(f"{llm.name} as a judge: {result.verdict} (kappa {result.kappa:.2f}, {result.pairs} pairs).")
    return result.verdict != "do not trust it"
