"""The long experiments behind notebooks 06 and 07: what they compare, their trainings, and their results.

The results are committed evidence, ``data/results/<name>.csv`` (for another collection or encoder, in the build
folder). Each row is one training, scored on dev and never on test. ``make evidence ONLY=learning-curve`` makes or
continues one table.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from helpers.collection.collection import Collection
from helpers.evaluation.choosing import DEV_PASSAGES, DevReranking, DevRetrieval, dev_corpus, reranker_of
from helpers.evaluation.measures import choose_weight, evaluate
from helpers.models.embed import CachedEmbedder, LocalEmbedder
from helpers.models.load import (
    PACKAGED,
    encoder_names,
    full_name,
    load_encoder,
    load_late_interaction,
    load_reranker,
    model_key,
    pair_encoder,
    token_encoder,
)
from helpers.retrieval.first_stages import BM25, Dense, Run
from helpers.retrieval.rerankers import LateInteraction
from helpers.store.evidence import RESULTS, Id, Piece, read_evidence
from helpers.store.files import WorkbookError, fingerprint
from helpers.training.fitting import Recipe
from helpers.training.triplets import NEGATIVES, Triplet, build_triplets
from helpers.training.tune import (
    RERANKER,
    TrainingSet,
    finetune_encoder,
    finetune_late_interaction,
    finetune_reranker,
    open_training_set,
    sample_queries,
    tuned_encoder,
)

CROSS_ENCODER = "ms-marco-minilm"  # the packaged one
SIZES = (0, 125, 250, 500, 1000, None)  # None: all
SEEDS = (0, 1, 2)  # of the learning curve
BUDGET = 500  # questions in the comparisons of negatives and of recipes
UNLIKE = 0.9  # of the positive's score: above it, late interaction takes a negative for a false one
MEASURED = ("alone", "mixed", "first stage")  # nDCG@10 of a reranker, of its mixture with the first stage, of that
WHOLE = tuple("ndcg@10 recall@10 recall@100 mrr@10 judged@10".split())  # measured over the whole collection


class Trial(NamedTuple):
    """One training of the encoder: its name, its number of questions, its negatives and its recipe.

    size : number of training questions; 0 is the untrained encoder, None takes all
    negatives, per_query, margin : their kind, how many a triplet has, and their margin (see ``build_triplets``)
    whole : whether it is scored over the whole collection too, as untrained systems are; otherwise only over the small
        dev collection, which is enough to compare trainings with each other
    mined : from how many nearest passages the negatives are taken
    """

    name: str
    size: int | None = BUDGET
    negatives: str = "in-batch"
    per_query: int = 1
    margin: float | None = 0.05
    recipe: Recipe = Recipe()
    whole: bool = False
    mined: int = 500

    @property
    def model(self) -> str:
        """The name under which its model is kept; equal trainings of two experiments, or of notebook 06, share it."""
        if self.size is None and self.recipe == Recipe():
            return "encoder-tuned"
        return f"experiment-{fingerprint(repr(self._replace(name='', whole=False)))}"

    @property
    def measured(self) -> tuple[str, ...]:
        """The columns with its scores, the most telling one first."""
        return (WHOLE if self.whole else ()) + (("small dev", "start") if self.size != 0 else ())


class Attempt(NamedTuple):
    """One attempt at a reranker, which reorders the best ``depth`` passages of the tuned encoder.

    kind, start : "late interaction" or "cross-encoder", and the encoder that it starts from, or the packaged
        cross-encoder
    questions : number of training questions; 0 is the untrained reranker
    negatives, per_query : their kind, and how many a question has
    model : the name under which the trained model is kept
    mined : from how many nearest passages the negatives are taken
    """

    name: str
    kind: str = "late interaction"
    start: str = "tuned encoder"
    questions: int = RERANKER.questions
    negatives: str = "encoder-hard"
    per_query: int = RERANKER.negatives
    recipe: Recipe = RERANKER.recipe
    model: str = "attempt"
    depth: int = 50
    mined: int = 200


def learning_curve_trials() -> Iterator[Trial]:
    """Trials on more and more questions.

    A seed also draws the questions. Where there is nothing to draw, for none and for all of them, one seed is enough.
    """
    for seed in SEEDS:
        for size in SIZES if seed == 0 else (125, 250, 500, 1000):
            yield Trial("all" if size is None else str(size), size, recipe=Recipe(seed=seed), whole=True)


def negatives_trials() -> Iterator[Trial]:
    """The kinds of negatives of notebook 05, with the same questions and the same number of epochs."""
    for kind in NEGATIVES:
        yield Trial(kind, negatives=kind)


def recipe_trials() -> Iterator[Trial]:
    """Trials that change one thing at a time in the default recipe."""
    changes: dict[str, dict] = {
        "default": {},
        "learning rate 5e-5": {"learning_rate": 5e-5},
        "learning rate 2e-4": {"learning_rate": 2e-4},
        "one width": {"dimensions": ()},
    }
    for name, change in changes.items():
        yield Trial(name, recipe=replace(Recipe(), **change))
    yield Trial("2 hard negatives a question", negatives="encoder-hard", per_query=2)
    yield Trial("all questions", None, whole=True)
    yield Trial("all questions, learning rate 2e-4", None, recipe=Recipe(learning_rate=2e-4), whole=True)


def reranker_attempts() -> Iterator[Attempt]:
    """The attempts at a second stage, the cheapest first."""
    recipe = RERANKER.recipe
    cross = replace(recipe, batch_size=8)
    yield Attempt("late interaction, untrained, base tokens", start="encoder", questions=0)
    yield Attempt("late interaction, untrained, tuned encoder's tokens", questions=0)
    yield Attempt("late interaction, tuned", model="late-interaction-tuned")  # that of notebook 07
    yield Attempt("cross-encoder, mean pooling, listwise", "cross-encoder", questions=300, per_query=4, recipe=cross)
    yield Attempt("cross-encoder, packaged, untrained, best 20", "cross-encoder", CROSS_ENCODER, questions=0, depth=20)


TRAININGS: dict[str, Callable[[], Iterator[Trial]]] = {
    "learning-curve": learning_curve_trials,
    "negatives": negatives_trials,
    "recipes": recipe_trials,
}
EXPERIMENTS: dict[str, Callable[[], Iterator[Trial | Attempt]]] = {**TRAININGS, "rerankers": reranker_attempts}


def shared_key(collection: Collection) -> str:
    """A fingerprint of what every row depends on: the encoder's weights and all texts. Nothing is encoded for it."""
    data = open_training_set(collection)
    texts = [collection.corpus, data.queries, data.positives, *data.watched]
    return fingerprint(model_key(load_encoder()), *texts, DEV_PASSAGES, UNLIKE)


