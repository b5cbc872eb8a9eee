"""What to train on, what to choose by and what to test with, by what a collection has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from helpers.collection import Collection
from helpers.evaluation import Qrels
from helpers.pools import Pool, Tools, label_unjudged, make_questions, reviewed
from helpers.questions import Question, as_queries
from helpers.repeats import Repeats
from helpers.splits import LIGHT_BELOW, split_by_passage
from helpers.store import WorkbookError, fingerprint
from helpers.triplets import build_triplets

MOST_DEV, MOST_TEST = 300, 1000  # queries that are scored; more take time and hardly narrow an interval
HALVE_DEV_FROM = 60  # dev queries from which on half of them become a test split where there is none
TEST_SHARE, DEV_SHARE = 0.3, 0.25
FEWEST_MADE = 10  # questions below which an evaluation on them is no rehearsal either


@dataclass
class Sources:
    """Queries and qrels of what is trained on, chosen by and tested with, and what is known of them.

    ``made`` are questions that may be added to the training, if dev says so. ``judged``: whether the test judgments come from people
    or a judge that was found trustworthy; ``clicks``: whether most of them are clicks instead. ``held_passages`` are
    the passages that made dev or test questions are about, and their near-duplicates: nothing is trained on them.
    ``dev_made``: dev consists of questions that were made. ``judged_test`` counts the test queries before some were
    drawn to be scored. ``rows`` say in a table what each source gave: (what, how many queries, from where).
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
    """At most so many queries, chosen by a hash of their ids, in their order."""
    chosen = set(sorted(qrels, key=lambda q: fingerprint("sample", q))[:most])
    return {q: dict(docs) for q, docs in qrels.items() if q in chosen}


def _answerable(qrels: Qrels) -> dict[str, dict[str, int]]:
    return {q: dict(docs) for q, docs in qrels.items() if any(grade > 0 for grade in docs.values())}


def _held_out(questions: Sequence[Question], share: float, corpus: Mapping[str, str], seed: int) -> set[str]:
    """Ids of the questions to hold out, by passage; none where no clean cut exists."""
    if len(questions) < 2:
        return set()
    pairs = build_triplets(corpus, *as_queries(questions), "in-batch")
    try:
        return {t.query_id for t in split_by_passage(pairs, share, seed, corpus)[1]}
    except WorkbookError:  # all hang together
        return set()


def find_sources(collection: Collection, tools: Tools) -> Sources:
    """Train, dev and test by what is there: judged splits first, then labels, then questions made from the passages; never an error.

    Questions are split by passage, near-duplicates counted as one passage. Test splits that came with the data are never trained on.
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
    """(dev, test), made of questions where the collection has none; the rest of the questions becomes ``sources.made``."""
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
            f"No dev query is judged: {len(dev)} synthetic questions ({pool.writer}) choose, except between words and vectors, "
            "for they share few words with their passages: the hybrid, half and half, goes to the test unchosen."
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
    train: Qrels, dev: Qrels, test: Qrels, texts: Mapping[str, str], duplicates: Mapping[str, str], sources: Sources, what: str = "train"
) -> dict[str, dict[str, int]]:  # fmt: skip
    """The train queries that are no dev or test query in other clothes, and whose passages are no near-duplicate of one held out.

    A passage that both splits name is no leak: it will be there to be found, and other people will ask for it.
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
    """The collection with the splits that are scored; itself where these are its own, so that its scoreboard goes on."""
    own = {split: _answerable(collection.qrels.get(split, {})) for split in ("dev", "test")}
    if (own["dev"], own["test"]) == (sources.dev_qrels, sources.test_qrels):
        return collection
    qrels = {"dev": sources.dev_qrels, "test": sources.test_qrels}
    queries = collection.queries | sources.dev | sources.test
    return replace(collection, queries=queries, qrels={split: part for split, part in qrels.items() if part})
