"""Where the homework's queries and labels come from: what to train on, to choose by and to test with."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from helpers.collection.collection import Collection
from helpers.collection.repeats import Repeats
from helpers.collection.text import normalise
from helpers.evaluation.measures import Qrels
from helpers.labels.gates import GATES, check_questions
from helpers.labels.judging import as_qrels, calibrate, judge, with_zeros
from helpers.labels.questions import KINDS, Question, as_queries, generate_questions, shipped_questions, small_prompt
from helpers.labels.review import Reviews
from helpers.models.embed import Embedder
from helpers.models.llm import LLM, open_llm
from helpers.models.prompts import Prompt
from helpers.retrieval.first_stages import Retriever, Run
from helpers.store.files import WorkbookError, fingerprint
from helpers.store.stages import Stages
from helpers.training.splits import LIGHT_BELOW, split_by_passage
from helpers.training.triplets import build_triplets

# The most questions that are asked for; a small model takes about 0.7 s for each on two cores.
SMALL_LLM_QUESTIONS, LLM_QUESTIONS = (300, 800)
JUDGED_QUERIES, JUDGED_DEPTH = 25, 5  # what a judge is calibrated on
FEWEST_JUDGED = 10  # judged queries below which no judge can be calibrated
LABELLED_QUERIES = 400  # queries without judgments that a judge labels at most
MOST_OPENINGS = 1000
BODY = " (body)"  # after a doc id: its text without the heading, for training alone
# A heading: the first line, or what stands before the first colon, full stop, question or exclamation mark.
_OPENING = re.compile(r"^(?P<head>[^\n]{3,150}?)(?:\n+|[:.?!]\s+)(?P<body>\S.*)$", re.S)
Queries = dict[str, str]
Labels = dict[str, dict[str, int]]


@dataclass
class Tools:
    """What finding data needs: stages, a cached embedder, two retrievers over the documents, facts on the passages.

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
    """Questions for training, the ids of those that are also fit for evaluation, and who wrote them."""

    questions: list[Question]
    fit: set[str]
    writer: str


def make_questions(collection: Collection, tools: Tools) -> Pool:
    """The questions that are shipped with a collection, or else new ones by the LLM.

    For training, a question may copy words of its passage; for evaluation, it has to pass every gate of notebook 03.
    The pool is empty where no question could be written. Raises WorkbookError when a service that was set up fails.
    """
    known = [q for q in shipped_questions(collection) if q.doc in collection.corpus]
    if known and collection.qrels.get("dev"):  # none is needed for evaluation
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
        if not llm.small:  # a service that was set up is meant to be used
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
    """n questions as lists of their fields.

    ``groups`` (which spread them over the collection) and ``prompts`` (which are asked) are here for the stage's key.
    """
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
    """What to judge: the best ``depth`` passages of each retriever, taken in turns, so that none is favoured.

    A passage's score is minus its place.
    """
    runs = [retriever.retrieve(queries, depth) for retriever in retrievers]
    found: Run = {}
    for q in queries:
        turns = zip_longest(*(list(run.get(q, {}))[:depth] for run in runs))
        mixed = dict.fromkeys(doc for turn in turns for doc in turn if doc is not None)
        found[q] = {doc: -float(place) for place, doc in enumerate(mixed)}
    return found


