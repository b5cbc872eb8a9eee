"""Where the homework's queries and labels come from: what to train on, to choose by and to test with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from helpers.collection.collection import Collection
from helpers.collection.repeats import Repeats
from helpers.collection.text import normalise
from helpers.evaluation.measures import Qrels
from helpers.homework.chunks import Chunks
from helpers.homework.data import Data
from helpers.labels.gates import GATES, check_questions
from helpers.labels.judging import as_qrels, calibrate, judge, with_zeros
from helpers.labels.questions import (
    KINDS,
    Question,
    as_queries,
    generate_questions,
    shipped_questions,
    small_prompt,
    style_examples,
)
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
MOST_DEV, MOST_TEST = 300, 1000  # queries that are scored; more take time and hardly narrow an interval
HALVE_DEV_FROM = 60  # dev queries from which on half of them become a test split where there is none
TEST_SHARE, DEV_SHARE = 0.3, 0.25
FEWEST_MADE = 10  # questions below which an evaluation on them is no rehearsal either
FEW_DEV = 30  # dev queries below which weights of a fusion and sources of training data are not chosen by them

Queries = dict[str, str]
Labels = dict[str, dict[str, int]]
Row = tuple[str, int, str]  # what, how many queries, from where


@dataclass(frozen=True)
class Sources:
    """Queries and qrels to train on (``queries``, ``positives``), to choose by (``dev``) and to test with (``test``).

    collection : the collection with the splits that are scored
    made : (queries, qrels) of questions that may be added to the training, if dev says so
    judged : whether the test judgments come from people or from a judge that was found trustworthy
    clicks : whether most of the test judgments are clicks instead
    held_passages : what generated dev or test questions are about, with near-duplicates: nothing is trained on them
    dev_made : whether dev consists of generated questions. Those that share words with their passage were rejected when
        they were made, so they cannot weigh words against vectors.
    judged_test : number of judged test queries, before some were drawn to be scored
    unjudged : the queries that nobody has judged, which are not used either; those with clicks are among them
    notices, rows : sentences for the reader, and (what, how many queries, from where) of each source
    """

    collection: Collection
    queries: Queries = field(default_factory=dict)
    positives: Labels = field(default_factory=dict)
    made: tuple[Queries, Labels] = field(default_factory=lambda: ({}, {}))
    dev: Queries = field(default_factory=dict)
    dev_qrels: Labels = field(default_factory=dict)
    test: Queries = field(default_factory=dict)
    test_qrels: Labels = field(default_factory=dict)
    judged: bool = True
    clicks: bool = False
    held_passages: frozenset[str] = frozenset()
    dev_made: bool = False
    judged_test: int = 0
    unjudged: Queries = field(default_factory=dict)
    notices: Sequence[str] = ()
    rows: Sequence[Row] = ()

    @property
    def final(self) -> str | None:
        """The split that decides: test, or dev where there is no test; None where no query is judged."""
        return "test" if self.test else "dev" if self.dev else None


# Questions made from the passages


@dataclass(frozen=True)
class Pool:
    """Questions for training, the ids of those that are also fit for evaluation, and who wrote them."""

    questions: list[Question]
    fit: set[str]
    writer: str


def make_questions(collection: Collection, chunks: Chunks, stages: Stages, most: int) -> Pool:
    """The questions that are shipped with a collection, or else new ones by the LLM, at most ``most``.

    For training, a question may copy words of its passage; for evaluation, it has to pass every gate of notebook 03.
    The pool is empty where no question could be written. Raises WorkbookError when a service that was set up fails.
    """
    known = [q for q in shipped_questions(collection) if q.doc in collection.corpus]
    if known and collection.qrels.get("dev"):  # none is needed for evaluation
        return Pool(known, {q.id for q in known}, "questions that are there already")
    if known:
        return _gated(known, collection, chunks, stages, "questions that are there already")
    if most < 1:
        return Pool([], set(), "no language model was asked")
    llm = open_llm(collection.build)
    n = min(most, SMALL_LLM_QUESTIONS if llm.small else LLM_QUESTIONS, max(60, 2 * len(chunks.texts)))
    searched = replace(collection, corpus=dict(chunks.texts), pages=collection.pages if not chunks.parents else {})
    try:
        prompts = [small_prompt(searched, kind) for kind in KINDS] if llm.small else [Prompt("questions")]
        tell = lambda made: f"{len(made)} written by {llm.name}"  # noqa: E731
        style = [] if llm.small else style_examples(collection)
        if style:
            prompts = [*prompts, Prompt("questions_style")]
        rows = stages.run("questions", _written, searched, searched.groups(), llm, prompts, n, style, tell=tell)
    except WorkbookError as error:
        if not llm.small:  # a service that was set up is meant to be used
            raise
        return Pool([], set(), f"no questions could be written ({error})")
    questions = [Question(*row) for row in rows]
    questions = [q._replace(doc=chunks.parents.get(q.doc, q.doc)) for q in questions]
    if not questions:
        return Pool([], set(), f"{llm.name} wrote none")
    return _gated(questions, collection, chunks, stages, llm.name)


def _written(
    searched: Collection, groups: Mapping[str, str], llm: LLM, prompts: Sequence[Prompt], n: int, style: Sequence[str]
) -> list[list[str]]:
    """n questions as lists of their fields, in the ``style`` of these queries where there are any.

    ``groups`` (which spread them over the collection) and ``prompts`` (which are asked) are here for the stage's key.
    """
    return [[*q] for q in generate_questions(searched, llm, n, examples=style)]


def _checked(
    questions: Sequence[Question], collection: Collection, retrievers: Sequence[Retriever], embedder: Embedder
) -> list[list[str]]:
    """(ids of the questions that are usable for training, ids of those that are fit for evaluation too)."""
    table = check_questions(questions, collection, retrievers, embedder)
    fit = table[list(GATES)].all(axis=1).tolist()
    usable = table[[gate for gate in GATES if gate != "no copy"]].all(axis=1).tolist()
    return [[q.id for q, good in zip(questions, flags, strict=True) if good] for flags in (usable, fit)]


def _gated(questions: Sequence[Question], collection: Collection, chunks: Chunks, stages: Stages, writer: str) -> Pool:
    tell = lambda made: f"{len(made[0])} of {len(questions)} usable"  # noqa: E731
    usable, fit = stages.run("gates", _checked, questions, collection, chunks.finders, chunks.embedder, tell=tell)
    return Pool([q for q in questions if q.id in set(usable)], set(fit), writer)


# Labels for queries that have none


def pooled(retrievers: Sequence[Retriever], queries: Mapping[str, str], depth: int) -> Run:
    """What to judge: the best ``depth`` passages of each retriever, taken in turns, so that none is favoured.

    A passage's score is minus its place.
    """
    runs = [retriever.retrieve(queries, depth) for retriever in retrievers]
    pool: Run = {}
    for q in queries:
        turns = zip_longest(*(list(run.get(q, {}))[:depth] for run in runs))
        mixed = dict.fromkeys(doc for turn in turns for doc in turn if doc is not None)
        pool[q] = {doc: -float(place) for place, doc in enumerate(mixed)}
    return pool


@dataclass(frozen=True)
class Labelled:
    """Labels for queries that had none, and what there is to say about them.

    trusted : whether a person or a trusted judge made them
    notices, rows : sentences for the reader, and rows of the report's table of sources
    """

    qrels: Labels
    trusted: bool = True
    notices: Sequence[str] = ()
    rows: Sequence[Row] = ()


def reviewed(collection: Collection, queries: Mapping[str, str]) -> Labels:
    """A person's verdicts (``reviews.jsonl``) on those of the queries that have any."""
    by_text = {normalise(text): docs for text, docs in Reviews(collection.build / "reviews.jsonl").as_qrels().items()}
    verdicts = {q: by_text.get(normalise(text), {}) for q, text in queries.items()}
    verdicts = {q: {d: g for d, g in docs.items() if d in collection.corpus} for q, docs in verdicts.items()}
    return {q: docs for q, docs in verdicts.items() if docs}


