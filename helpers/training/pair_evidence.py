"""Make the committed scores of the cross-encoder anew, or read forty of their pairs again as a check."""

from collections.abc import Callable

import numpy as np

from helpers.collection.collection import Collection
from helpers.models.embed import LocalEmbedder
from helpers.models.load import full_name, load_encoder, load_reranker
from helpers.models.packaged import is_packaged
from helpers.retrieval.first_stages import BM25, Dense, Run, WeightedHybrid, truncate
from helpers.retrieval.read_pairs import REMAKE, asked_of, pairs_file, pairs_key, read_pairs
from helpers.retrieval.rerankers import CrossEncoderReranker
from helpers.store.evidence import display_path, write_run
from helpers.store.files import WorkbookError, fingerprint
from helpers.training.tune import open_training_set, tuned_encoder

MODEL = "ms-marco-minilm"
DEPTHS = {"encoder": 50, "hybrid": 20, "tuned encoder": 20}  # how many of a first stage's best are read
WEIGHTS = (0.7, 0.8, 0.9)  # of the encoder in the hybrid; dev may choose any of these
AGAIN = 40  # pairs that a check reads
TOLERANCE = 0.01  # of a score, whose scale is about -11 to 11; another processor rounds differently


def firsts(collection: Collection) -> list[Run]:
    """The runs whose passages are read: those of the encoder, the hybrid and the tuned encoder, cut at their depths."""
    asked, tables = asked_of(collection), collection.build / "lancedb"
    dense = Dense(LocalEmbedder(load_encoder(), "encoder"), tables).index(collection.corpus)
    tuned = tuned_encoder(collection, open_training_set(collection), dense).model
    tuned_dense = Dense(LocalEmbedder(tuned, "tuned encoder"), tables).index(collection.corpus)
    words = BM25().index(collection.corpus)
    hybrids = [WeightedHybrid(words, dense, weight).retrieve(asked) for weight in WEIGHTS]
    runs = {"encoder": [dense.retrieve(asked)], "hybrid": hybrids, "tuned encoder": [tuned_dense.retrieve(asked)]}
    return [truncate(run, DEPTHS[name]) for name, several in runs.items() for run in several]


def make_pairs(collection: Collection, say: Callable[[str], None] = print) -> None:
    """Read all pairs and write the file; what was read before an interruption is not read again."""
    model = load_reranker(MODEL)
    reranker = CrossEncoderReranker(model, collection.build / "lancedb")
    asked, runs = asked_of(collection), firsts(collection)
    pooled = {q: {d: 0.0 for run in runs for d in run[q]} for q in asked}
    scored = reranker.rerank(asked, pooled, collection.corpus, max(map(len, pooled.values())))
    file = pairs_file(collection, model)
    rounded = {q: {d: round(score, 4) for d, score in docs.items()} for q, docs in scored.items()}
    write_run(file, rounded, pairs_key(collection, model))
    say(f"{display_path(file)}: {sum(map(len, scored.values())):,} pairs of {len(asked):,} queries")


def check_pairs(collection: Collection, commit: str, say: Callable[[str], None] = print) -> None:
    """Read forty of the committed pairs, which the commit chooses, again and compare.

    Raises WorkbookError when there are none, when they are stale, or when a score differs by more than ``TOLERANCE``.
    Where the model's package is not installed, a sentence says that nothing was checked.
    """
    if not is_packaged(full_name(MODEL)):
        say("The cross-encoder's package is not installed: its scores were not checked.")
        return
    model = load_reranker(MODEL)
    asked, committed = asked_of(collection), read_pairs(collection, model)
    pairs = [(q, d) for q, docs in committed.items() for d in docs]
    if not pairs:
        raise WorkbookError(f"No scores of the cross-encoder are committed: run `{REMAKE}` and commit them.")
    seed = int(fingerprint("pairs", commit), 16)
    some = [pairs[i] for i in np.random.default_rng(seed).choice(len(pairs), min(AGAIN, len(pairs)), replace=False)]
    scores = model.predict([(asked[q], collection.corpus[d]) for q, d in some], show_progress_bar=False)
    apart = np.abs(scores - np.array([committed[q][d] for q, d in some]))
    say(f"cross-encoder, {len(some)} of {len(pairs):,} pairs read again: at most {apart.max():.4f} apart")
    if apart.max() > TOLERANCE:
        q, d = some[int(apart.argmax())]
        raise WorkbookError(
            f"The cross-encoder's score of {q} and {d} is {apart.max():.3f} away from the committed one, more than "
            f"{TOLERANCE}: find what has changed, or make them anew with `{REMAKE}`."
        )
