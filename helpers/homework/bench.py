"""The systems of the homework: built over one set of passages, run on dev and test, their weights chosen on dev."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from helpers.collection.collection import Collection
from helpers.evaluation.measures import Qrels, latency, per_query, read_scoreboard, record
from helpers.homework.deciding import FEW_DEV
from helpers.retrieval.first_stages import ByDocument, Retriever, Run, WeightedHybrid, fuse, max_pool
from helpers.retrieval.rerankers import Reranker, TwoStage, second_stage
from helpers.store.files import fingerprint, write_text
from helpers.store.stages import Stages

K = 100  # documents that a run keeps for each query
RERANKED = (50, 20, 10)  # depths of the second stage; the first whose passages are few enough to keep in memory
MOST_RERANKED = 5000  # passages whose token vectors are held at once: about a gigabyte at 256 tokens
WEIGHTS = tuple(i / 10 for i in range(11))
NOTEBOOK = "11_homework"


@dataclass
class System:
    """A retriever over the searched passages, with a key that changes whenever its runs would change.

    ``of_parts(split)`` is for a system that is made of others: a function and its inputs, such as the runs of its
    parts, that together give its own run.
    """

    name: str
    retriever: Retriever
    key: str
    of_parts: Callable[[str], tuple] | None = None


def _retrieved(system: System, queries: Mapping[str, str], depth: int) -> Run:
    return system.retriever.retrieve(queries, depth)


def _latency(system: System, owner: Mapping[str, str], queries: Mapping[str, str]) -> float:
    return latency(by_document(system, owner), queries, n=20)


def _reranked(reranker: Reranker, queries: Mapping[str, str], run: Run, texts: Mapping[str, str], depth: int) -> Run:
    return reranker.rerank(queries, run, texts, depth)


def by_document(system: System, owner: Mapping[str, str]) -> Retriever:
    """The system as an application would use it: answers are documents, by their best chunk."""
    return ByDocument(system.retriever, owner) if owner else system.retriever


def best_weight(
    runs: Callable[[float], Run], qrels: Qrels, owner: Mapping[str, str], choose: bool = True
) -> tuple[float, float]:
    """(weight, its nDCG@10 on dev): the weight, in steps of 0.1, whose run is best; of equal ones the nearest to 0.5.

    ``runs(weight)`` gives the run, ``qrels`` are those of dev. The weight is 0.5 without a choice where dev has fewer
    than ``FEW_DEV`` queries or ``choose`` is False; the score is nan where dev has none.
    """

    def score(weight: float) -> float:
        return float(per_query(qrels, max_pool(runs(weight), owner, K))["ndcg@10"].mean())

    if not qrels:
        return 0.5, float("nan")
    if len(qrels) < FEW_DEV or not choose:
        return 0.5, score(0.5)
    means = {w: round(score(w), 6) for w in WEIGHTS}
    best = max(means, key=lambda w: (means[w], -abs(w - 0.5)))
    return best, means[best]


def fusion_weight(
    first: Run, second: Run, qrels: Qrels, owner: Mapping[str, str], depth: int, choose: bool
) -> tuple[float, float]:
    """``best_weight`` of the second run in a fusion with the first."""
    return best_weight(lambda w: fuse(first, second, w, depth), qrels, owner, choose)


def second_stage_weight(
    run: Run, reranked: Run, cut: int, qrels: Qrels, owner: Mapping[str, str], depth: int
) -> tuple[float, float]:
    """``best_weight`` of a reranker's scores beside the first stage's, whose best ``cut`` passages it has scored."""
    return best_weight(lambda w: second_stage(run, reranked, cut, w, depth), qrels, owner)


@dataclass
class Bench:
    """What all measurements share: the collection that is scored, the passages as they are searched, and the stages.

    pieces : {piece_id: text}, the passages as they are searched;  owner : {piece_id: doc_id} of those that were cut
    systems : {name: system} of all that were added
    dev_made : whether dev consists of generated questions. Those that share words with their passage were rejected when
        they were made, so they cannot weigh words against vectors.
    """

    collection: Collection
    pieces: Mapping[str, str]
    owner: Mapping[str, str]
    stages: Stages
    systems: dict[str, System] = field(default_factory=dict)
    dev_made: bool = False
    _runs: dict[str, Run] = field(default_factory=dict, repr=False)

    @property
    def tables(self) -> Path:
        """The folder where vectors are kept."""
        return self.collection.build / "lancedb"

    @property
    def depth(self) -> int:
        """How many passages are asked for at a query.

        Where passages were cut it is three times as many, so that enough documents come of the chunks.
        """
        return 3 * K if self.owner else K

    @cached_property
    def pieces_key(self) -> str:
        """A fingerprint of the passages as they are searched."""
        return fingerprint(self.pieces)

    def add(self, retriever: Retriever, of_parts: Callable[[str], tuple] | None = None) -> System:
        """Index the passages and add the system under the retriever's name.

        With ``of_parts`` nothing is indexed, for the parts have done that already.
        """
        if of_parts is None:
            retriever.index(self.pieces)
        system = System(
            retriever.name, retriever, fingerprint(retriever.name, retriever.key, self.pieces_key), of_parts
        )
        self.systems[system.name] = system
        return system

    def queries(self, split: str) -> tuple[dict[str, str], Qrels]:
        """(queries, qrels) of a split; both empty where the collection does not have it."""
        return self.collection.split(split) if split in self.collection.qrels else ({}, {})

    def chunk_run(self, system: System, split: str) -> Run:
        """The system's run over the passages as they are searched, chunks included; it is kept as a stage."""
        queries, _ = self.queries(split)
        if not queries:
            return {}
        key = fingerprint(system.key, queries, self.depth)
        if key not in self._runs:
            make, *inputs = system.of_parts(split) if system.of_parts else (_retrieved, system, queries, self.depth)
            self._runs[key] = self.stages.run(f"{split}: {system.name}", make, *inputs)
        return self._runs[key]

    def run(self, system: System, split: str) -> Run:
        """The system's run over documents, at most 100 for each query."""
        found = self.chunk_run(system, split)
        return max_pool(found, self.owner, K) if self.owner else found

    def scores(self, system: System, split: str) -> list[float]:
        """nDCG@10 of each query of a split, in the same order for all systems; [] where there is no such split."""
        run, qrels = self.run(system, split), self.queries(split)[1]
        return per_query(qrels, run)["ndcg@10"].tolist() if qrels else []

    def hybrid(self, first: System, second: System, name: str) -> System:
        """Add a weighted fusion of two systems; the weight is chosen on dev, or 0.5 if it is ``dev_made``."""
        runs = [self.chunk_run(system, "dev") for system in (first, second)]
        weight, _ = self.stages.run(
            f"weight of {name}",
            fusion_weight,
            *runs,
            self.queries("dev")[1],
            self.owner,
            self.depth,
            not self.dev_made,
            tell=lambda found: f"{found[0]:.1f} for {second.name}",
        )
        mixed = WeightedHybrid(first.retriever, second.retriever, weight, name)

        def of_parts(split: str) -> tuple:
            return fuse, self.chunk_run(first, split), self.chunk_run(second, split), weight, self.depth

        return self.add(mixed, of_parts)

    def rerank_depth(self, firsts: Sequence[System]) -> int:
        """How many passages a second stage reorders: 50, or fewer where memory cannot hold their token vectors.

        It is the first of ``RERANKED`` at which the best of all dev queries are at most ``MOST_RERANKED`` passages.
        """
        runs = [self.chunk_run(first, "dev") for first in firsts]

        def size(depth: int) -> int:
            return len({d for run in runs for docs in run.values() for d in list(docs)[:depth]})

        return next((depth for depth in RERANKED if size(depth) <= MOST_RERANKED), RERANKED[-1])

    def reranked(self, first: System, reranker: Reranker, depth: int, name: str) -> tuple[System, float, float]:
        """Add a two-stage system; returns (system, the reranker's weight, its nDCG@10 on dev).

        A weight of 0 says that on dev the reranker does not help.
        """
        run, reranked = self.chunk_run(first, "dev"), self.reranked_run(first, reranker, depth, "dev", name)
        weight, mean = self.stages.run(
            f"weight of {name}",
            second_stage_weight,
            run,
            reranked,
            depth,
            self.queries("dev")[1],
            self.owner,
            self.depth,
            tell=lambda found: f"{found[0]:.1f} for {reranker.name}",
        )
        two = TwoStage(first.retriever, reranker, depth, weight, name)
        two.corpus = self.pieces

        def of_parts(split: str) -> tuple:
            again = self.reranked_run(first, reranker, depth, split, name)
            return second_stage, self.chunk_run(first, split), again, depth, weight, self.depth

        return self.add(two, of_parts), weight, mean

    def reranked_run(self, first: System, reranker: Reranker, depth: int, split: str, name: str) -> Run:
        """The first stage's best passages in the reranker's own order; it is kept as a stage."""
        queries, run = self.queries(split)[0], self.chunk_run(first, split)
        if not queries:
            return {}
        texts = {d: self.pieces[d] for docs in run.values() for d in docs}
        return self.stages.run(f"{split} reranked: {name}", _reranked, reranker, queries, run, texts, depth)

    def final(self, system: System) -> Retriever:
        """The system as an application would use it: answers are documents, by their best chunk."""
        return by_document(system, self.owner)

    def put_on_scoreboard(self, system: System, split: str) -> dict:
        """Score a system and record it with its latency, which is measured once and kept.

        Returns its scores with "ms" (a query) and "usd" (1,000 queries).
        """
        asked = self.queries("test")[0] or self.queries("dev")[0]
        name = f"latency: {system.name}"
        ms = self.stages.run(name, _latency, system, self.owner, asked, tell=lambda ms: f"{ms:.1f} ms a query")
        usd = system.retriever.usd_per_1000_queries
        scores = record(self.collection, split, system.name, self.run(system, split), NOTEBOOK, ms, usd)
        return scores | {"ms": ms, "usd": usd}

    def keep_rows(self, names: Sequence[str]) -> None:
        """Take the homework's systems that are not among ``names`` off the scoreboard; the notebooks' rows stay."""
        board = read_scoreboard(self.collection)
        kept = board[(board["notebook"] != NOTEBOOK) | board["system"].isin(names)]
        if len(kept) < len(board):
            write_text(self.collection.build / "scoreboard.csv", kept.to_csv(index=False, float_format="%.6g"))