def label_unjudged(collection: Collection, finders: Sequence[Retriever]) -> Labelled:
    """Labels for the queries that have none: a person's verdicts (``reviews.jsonl``), else those of an LLM judge.

    The judge is calibrated on judged queries (notebook 04), and not used if it does not agree with them. Where too few
    are judged to tell, its labels are used but not called trusted. The packaged small model is never asked.
    """
    judged = {q for qrels in collection.qrels.values() for q in qrels}
    unjudged = {q: text for q, text in collection.queries.items() if q not in judged}
    if not unjudged:
        return Labelled({})
    by_person = reviewed(collection, unjudged)
    rows = [("queries judged by you", len(by_person), "reviews.jsonl")] if by_person else []
    rest = {q: text for q, text in unjudged.items() if q not in by_person}
    llm = open_llm(collection.build)
    if not rest:
        return Labelled(by_person, rows=rows)
    if llm.small:
        notice = (
            f"{len(rest):,} queries have no judgments and need labels: "
            f"{llm.name} is too small to judge them (notebook 04 measures it), "
            "so set OPENAI_API_KEY or OPENAI_BASE_URL, or judge the pairs in to_judge.csv."
        )
        return Labelled(by_person, notices=[notice], rows=rows)
    by_judge = _by_judge(collection, llm, rest, finders, by_person)
    return replace(by_judge, qrels=by_person | by_judge.qrels, rows=[*rows, *by_judge.rows])


