"""Committed scores of the packaged cross-encoder on the default collection: evidence, since reading takes so long.

On two cores it reads thirty pairs a second, and the course asks for tens of thousands: two first stages, three depths,
hundreds of queries. A pair's score depends on the model and on the two texts alone, so it is read once, kept in
``data/runs/`` under a key of these, and used by every notebook. Pairs that are not there are read live.
"""

from collections.abc import Mapping
from pathlib import Path

from sentence_transformers import CrossEncoder

from helpers.collection.collection import AUTHORS, Collection
from helpers.models.load import model_key
from helpers.retrieval.first_stages import Run
from helpers.store.evidence import RUNS, read_run
from helpers.store.files import WorkbookError, fingerprint

REMAKE = "make evidence ONLY=pairs"


def asked_of(collection: Collection) -> dict[str, str]:
    """{query_id: text} of all queries that pairs are read for: dev, test, and the authors' test sentences."""
    queries = {q: collection.queries[q] for part in collection.qrels.values() for q in part}
    return queries | (collection.split(AUTHORS)[0] if collection.sentences else {})


def pairs_file(collection: Collection, model: CrossEncoder) -> Path:
    """Where a model's scores on a collection are committed; each model has a file of its own."""
    return RUNS / f"{collection.name}.pairs-{model_key(model)}.tsv.gz"


def pairs_key(collection: Collection, model: CrossEncoder) -> str:
    """A fingerprint of the model and of all texts that it may have read."""
    return fingerprint(model_key(model), collection.corpus, asked_of(collection))


def pair_key(query: str, passage: str) -> str:
    """The key under which the score of one pair of texts is kept."""
    return fingerprint(query, passage)


def read_pairs(collection: Collection, model: CrossEncoder) -> Run:
    """The committed scores, ``{query_id: {doc_id: score}}``, higher is better; {} where there are none.

    Raises WorkbookError when they were edited or are stale.
    """
    return read_run(pairs_file(collection, model), pairs_key(collection, model), REMAKE)


def known_pairs(collection: Collection, model: CrossEncoder) -> Mapping[str, float]:
    """{``pair_key``: score} of the committed scores, for a ``CrossEncoderReranker``; {} where there are none.

    Where they may not be used, a printed sentence says so; the pairs are then read live.
    """
    try:
        run = read_pairs(collection, model)
    except WorkbookError as error:
        print(f"Refused, so the pairs are read anew: {error}")
        return {}
    asked = asked_of(collection)
    return {pair_key(asked[q], collection.corpus[d]): score for q, docs in run.items() for d, score in docs.items()}
