"""The rerankers of notebook 07's appendix, trained and scored; ``make evidence ONLY=rerankers`` makes their table."""

from collections.abc import Callable

from helpers.collection.collection import Collection
from helpers.evaluation.choosing import DevReranking, reranker_of
from helpers.evaluation.measures import choose_weight, evaluate
from helpers.models.embed import CachedEmbedder, LocalEmbedder
from helpers.models.load import load_encoder, pair_encoder, token_encoder
from helpers.retrieval.first_stages import Dense, Run
from helpers.store.evidence import Piece
from helpers.training.experiments import Attempt, Bench, is_trained, keys, rerankers
from helpers.training.recipe import Recipe
from helpers.training.triplets import Triplet, build_triplets
from helpers.training.tune import finetune_late_interaction, finetune_reranker, sample_queries, tuned_encoder

MEASURED = ("alone", "mixed", "first stage")


class RerankingBench:
    """What all attempts share: the collection, the questions, the encoders and the tuned first stage."""

    def __init__(self, bench: Bench):
        self.collection, self.set, self.tables = bench.collection, bench.set, bench.tables
        tuned = tuned_encoder(self.collection, self.set, bench.base).model
        self.encoders = {"encoder": load_encoder(), "tuned encoder": tuned}
        self.first = Dense(LocalEmbedder(tuned, "tuned encoder"), self.tables).index(self.collection.corpus)

    def triplets(self, attempt: Attempt) -> list[Triplet]:
        """The training rows of an attempt.

        Negatives come from the tuned first stage, because its mistakes are what a reranker has to correct.
        """
        queries, positives = sample_queries(self.set, attempt.questions, seed=attempt.recipe.seed)
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
        encoder, cross = self.encoders[attempt.start], attempt.kind == "cross-encoder"
        model = (pair_encoder if cross else token_encoder)(encoder)
        if not attempt.questions:
            return model, 0.0
        tune = finetune_reranker if cross else finetune_late_interaction
        dev = DevReranking(self.set.dev, self.set.dev_qrels, near, self.collection.corpus)
        done = tune(self.collection, self.triplets(attempt), dev, model, attempt.recipe, attempt.model)
        return done.model, done.record["seconds"]

    def run(self, attempt: Attempt) -> dict:
        """Train an attempt and score it on dev, alone and mixed with the first stage; returns {column: value}."""
        near = self.first.retrieve(self.set.dev, attempt.depth)
        model, seconds = self.trained(attempt, near)
        scores = reranker_of(model).rerank(self.set.dev, near, self.collection.corpus, attempt.depth)
        weight, means = choose_weight(self.set.dev_qrels, near, scores)
        return {
            "name": attempt.name,
            "seed": attempt.recipe.seed,
            "start": attempt.start,
            "questions": attempt.questions,
            "first stage": round(means[0.0], 5),
            "alone": round(evaluate(self.set.dev_qrels, scores)["ndcg@10"], 5),
            "mixed": round(means[weight], 5),
            "weight": weight,
            "seconds": round(seconds),
        }


def pieces(collection: Collection, shared: str, bench: Callable[[], RerankingBench]) -> list[Piece]:
    """The pieces of evidence of the rerankers; ``bench`` is called only when one of them is made.

    All start from the tuned encoder: none is quick before that is trained, nor quite the same on every machine.
    """
    ready = is_trained(collection, "encoder-tuned", Recipe())
    found = []
    for attempt, ((name, seed), key) in zip(rerankers(), keys("rerankers", shared).items(), strict=True):
        loaded = attempt.model == "late-interaction-tuned" and is_trained(collection, attempt.model, attempt.recipe)
        quick = ready and (attempt.questions == 0 or loaded)
        found.append(
            Piece("rerankers", name, seed, key, lambda attempt=attempt: bench().run(attempt), MEASURED, quick=quick)
        )
    return found