def _by_judge(
    collection: Collection, llm: LLM, rest: Queries, finders: Sequence[Retriever], by_person: Labels
) -> Labelled:
    """Labels for ``rest`` by an LLM, none where it does not agree with what people judged."""
    known = collection.qrels.get("dev") or collection.qrels.get("train") or by_person
    trusted, notices = _agreement(collection, llm, known, finders)
    if trusted is False:
        notices.append(f"{len(rest):,} queries have no judgments and need labels: judge the pairs in to_judge.csv.")
        return Labelled({}, notices=notices)
    chosen = {q: rest[q] for q in sorted(rest, key=lambda q: fingerprint("label", q))[:LABELLED_QUERIES]}
    run = pooled(finders, chosen, JUDGED_DEPTH)
    labels = as_qrels(judge(llm, chosen, run, collection.corpus, 2 * JUDGED_DEPTH))
    labels = {q: docs for q, docs in labels.items() if any(docs.values())}
    if trusted is None:
        notices.append(
            f"Too few queries are judged by a person to know how far {llm.name} can be trusted: "
            "judge the pairs in to_judge.csv."
        )
    row = (f"queries labelled by {llm.name}", len(labels), "calibrated" if trusted else "not calibrated")
    return Labelled(labels, bool(trusted), notices, [row])


def _agreement(
    collection: Collection, llm: LLM, qrels: Qrels, finders: Sequence[Retriever]
) -> tuple[bool | None, list[str]]:
    """(whether the LLM agrees with judged queries, or None where too few are judged to tell; notices)."""
    if len(qrels) < FEWEST_JUDGED:
        return None, []
    some = {q: qrels[q] for q in sorted(qrels, key=lambda q: fingerprint("calibrate", q))[:JUDGED_QUERIES]}
    texts = {q: collection.queries[q] for q in some}
    run = pooled(finders, texts, JUDGED_DEPTH)
    known = with_zeros(some, run)
    judged = judge(llm, texts, run, collection.corpus, 2 * JUDGED_DEPTH)
    if not any(d in known.get(q, {}) for q, d in zip(judged["query"], judged["doc"], strict=True)):
        return None, []
    result = calibrate(judged, known)
    notice = f"{llm.name} as a judge: {result.verdict} (kappa {result.kappa:.2f}, {result.pairs} pairs)."
    return result.verdict != "do not trust it", [notice]


# Splits


def _sampled(qrels: Qrels, most: int) -> Labels:
    """At most ``most`` of the queries, chosen by a hash of their ids and left in their order."""
    chosen = set(sorted(qrels, key=lambda q: fingerprint("sample", q))[:most])
    return {q: dict(docs) for q, docs in qrels.items() if q in chosen}


def _answerable(qrels: Qrels) -> Labels:
    return {q: dict(docs) for q, docs in qrels.items() if any(grade > 0 for grade in docs.values())}