def keys(name: str, shared: str) -> dict[Id, str]:
    """{(name, seed): key} of an experiment's rows.

    A reranker's key contains the default recipe too, because the reranker works on the encoder that was tuned by it.
    """
    row_keys = {}
    for trial in EXPERIMENTS[name]():
        first_stage = [repr(Recipe())] if isinstance(trial, Attempt) else []
        row_keys[trial.name, trial.recipe.seed] = fingerprint(repr(trial), shared, *first_stage)
    return row_keys


def table_file(name: str, collection: Collection) -> Path:
    """The file of a table: committed for the default collection and the packaged encoder, else in the build folder."""
    default = collection.name == "pydocs" and full_name(encoder_names()[0]) == PACKAGED
    return (RESULTS if default else collection.build / "results") / f"{name}.csv"


def command(name: str, collection: Collection) -> str:
    """The command that makes an experiment's table for this collection."""
    own = f"COLLECTION={shlex.quote(os.environ.get('COLLECTION') or '…')} " if collection.name != "pydocs" else ""
    return f"make evidence {own}ONLY={name}"


def table(name: str, collection: Collection, row_keys: Mapping[Id, str] | None = None) -> pd.DataFrame:
    """An experiment's table for this collection, empty if it was not run.

    ``row_keys`` are {(name, seed): key} of its rows, by default those of ``EXPERIMENTS``. Raises WorkbookError as
    ``read_evidence`` does.
    """
    file = table_file(name, collection)
    if not file.is_file():
        return pd.DataFrame()
    known = keys(name, shared_key(collection)) if row_keys is None else row_keys
    return read_evidence(file, known, command(name, collection))