def openings(corpus: Mapping[str, str], most: int = MOST_OPENINGS) -> tuple[Queries, Labels, dict[str, str]]:
    """Titles and headings as queries for the rest of their passages, which needs no LLM.

    A heading is a passage's first line, or what stands before its first colon or full stop: 2 to 20 words, before at
    least 8 more. Returns ({id: heading}, {id: {doc + BODY: 1}}, {doc + BODY: the passage without its heading}). Source:
    the inverse cloze task, Lee, Chang and Toutanova, ACL 2019.
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
        head = normalise(" ".join(parts[1:] if len(parts) > 1 else parts).strip("#*= "))  # without the document's name
        if not 2 <= len(head.split()) <= 20 or len(found["body"].split()) < 8 or head.lower() in seen:
            continue
        seen.add(head.lower())
        query = f"o-{fingerprint(doc)[:12]}"
        queries[query], positives[query], bodies[doc + BODY] = head, {doc + BODY: 1}, found["body"].strip()
    return queries, positives, bodies


@dataclass
class Labelled:
    """Labels for queries that had none, and what there is to say about them.

    trusted : whether a person or a trusted judge made them
    notices, rows : sentences for the reader, and rows of the report's table of sources
    """

    qrels: Labels
    trusted: bool = True
    notices: list[str] = field(default_factory=list)
    rows: list[tuple[str, int, str]] = field(default_factory=list)


def reviewed(collection: Collection, queries: Queries) -> Labels:
    """A person's verdicts (``reviews.jsonl``) on those of the queries that have any."""
    by_text = {normalise(text): docs for text, docs in Reviews(collection.build / "reviews.jsonl").as_qrels().items()}
    found = {q: by_text.get(normalise(text), {}) for q, text in queries.items()}
    found = {q: {d: g for d, g in docs.items() if d in collection.corpus} for q, docs in found.items()}
    return {q: docs for q, docs in found.items() if docs}