def find_sources(data: Data, chunks: Chunks, stages: Stages, questions: int) -> Sources:
    """Train, dev and test from what there is: judged splits first, then labels, then questions made from the passages.

    A part that cannot be had stays empty, which is no error. Questions are split by passage, near-duplicates counted as
    one passage. Test splits that came with the data are never trained on. ``questions`` is how many an LLM may be asked
    to write.
    """
    collection = data.collection
    notices = [f"{data.graded} grades of to_judge.csv were taken over."] if data.graded else []
    rows: list[Row] = []
    verdicts = reviewed(collection, {q: collection.queries[q] for q in collection.clicked})
    judged = {s: {q: verdicts.get(q, docs) for q, docs in part.items()} for s, part in collection.qrels.items()}
    qrels = {split: _answerable(part) for split, part in judged.items()}
    if verdicts:
        rows.append(("queries with clicks, judged by you", len(verdicts), "reviews.jsonl"))
    for split in ("train", "dev", "test"):
        if qrels.get(split):
            rows.append((f"{split} queries with judgments", len(qrels[split]), "the collection"))
    labelled = label_unjudged(collection, chunks.finders)
    notices += labelled.notices
    rows += labelled.rows
    by_click = sum(q in collection.clicked and q not in verdicts for q in qrels.get("test", {}))
    clicks = 2 * by_click > len(qrels.get("test", {}))
    people_judged = (labelled.trusted or bool(qrels.get("test"))) and not clicks
    for q, docs in _answerable(labelled.qrels).items():
        place = int(fingerprint("label split", q), 16) / 16**16
        split = "train" if collection.qrels.get("test") or place < 0.5 else "dev" if place < 0.7 else "test"
        qrels.setdefault(split, {}).setdefault(q, docs)
    dev, test = _sampled(qrels.get("dev", {}), MOST_DEV), _sampled(qrels.get("test", {}), MOST_TEST)
    for split, drawn in (("dev", dev), ("test", test)):
        if len(drawn) < len(qrels.get(split, {})):
            of = f"{len(qrels[split]):,} {split} queries"
            notices.append(f"{len(drawn):,} of the {of}, drawn by a hash of their ids, are scored.")
    if not test and len(dev) >= HALVE_DEV_FROM:
        test = {q: docs for q, docs in dev.items() if int(fingerprint("halve", q), 16) % 2}
        dev = {q: docs for q, docs in dev.items() if q not in test}
        notices.append(
            f"There was no test split: {len(test)} of the dev queries, drawn by a hash of their ids, are kept for it."
        )
    train = qrels.get("train", {})
    texts = {q: collection.queries[q] for part in (train, dev, test) for q in part}
    made = Made(dev, test)
    if len(train) < LIGHT_BELOW:
        pool = make_questions(collection, chunks, stages, questions)
        texts |= {q.id: q.text for q in pool.questions}
        made = _with_made(pool, dev, test, collection.corpus, chunks.duplicates)
        people_judged = people_judged and bool(dev or test)
        notices += made.notices
        rows += made.rows
        if made.train or not rows:
            rows.append(_train_row(pool, made.train))
    dev, told = _without_leaks(made.dev, {}, made.test, texts, chunks.duplicates, "dev")
    notices += told
    train, told = _without_leaks(train, dev, made.test, texts, chunks.duplicates, "train")
    notices += told
    extra, told = _without_leaks(made.train, dev, made.test, texts, chunks.duplicates, "made")
    notices += told
    if made.test and not dev:
        notices.append("There are no dev queries, so nothing can be chosen: weights stay at a half.")

    def asked(part: Qrels) -> Queries:
        return {q: texts[q] for q in part}

    used = {q for part in collection.qrels.values() for q in part} | {*train, *dev, *made.test}
    used -= collection.clicked
    return Sources(
        collection=_scored(collection, dev, made.test, texts),
        queries=asked(train),
        positives=train,
        made=(asked(extra), extra),
        dev=asked(dev),
        dev_qrels=dev,
        test=asked(made.test),
        test_qrels=made.test,
        judged=people_judged,
        clicks=clicks,
        held_passages=made.held_passages,
        dev_made=made.dev_made,
        judged_test=len(qrels.get("test", {})),
        unjudged={q: text for q, text in collection.queries.items() if q not in used},
        notices=notices,
        rows=rows,
    )


