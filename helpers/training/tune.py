"""Fine-tune an encoder, a late-interaction model or a cross-encoder on triplets; dev chooses the checkpoint."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer

from helpers.collection.collection import AUTHORS, Collection
from helpers.collection.repeats import Repeats
from helpers.collection.text import normalise
from helpers.evaluation.choosing import DevReranking, DevRetrieval, dev_corpus
from helpers.labels.gates import open_questions
from helpers.labels.questions import Question, as_queries, shipped_questions, typed_questions
from helpers.models.load import load_encoder
from helpers.retrieval.first_stages import Dense
from helpers.store.files import WorkbookError
from helpers.training.export import to_dataset
from helpers.training.fitting import Model, Recipe, Trained, fit
from helpers.training.splits import COLLECT_BELOW, split_by_passage
from helpers.training.triplets import Triplet, build_triplets

FEWEST = 32  # different queries: below this a batch has too few passages to tell apart


class RerankerPlan(NamedTuple):
    """How a reranker is trained: the number of questions, of hard negatives for each, and the recipe."""

    questions: int
    negatives: int
    recipe: Recipe


RERANKER = RerankerPlan(800, 2, Recipe(epochs=1, batch_size=32, learning_rate=5e-5))


TEXTS = ("made", "typed", "authors")  # kinds of text to train on; see ``training_questions``
WATCHED = "dev/described"  # the slice that the committed evidence was watched on; half the queries take half the time


@dataclass(frozen=True)
class TrainingSet:
    """What to train on and what to choose by.

    queries, positives : {query_id: text} to train on, and {query_id: {doc_id: grade}}
    dev, dev_qrels : the same of the queries that choose weights and systems
    source : a sentence that says where they come from
    watch : the ids of the dev queries that a training is watched on; None where these are all
    """

    queries: dict[str, str]
    positives: dict[str, dict[str, int]]
    dev: dict[str, str]
    dev_qrels: dict[str, dict[str, int]]
    source: str
    watch: frozenset[str] | None = None

    @property
    def watched(self) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        """(queries, qrels) of the dev queries whose score chooses a training's checkpoint."""
        ids = self.dev if self.watch is None else [q for q in self.dev if q in self.watch]
        return {q: self.dev[q] for q in ids}, {q: self.dev_qrels[q] for q in ids}


def training_set(collection: Collection, questions: Sequence[Question], held_out: float = 0.25) -> TrainingSet:
    """Train on the questions and the train split, choose by dev; without a dev split, choose by a part of the others.

    That part (the share ``held_out``) has no query and no passage in common with the rest. Test is never trained on: a
    query that repeats one of dev, of test or of the authors' sentences, as ``repeats.Repeats`` finds them, is left out.
    Raises WorkbookError when there is nothing to train on.
    """
    queries, positives = as_queries(questions)
    sentences = sum(question.kind == "authors" for question in questions)
    counts = {"synthetic questions": len(queries) - sentences, "authors' sentences": sentences}
    sources = [f"{count:,} {what}" for what, count in counts.items() if count]
    if "train" in collection.qrels:
        train, qrels = collection.split("train")
        queries, positives = queries | train, positives | qrels
        sources.append(f"{len(train):,} train queries")
    measured = [split for split in ("dev", "test") if split in collection.qrels] + [AUTHORS] * bool(
        collection.sentences
    )
    repeats = Repeats(text for split in measured for text in collection.split(split)[0].values())
    repeated = {q for q in positives if repeats(queries[q])}
    positives = {q: docs for q, docs in positives.items() if q not in repeated}
    queries = {q: text for q, text in queries.items() if q not in repeated}
    if not positives:
        raise WorkbookError(
            f"The collection {collection.name} has neither questions nor a train split: "
            "make questions with notebook 03."
        )
    origin = " and ".join(sources) + (f" less {len(repeated):,} that repeat a held-out query" if repeated else "")
    if "dev" in collection.qrels:
        dev, dev_qrels = collection.split("dev")
        watch = frozenset(collection.split(WATCHED)[1]) if WATCHED in collection.slices("dev") else None
        watching = f", {len(watch)} of them the checkpoint" if watch else ""
        origin = f"Training on {origin}; {len(dev)} dev queries choose{watching}."
        return TrainingSet(queries, positives, dev, dev_qrels, origin, watch)
    pairs = build_triplets(collection.corpus, queries, positives, "in-batch")
    if len(pairs) < 2:
        raise WorkbookError(
            f"{origin} are too few to train on and to choose by: make more with notebook 03, "
            "or add qrels/train.tsv and qrels/dev.tsv."
        )
    kept, held = split_by_passage(pairs, held_out, corpus=collection.corpus)
    parts = []
    for part in (kept, held):
        chosen = {t.query_id for t in part}
        parts += [{q: queries[q] for q in chosen}, {q: positives[q] for q in chosen}]
    return TrainingSet(
        *(dict(sorted(part.items())) for part in parts),
        f"Training on {len(parts[0]):,} of {origin}; there is no dev split, "
        f"so the other {len(parts[2]):,}, on other passages, choose.",
    )


def training_questions(collection: Collection, texts: Sequence[str] = TEXTS[:1]) -> list[Question]:
    """The questions to train on besides the train split, of the kinds of text that are named, out of ``TEXTS``.

    "made" are the shipped questions; where none are shipped and the train split has fewer than ``FEWEST`` queries, they
    are generated (see ``open_questions``). "typed" are the shipped ones that are written as people type, "authors" the
    sentences by which the authors of a documentation introduce their examples; a person's own collection has neither.
    """
    questions: list[Question] = []
    if "made" in texts:
        enough = len(collection.qrels.get("train", {})) >= FEWEST
        questions += shipped_questions(collection) if enough else open_questions(collection)
    if "typed" in texts:
        questions += typed_questions(collection)
    if "authors" in texts and collection.sentences:
        sentences, pages = collection.sentences["train"]
        questions += [Question(q, sentences[q], "authors", d) for q, docs in pages.items() for d in docs]
    return questions