def results(name: str, collection: Collection, row_keys: Mapping[Id, str] | None = None) -> pd.DataFrame:
    """The table for a notebook; where it was not made or may not be shown, prints why and returns an empty one."""
    try:
        evidence = table(name, collection, row_keys)
    except WorkbookError as error:
        print(f"Refused: {error}")
        return pd.DataFrame()
    if evidence.empty:
        print(f"Skipped: `{command(name, collection)}` makes this evidence for {collection.name}.")
    return evidence


class EncoderBench:
    """Trains and scores the trials of a collection; it holds what they share: questions, dev set and base encoder."""

    def __init__(self, collection: Collection):
        self.collection = collection
        self.data: TrainingSet = open_training_set(collection)
        self.queries, self.qrels = self.data.watched
        self.tables = collection.build / "lancedb"
        self.base = Dense(LocalEmbedder(load_encoder(), "encoder"), self.tables).index(collection.corpus)
        self.bm25 = BM25().index(collection.corpus)
        small = dev_corpus(collection.corpus, self.qrels, self.base.retrieve(self.queries))
        self.dev = DevRetrieval(self.queries, self.qrels, small)
        self.whole = DevRetrieval(self.queries, self.qrels, collection.corpus)

    def triplets(self, trial: Trial) -> list[Triplet]:
        """The training rows of a trial; the recipe's seed draws its questions."""
        queries, positives = sample_queries(self.data, trial.size, trial.recipe.seed)
        return build_triplets(
            self.collection.corpus,
            queries,
            positives,
            trial.negatives,
            n=trial.per_query,
            seed=trial.recipe.seed,
            bm25=self.bm25,
            embedder=CachedEmbedder(self.base.embedder, self.tables),
            margin=trial.margin,
            depth=trial.mined,
            keep=keep_unlike(self.collection, queries, positives) if trial.negatives == "filtered" else None,
        )

    def run(self, trial: Trial) -> dict:
        """Train one trial and score it on dev; returns {column: value} of its row."""
        record, run = {}, self.base.retrieve(self.queries)
        if trial.size != 0:
            rows = self.triplets(trial)
            trained = finetune_encoder(self.collection, rows, self.dev, load_encoder(), trial.recipe, trial.model)
            record = trained.record
            run = self.whole.retrieve(trained.model, 100) if trial.whole else {}
        row = {
            "name": trial.name,
            "seed": trial.recipe.seed,
            "rows": record.get("rows", 0),
            "step": record.get("step", 0),
            "questions": len(self.data.queries) if trial.size is None else trial.size,
        }
        row |= {"start": record["dev"]["start"], "small dev": record["dev"]["best"]} if record else {}
        scores = evaluate(self.qrels, run) if run else {}
        row |= {measure: scores[measure] for measure in WHOLE if scores}
        row = {column: round(value, 5) if isinstance(value, float) else value for column, value in row.items()}
        return row | {"seconds": round(record.get("seconds", 0))}


def keep_unlike(collection: Collection, queries, positives):
    """A ``keep`` function for ``build_triplets``, as in notebook 05.

    It keeps a passage as a negative when its late-interaction score is below ``UNLIKE`` times the best positive's.
    """
    late = LateInteraction(load_late_interaction(), collection.build / "lancedb")
    answer = {queries[q]: collection.corpus[max(docs, key=docs.get)] for q, docs in positives.items()}

    def keep(query: str, passages: Sequence[str]) -> list[bool]:
        scores = late.score(query, [answer[query], *passages])
        return (scores[1:] < UNLIKE * scores[0]).tolist()

    return keep