@dataclass(frozen=True)
class Made:
    """Dev and test, filled up with generated questions, and those that are left to train on.

    held_passages, dev_made, notices, rows : as in ``Sources``
    """

    dev: Labels
    test: Labels
    train: Labels = field(default_factory=dict)
    held_passages: frozenset[str] = frozenset()
    dev_made: bool = False
    notices: Sequence[str] = ()
    rows: Sequence[Row] = ()


def _with_made(pool: Pool, dev: Labels, test: Labels, corpus: Mapping[str, str], duplicates: Mapping[str, str]) -> Made:
    """Dev and test, made of generated questions where the collection has none; the others are to train on."""
    twins = {doc: corpus[duplicates.get(doc, doc)] for doc in corpus}
    enough = len(pool.fit) >= FEWEST_MADE
    held: set[str] = set()
    rows: list[Row] = []
    notices = []

    def hold_out(split: str, share: float, seed: int) -> Labels:
        """Questions for a split, which are on passages of their own."""
        out = _held_out([q for q in pool.questions if q.id not in held], share, twins, seed)
        held.update(out)
        part = as_queries([q for q in pool.questions if q.id in out & pool.fit])[1]
        if part:
            rows.append((f"{split} questions", len(part), f"{pool.writer}; on passages of their own"))
        return part

    if not dev and not test and enough:
        test = hold_out("test", TEST_SHARE, 0)
    dev_made = not dev and enough
    if dev_made:
        dev = hold_out("dev", DEV_SHARE, 1)
        notices.append(
            f"No dev query is judged: {len(dev)} synthetic questions ({pool.writer}) choose, "
            "except between words and vectors, for they share few words with their passages: "
            "the hybrid, half and half, goes to the test unchosen."
        )
    groups = {twins[q.doc] for q in pool.questions if q.id in held}
    held_passages = frozenset(doc for doc, twin in twins.items() if twin in groups)
    train = as_queries([q for q in pool.questions if q.id not in held])[1]
    return Made(dev, test, train, held_passages, dev_made, notices, rows)


def _train_row(pool: Pool, train: Labels) -> Row:
    copies = sum(q not in pool.fit for q in train)
    return (
        "train questions",
        len(train),
        pool.writer + (f"; {copies} of them repeat words of their passage" if copies else ""),
    )


def _held_out(questions: Sequence[Question], share: float, corpus: Mapping[str, str], seed: int) -> set[str]:
    """Ids of the questions to hold out, split by passage; none where there is no clean split."""
    if len(questions) < 2:
        return set()
    pairs = build_triplets(corpus, *as_queries(questions), "in-batch")
    try:
        return {t.query_id for t in split_by_passage(pairs, share, seed, corpus)[1]}
    except WorkbookError:  # all of them are one group
        return set()


def _without_leaks(
    train: Qrels, dev: Qrels, test: Qrels, texts: Mapping[str, str], duplicates: Mapping[str, str], what: str
) -> tuple[Labels, list[str]]:
    """``train`` without queries that repeat one of dev or test, or are answered by a near-duplicate of their passages.

    Returns (what is left of it, sentences that count what is not). A passage that is itself an answer in both splits is
    no leak: it will be there to be found, and other people will ask for it.
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
    notices = []
    if asked_twice:
        notices.append(f"Left out of the {what} queries, since they repeat one that is held out: {len(asked_twice)}.")
    if beside:
        notices.append(
            f"Left out of the {what} queries, since a near-duplicate of a held-out passage answers them: {len(beside)}."
        )
    return {q: dict(docs) for q, docs in train.items() if q not in asked_twice | beside}, notices


def _scored(collection: Collection, dev: Labels, test: Labels, texts: Mapping[str, str]) -> Collection:
    """The collection with the splits that are scored.

    It is the collection itself where these are its own, so that its scoreboard continues.
    """
    own = {split: _answerable(collection.qrels.get(split, {})) for split in ("dev", "test")}
    if (own["dev"], own["test"]) == (dev, test):
        return collection
    queries = collection.queries | {q: texts[q] for part in (dev, test) for q in part}
    return replace(
        collection, queries=queries, qrels={split: part for split, part in (("dev", dev), ("test", test)) if part}
    )
