"""What chooses between the homework's checkpoints: a small dev collection, whose documents may be cut into chunks."""

from collections.abc import Mapping

from helpers.choosing import DevRetrieval, dev_corpus
from helpers.evaluation import Qrels
from helpers.inspection import fold
from helpers.measuring import Bench, System
from helpers.retrievers import Run
from helpers.sourcing import Sources
from helpers.store import fingerprint

Queries = Mapping[str, str]
MOST_DEV_RELEVANT = 800  # relevant passages in the small collection
MOST_DEV_POSITIVES = 10  # of one query; nDCG@10 sees no more


class DevByDocument(DevRetrieval):
    """nDCG@10 on dev where passages were cut: a document ranks by its best chunk. ``qrels`` name documents."""

    def __init__(self, queries: Queries, qrels: Qrels, corpus: Mapping[str, str], owner: Mapping[str, str]):
        super().__init__(queries, qrels, corpus)
        self.owner = dict(owner)
        self.key = fingerprint(self.key, self.owner)

    def retrieve(self, model, k: int = 10) -> Run:
        """The k best documents for each dev query."""
        return fold(super().retrieve(model, 3 * k), self.owner, k)


def parts_of(bench: Bench) -> dict[str, list[str]]:
    """{doc_id: its chunks}, of the passages that were cut."""
    parts: dict[str, list[str]] = {}
    for piece, doc in bench.owner.items():
        parts.setdefault(doc, []).append(piece)
    return parts


def best_positives(positives: Qrels, most: int) -> dict[str, dict[str, int]]:
    """At most so many relevant passages for each query, the best graded, of equal ones some by a hash."""
    found = {}
    for q, docs in positives.items():
        right = sorted((d for d, grade in docs.items() if grade > 0), key=lambda d: (-docs[d], fingerprint(q, d)))
        found[q] = {d: docs[d] for d in right[:most]}
    return found


def dev_set(bench: Bench, sources: Sources, base: System) -> tuple[DevRetrieval, dict[str, dict[str, int]]]:
    """(what chooses checkpoints, dev qrels over chunks): every chunk of a right document counts as right in the latter.

    What chooses has at most ten relevant passages a query, and only as many queries as keep it small.
    """
    qrels = sources.dev_qrels
    if bench.owner:
        parts = parts_of(bench)
        qrels = {q: {p: g for d, g in docs.items() for p in parts.get(d, [d])} for q, docs in qrels.items()}
    few: dict[str, dict[str, int]] = {}
    chosen: set[str] = set()
    for q, docs in sorted(
        best_positives(qrels, MOST_DEV_POSITIVES).items(), key=lambda item: fingerprint("small dev", item[0])
    ):
        if not few or len(chosen.union(docs)) <= MOST_DEV_RELEVANT:
            few[q] = docs
            chosen.update(docs)
    few = {q: few[q] for q in sources.dev if q in few}
    small = dev_corpus(bench.pieces, few, bench.chunk_run(base, "dev"))
    queries, right = {q: sources.dev[q] for q in few}, {q: sources.dev_qrels[q] for q in few}
    if bench.owner:
        return DevByDocument(queries, right, small, bench.owner), qrels
    return DevRetrieval(queries, right, small), qrels