def label_unjudged(collection: Collection, tools: Tools) -> Labelled:
    """Labels for the queries that have none: a person's verdicts (``reviews.jsonl``), else those of an LLM judge.

    The judge is calibrated on judged queries (notebook 04), and not used if it does not agree with them. Where too few
    are judged to tell, its labels are used but not called trusted. The packaged small model is never asked.
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
            f"{len(rest):,} queries have no judgments and need labels: "
            f"{llm.name} is too small to judge them (notebook 04 measures it), "
            "so set OPENAI_API_KEY or OPENAI_BASE_URL, or judge the pairs in to_judge.csv."
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
            f"Too few queries are judged by a person to know how far {llm.name} can be trusted: "
            "judge the pairs in to_judge.csv."
        )


def _trusted(collection: Collection, llm: LLM, tools: Tools, found: Labelled) -> bool | None:
    """Whether the LLM agrees with judged queries; None where too few are judged to tell."""
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


MOST_DEV, MOST_TEST = 300, 1000  # queries that are scored; more take time and hardly narrow an interval
HALVE_DEV_FROM = 60  # dev queries from which on half of them become a test split where there is none
TEST_SHARE, DEV_SHARE = 0.3, 0.25
FEWEST_MADE = 10  # questions below which an evaluation on them is no rehearsal either


@dataclass
class Sources:
    """Queries and qrels to train on (``queries``, ``positives``), to choose by (``dev``) and to test with (``test``).

    made : (queries, qrels) of questions that may be added to the training, if dev says so
    judged : whether the test judgments come from people or from a judge that was found trustworthy
    clicks : whether most of the test judgments are clicks instead
    held_passages : what generated dev or test questions are about, with near-duplicates: nothing is trained on them
    dev_made : whether dev consists of generated questions
    judged_test : number of judged test queries, before some were drawn to be scored
    notices, rows : sentences for the reader, and (what, how many queries, from where) of each source
    """

    queries: dict[str, str] = field(default_factory=dict)
    positives: dict[str, dict[str, int]] = field(default_factory=dict)
    made: tuple[dict[str, str], dict[str, dict[str, int]]] = field(default_factory=lambda: ({}, {}))
    dev: dict[str, str] = field(default_factory=dict)
    dev_qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    test: dict[str, str] = field(default_factory=dict)
    test_qrels: dict[str, dict[str, int]] = field(default_factory=dict)
    judged: bool = True
    clicks: bool = False
    held_passages: set[str] = field(default_factory=set)
    dev_made: bool = False
    judged_test: int = 0
    notices: list[str] = field(default_factory=list)
    rows: list[tuple[str, int, str]] = field(default_factory=list)


def _sampled(qrels: Qrels, most: int) -> dict[str, dict[str, int]]:
    """At most ``most`` of the queries, chosen by a hash of their ids and left in their order."""
    chosen = set(sorted(qrels, key=lambda q: fingerprint("sample", q))[:most])
    return {q: dict(docs) for q, docs in qrels.items() if q in chosen}


def _answerable(qrels: Qrels) -> dict[str, dict[str, int]]:
    return {q: dict(docs) for q, docs in qrels.items() if any(grade > 0 for grade in docs.values())}


def _held_out(questions: Sequence[Question], share: float, corpus: Mapping[str, str], seed: int) -> set[str]:
    """Ids of the questions to hold out, split by passage; none where there is no clean split."""
    if len(questions) < 2:
        return set()
    pairs = build_triplets(corpus, *as_queries(questions), "in-batch")
    try:
        return {t.query_id for t in split_by_passage(pairs, share, seed, corpus)[1]}
    except WorkbookError:  # all of them are one group
        return set()


def find_sources(collection: Collection, tools: Tools) -> Sources:
    """Train, dev and test from what there is: judged splits first, then labels, then questions made from the passages.

    A part that cannot be had stays empty, which is no error. Questions are split by passage, near-duplicates counted as
    one passage. Test splits that came with the data are never trained on.
    """
    sources = Sources()
    verdicts = reviewed(collection, {q: collection.queries[q] for q in collection.clicked})
    judged = {s: {q: verdicts.get(q, docs) for q, docs in part.items()} for s, part in collection.qrels.items()}
    qrels = {split: _answerable(part) for split, part in judged.items()}
    if verdicts:
        sources.rows.append(("queries with clicks, judged by you", len(verdicts), "reviews.jsonl"))
    for split in ("train", "dev", "test"):
        if qrels.get(split):
            sources.rows.append((f"{split} queries with judgments", len(qrels[split]), "the collection"))
    labelled = label_unjudged(collection, tools)
    sources.notices += labelled.notices
    sources.rows += labelled.rows
    by_click = sum(q in collection.clicked and q not in verdicts for q in qrels.get("test", {}))
    sources.clicks = 2 * by_click > len(qrels.get("test", {}))
    sources.judged = (labelled.trusted or bool(qrels.get("test"))) and not sources.clicks
    for q, docs in _answerable(labelled.qrels).items():
        place = int(fingerprint("label split", q), 16) / 16**16
        split = "train" if collection.qrels.get("test") or place < 0.5 else "dev" if place < 0.7 else "test"
        qrels.setdefault(split, {}).setdefault(q, docs)
    sources.judged_test = len(qrels.get("test", {}))
    dev, test = _sampled(qrels.get("dev", {}), MOST_DEV), _sampled(qrels.get("test", {}), MOST_TEST)
    for split, drawn in (("dev", dev), ("test", test)):
        if len(drawn) < len(qrels.get(split, {})):
            of = f"{len(qrels[split]):,} {split} queries"
            sources.notices.append(f"{len(drawn):,} of the {of}, drawn by a hash of their ids, are scored.")
    if not test and len(dev) >= HALVE_DEV_FROM:
        test = {q: docs for q, docs in dev.items() if int(fingerprint("halve", q), 16) % 2}
        dev = {q: docs for q, docs in dev.items() if q not in test}
        sources.notices.append(
            f"There was no test split: {len(test)} of the dev queries, drawn by a hash of their ids, are kept for it."
        )
    train = qrels.get("train", {})
    texts = {q: collection.queries[q] for part in (train, dev, test) for q in part}
    if len(train) < LIGHT_BELOW:
        pool = make_questions(collection, tools)
        texts |= {q.id: q.text for q in pool.questions}
        dev, test = _with_made(pool, dev, test, collection, tools, sources)
    dev = _without_leaks(dev, {}, test, texts, tools.duplicates, sources, "dev")
    train = _without_leaks(train, dev, test, texts, tools.duplicates, sources)
    made = _without_leaks(sources.made[1], dev, test, texts, tools.duplicates, sources, "made")
    sources.made = {q: texts[q] for q in made}, made
    sources.queries, sources.positives = {q: texts[q] for q in train}, train
    sources.dev, sources.dev_qrels = {q: texts[q] for q in dev}, dev
    sources.test, sources.test_qrels = {q: texts[q] for q in test}, test
    if test and not dev:
        sources.notices.append("There are no dev queries, so nothing can be chosen: weights stay at a half.")
    return sources


def _with_made(
    pool: Pool, dev: dict, test: dict, collection: Collection, tools: Tools, sources: Sources
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """(dev, test), made of generated questions where the collection has none; the others become ``sources.made``."""
    enough = len(pool.fit) >= FEWEST_MADE
    twins = {doc: collection.corpus[tools.duplicates.get(doc, doc)] for doc in collection.corpus}
    held: set[str] = set()

    def hold_out(split: str, share: float, seed: int) -> dict[str, dict[str, int]]:
        out = _held_out([q for q in pool.questions if q.id not in held], share, twins, seed)
        held.update(out)
        groups = {twins[q.doc] for q in pool.questions if q.id in out}
        sources.held_passages |= {doc for doc, twin in twins.items() if twin in groups}
        part = as_queries([q for q in pool.questions if q.id in out & pool.fit])[1]
        if part:
            sources.rows.append((f"{split} questions", len(part), f"{pool.writer}; on passages of their own"))
        return part

    if not dev and not test:
        sources.judged = False
        if enough:
            test = hold_out("test", TEST_SHARE, 0)
    if not dev and enough:
        dev = hold_out("dev", DEV_SHARE, 1)
        sources.dev_made = True
        sources.notices.append(
            f"No dev query is judged: {len(dev)} synthetic questions ({pool.writer}) choose, "
            "except between words and vectors, for they share few words with their passages: "
            "the hybrid, half and half, goes to the test unchosen."
        )
    made = [q for q in pool.questions if q.id not in held]
    copies = sum(q.id not in pool.fit for q in made)
    if made or not sources.rows:
        sources.rows.append(
            (
                "train questions",
                len(made),
                pool.writer + (f"; {copies} of them repeat words of their passage" if copies else ""),
            )
        )
    sources.made = as_queries(made)
    return dev, test


def _without_leaks(
    train: Qrels,
    dev: Qrels,
    test: Qrels,
    texts: Mapping[str, str],
    duplicates: Mapping[str, str],
    sources: Sources,
    what: str = "train",
) -> dict[str, dict[str, int]]:
    """``train`` without queries that repeat one of dev or test, or are answered by a near-duplicate of their passages.

    What is left out is counted in ``sources.notices``. A passage that is itself an answer in both splits is no leak: it
    will be there to be found, and other people will ask for it.
    """
    repeats = Repeats([texts[q] for part in (dev, test) for q in part])
    own = {d for part in (dev, test) for docs in part.values() for d, g in docs.items() if g > 0}
    groups = {duplicates[d] for d in own if d in duplicates}
    asked_twice = {q for q in train if repeats(texts[q])}
    beside = {
        q
        for q, docs in train.items()
        if q not in asked_twice and any(g > 0 and d not in own and duplicates.get(d) in groups for d, g in docs.items())
    }
    if asked_twice:
        sources.notices.append(
            f"Left out of the {what} queries, since they repeat one that is held out: {len(asked_twice)}."
        )
    if beside:
        sources.notices.append(
            f"Left out of the {what} queries, since a near-duplicate of a held-out passage answers them: {len(beside)}."
        )
    return {q: dict(docs) for q, docs in train.items() if q not in asked_twice | beside}


def measured_collection(collection: Collection, sources: Sources) -> Collection:
    """The collection with the splits that are scored.

    It is the collection itself where these are its own, so that its scoreboard continues.
    """
    own = {split: _answerable(collection.qrels.get(split, {})) for split in ("dev", "test")}
    if (own["dev"], own["test"]) == (sources.dev_qrels, sources.test_qrels):
        return collection
    qrels = {"dev": sources.dev_qrels, "test": sources.test_qrels}
    queries = collection.queries | sources.dev | sources.test
    return replace(collection, queries=queries, qrels={split: part for split, part in qrels.items() if part})