def is_trained(collection: Collection, model: str, recipe: Recipe) -> bool:
    """Whether a model of this name was already trained by this recipe, so that it only needs to be loaded."""
    try:
        record = json.loads((collection.build / "models" / model / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.get("recipe") == json.loads(json.dumps(asdict(recipe)))


class RerankerBench:
    """Trains and scores the attempts at a reranker; it holds what they share: questions, encoders, first stage."""

    def __init__(self, bench: EncoderBench):
        self.collection, self.data, self.tables = bench.collection, bench.data, bench.tables
        self.queries, self.qrels = bench.queries, bench.qrels
        tuned = tuned_encoder(self.collection, self.data, bench.base).model
        self.encoders = {"encoder": load_encoder(), "tuned encoder": tuned}
        self.first = Dense(LocalEmbedder(tuned, "tuned encoder"), self.tables).index(self.collection.corpus)

    def triplets(self, attempt: Attempt) -> list[Triplet]:
        """The training rows of an attempt.

        Negatives come from the tuned first stage, because its mistakes are what a reranker has to correct.
        """
        queries, positives = sample_queries(self.data, attempt.questions, seed=attempt.recipe.seed)
        return build_triplets(
            self.collection.corpus,
            queries,
            positives,
            attempt.negatives,
            n=attempt.per_query,
            embedder=CachedEmbedder(self.first.embedder, self.tables),
            depth=attempt.mined,
        )

    def trained(self, attempt: Attempt, near: Run) -> tuple:
        """(the attempt's model, seconds of its training); without questions it stays untrained, in 0 seconds.

        The checkpoint is the one that orders the passages of ``near`` best, for the dev queries.
        """
        cross = attempt.kind == "cross-encoder"
        if attempt.start == CROSS_ENCODER:
            model = load_reranker(CROSS_ENCODER)
        else:
            model = (pair_encoder if cross else token_encoder)(self.encoders[attempt.start])
        if not attempt.questions:
            return model, 0.0
        tune = finetune_reranker if cross else finetune_late_interaction
        dev = DevReranking(self.queries, self.qrels, near, self.collection.corpus)
        done = tune(self.collection, self.triplets(attempt), dev, model, attempt.recipe, attempt.model)
        return done.model, done.record["seconds"]

    def run(self, attempt: Attempt) -> dict:
        """Train an attempt and score it on dev, alone and mixed with the first stage; returns {column: value}."""
        near = self.first.retrieve(self.queries, attempt.depth)
        model, seconds = self.trained(attempt, near)
        scores = reranker_of(model).rerank(self.queries, near, self.collection.corpus, attempt.depth)
        weight, means = choose_weight(self.qrels, near, scores)
        return {
            "name": attempt.name,
            "seed": attempt.recipe.seed,
            "start": attempt.start,
            "questions": attempt.questions,
            "first stage": round(means[0.0], 5),
            "alone": round(evaluate(self.qrels, scores)["ndcg@10"], 5),
            "mixed": round(means[weight], 5),
            "weight": weight,
            "seconds": round(seconds),
        }


def encoder_pieces(collection: Collection, shared: str, bench: Callable[[], EncoderBench]) -> list[Piece]:
    """The pieces of evidence of the encoder's trainings; ``bench`` is called only when one of them is made."""
    ready = is_trained(collection, "encoder-tuned", Recipe())
    pieces = []
    for table, trials in TRAININGS.items():
        for trial, ((name, seed), key) in zip(trials(), keys(table, shared).items(), strict=True):
            few = trial.size is not None and trial.size <= BUDGET
            quick = few or (ready and trial.model == "encoder-tuned")
            tolerance = 0.03 if trial.size != 0 else 0.002  # what is trained differs more from machine to machine
            pieces.append(
                Piece(table, name, seed, key, lambda trial=trial: bench().run(trial), trial.measured, tolerance, quick)
            )
    return pieces


def reranker_pieces(collection: Collection, shared: str, bench: Callable[[], RerankerBench]) -> list[Piece]:
    """The pieces of evidence of the rerankers; ``bench`` is called only when one of them is made.

    All start from the tuned encoder: none is quick before that is trained, nor quite the same on every machine.
    """
    ready = is_trained(collection, "encoder-tuned", Recipe())
    pieces = []
    for attempt, ((name, seed), key) in zip(reranker_attempts(), keys("rerankers", shared).items(), strict=True):
        loaded = attempt.model == "late-interaction-tuned" and is_trained(collection, attempt.model, attempt.recipe)
        quick = ready and (attempt.questions == 0 or loaded)
        pieces.append(
            Piece("rerankers", name, seed, key, lambda attempt=attempt: bench().run(attempt), MEASURED, quick=quick)
        )
    return pieces