def open_training_set(collection: Collection, texts: Sequence[str] = TEXTS[:1]) -> TrainingSet:
    """The collection's training set, from its train split and its ``training_questions``.

    It is the same whichever notebook asks first.
    """
    return training_set(collection, training_questions(collection, texts))


def tuned_encoder(collection: Collection, data: TrainingSet, base: Dense) -> Trained:
    """The encoder of notebook 06, tuned by the default recipe: loaded where it was trained before, else trained now.

    ``base`` is the untrained encoder's retriever, which has indexed the collection. Raises WorkbookError as
    ``finetune_encoder`` does.
    """
    pairs = build_triplets(collection.corpus, data.queries, data.positives, "in-batch")
    watched, qrels = data.watched
    dev = DevRetrieval(watched, qrels, dev_corpus(collection.corpus, qrels, base.retrieve(watched)))
    return finetune_encoder(collection, pairs, dev, load_encoder(), name="encoder-tuned")


def sample_queries(data: TrainingSet, size: int | None, seed: int) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """(queries, positives) of ``size`` queries drawn at random by ``seed``; a size of None takes all.

    With one seed, every smaller sample is a part of the larger ones.
    """
    if size is None:
        return dict(data.queries), dict(data.positives)
    order = np.random.default_rng(seed).permutation(sorted(data.positives))[:size].tolist()
    return {q: data.queries[q] for q in order}, {q: data.positives[q] for q in order}


def check_triplets(triplets: Sequence[Triplet], corpus: Mapping[str, str]) -> None:
    """Raises WorkbookError, in one sentence, for triplets that would teach nothing or the opposite of what they should.

    Such are empty or missing texts, a passage that is positive and negative for a query, and too few queries.
    """
    for t in triplets:
        if not t.query.strip():
            raise WorkbookError(f"The text of query {t.query_id!r} is empty: write it or drop its triplets.")
        if not t.positive_id or not corpus.get(t.positive_id, "").strip():
            what = (
                "has no positive"
                if not t.positive_id
                else f"has the positive {t.positive_id!r}, which is empty or missing"
            )
            raise WorkbookError(f"Query {t.query_id!r} {what}: give it a passage of the collection or drop it.")
        lost = next((d for d in t.negative_ids if not corpus.get(d, "").strip()), None)
        if lost is not None:
            raise WorkbookError(f"The negative {lost!r} of query {t.query_id!r} is empty or missing: drop it.")
    right = Counter((normalise(t.query), normalise(corpus[t.positive_id])) for t in triplets)
    for t in triplets:
        wrong = next((d for d in t.negative_ids if (normalise(t.query), normalise(corpus[d])) in right), None)
        if wrong is not None:
            raise WorkbookError(
                f"{wrong!r} is a negative of query {t.query_id!r} and a positive of the same words: "
                "keep one of the two."
            )
    count = len({normalise(t.query) for t in triplets})
    if count < FEWEST:
        raise WorkbookError(
            f"{count} different queries are too few to tune a model (at least {FEWEST}; "
            f"from about {COLLECT_BELOW} on it may help, 500 to 1,000 usually do): "
            "make questions with notebook 03, or add judged queries as qrels/train.tsv."
        )


def _finetune(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevRetrieval | DevReranking,
    base: Model,
    recipe: Recipe,
    name: str,
    form: str | None = None,
) -> Trained:
    """Check the triplets, turn them into the rows of a loss, and train.

    ``form`` is one of ``to_dataset``; by default "tuples" where any triplet has negatives, else "pairs".
    """
    check_triplets(triplets, collection.corpus)
    form = form or ("tuples" if any(t.negative_ids for t in triplets) else "pairs")
    return fit(collection, name, base, to_dataset(triplets, collection.corpus, form), dev, recipe)


def finetune_encoder(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevRetrieval,
    base: SentenceTransformer,
    recipe: Recipe | None = None,
    name: str = "encoder",
) -> Trained:
    """Tune a bi-encoder to score a query's positive above the other positives of its batch and above its own negatives.

    ``base`` itself is changed. Its best checkpoint by ``dev`` is kept in ``build/<collection>/models/<name>``. Triplets
    with fewer negatives than the one with the most are left out; without any negatives, all are used. Raises
    WorkbookError as ``check_triplets`` and ``fit`` do.
    """
    return _finetune(collection, triplets, dev, base, recipe or Recipe(), name)


def finetune_late_interaction(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevReranking,
    base: MultiVectorEncoder,
    recipe: Recipe | None = None,
    name: str = "late-interaction",
) -> Trained:
    """Tune a late-interaction model as ``finetune_encoder`` tunes an encoder; its scores are MaxSim."""
    return _finetune(collection, triplets, dev, base, recipe or Recipe(), name)


def finetune_reranker(
    collection: Collection,
    triplets: Sequence[Triplet],
    dev: DevReranking,
    base: CrossEncoder,
    recipe: Recipe | None = None,
    name: str = "cross-encoder",
) -> Trained:
    """Tune a cross-encoder to score a query's positives above its own negatives; queries without any are left out.

    Everything else is as in ``finetune_encoder``. Raises WorkbookError also when no triplet has negatives.
    """
    return _finetune(collection, triplets, dev, base, recipe or Recipe(batch_size=8), name, "labelled lists")
