"""The systems of the homework: built over one set of passages, run on dev and test, their weights chosen on dev."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.collection import Collection
from helpers.deciding import FEW_DEV
from helpers.evaluation import Qrels, latency, per_query, read_scoreboard, record
from helpers.inspection import ByDocument, fold
from helpers.models import model_key
from helpers.rerankers import Reranker, TwoStage, second_stage
from helpers.retrievers import Retriever, Run, WeightedHybrid, fuse
from helpers.stages import Stages
from helpers.store import fingerprint, write_text

K = 100  # passages kept of a run
RERANKED = (50, 20, 10)  # depths of the second stage; the first whose passages are few enough to keep in memory
MOST_RERANKED = 5000  # passages whose token vectors are held at once: about a gigabyte at 256 tokens
WEIGHTS = tuple(i / 10 for i in range(11))
NOTEBOOK = "11_homework"


@dataclass
class System:
    """A retriever over the searched passages with a key that changes whenever its runs would."""

    name: str
    retriever: Retriever
    key: str
    of_parts: Callable[[str], Run] | None = None  # a split's run from those of its parts, which are there already


@dataclass
class Bench:
    """What all measurements share: the collection that is scored, the passages as they are searched, the stages.

    ``dev_made``: dev consists of made questions. They were turned away for sharing words with their passage, so they do not weigh words
    against vectors.
    """

    collection: Collection
    pieces: Mapping[str, str]
    owner: Mapping[str, str]
    stages: Stages
    systems: dict[str, System] = field(default_factory=dict)
    dev_made: bool = False

    @property
    def tables(self) -> Path:
        """Where vectors are kept."""
        return self.collection.build / "lancedb"

    @property
    def depth(self) -> int:
        """How many chunks are asked for, so that enough documents come of them."""
        return 3 * K if self.owner else K

    def add(self, retriever: Retriever, *key: str, of_parts: Callable[[str], Run] | None = None) -> System:
        """Index the passages, unless the retriever is made of indexed parts; the system is known by the retriever's name from here on."""
        if of_parts is None:
            retriever.index(self.pieces)
        system = System(retriever.name, retriever, fingerprint(retriever.name, *key), of_parts)
        self.systems[system.name] = system
        return system

    def queries(self, split: str) -> tuple[dict[str, str], Qrels]:
        """Queries and qrels of a split; none where the collection does not have it."""
        return self.collection.split(split) if split in self.collection.qrels else ({}, {})

    def chunk_run(self, system: System, split: str) -> Run:
        """The run over the passages as they are searched, kept as a stage."""
        queries, _ = self.queries(split)
        if not queries:
            return {}
        key = [system.key, fingerprint(self.pieces), queries, self.depth]
        make = system.of_parts or (lambda _: system.retriever.retrieve(queries, self.depth))
        return self.stages.run(f"{split}: {system.name}", key, lambda: make(split))

    def run(self, system: System, split: str) -> Run:
        """The run over documents, at most 100 a query."""
        found = self.chunk_run(system, split)
        return fold(found, self.owner, K) if self.owner else found

    def scores(self, system: System, split: str) -> list[float]:
        """nDCG@10 of each query of a split, in one order for all systems; [] where there is no such split."""
        run, qrels = self.run(system, split), self.queries(split)[1]
        return per_query(qrels, run)["ndcg@10"].tolist() if qrels else []

    def best_weight(self, runs: Callable[[float], Run], choose: bool = True) -> tuple[float, float]:
        """(weight, dev nDCG@10): of 0 to 1 in tenths the best on dev, of equal ones the nearest to a half; a half where dev is small or cannot ``choose``."""
        _, qrels = self.queries("dev")

        def score(weight: float) -> float:
            return float(per_query(qrels, fold(runs(weight), self.owner, K))["ndcg@10"].mean())

        if not qrels:
            return 0.5, float("nan")
        if len(qrels) < FEW_DEV or not choose:
            return 0.5, score(0.5)
        means = {w: round(score(w), 6) for w in WEIGHTS}
        best = max(means, key=lambda w: (means[w], -abs(w - 0.5)))
        return best, means[best]

    def hybrid(self, first: System, second: System, name: str) -> System:
        """Weighted fusion of two systems, its weight chosen on dev unless that was made."""
        a, b = (self.chunk_run(system, "dev") for system in (first, second))
        made = self.stages.run(
            f"weight of {name}", [first.key, second.key, fingerprint(a, b), self.queries("dev")[1], self.dev_made],
            lambda: self.best_weight(lambda w: fuse(a, b, w, self.depth), not self.dev_made),
            lambda found: f"{found[0]:.1f} for {second.name}",
        )  # fmt: skip
        mixed = WeightedHybrid(first.retriever, second.retriever, made[0], name)

        def of_parts(split: str) -> Run:
            return fuse(self.chunk_run(first, split), self.chunk_run(second, split), made[0], self.depth)

        return self.add(mixed, first.key, second.key, str(made[0]), of_parts=of_parts)

    def rerank_depth(self, firsts: Sequence[System]) -> int:
        """How many passages a second stage looks at: 50, fewer where dev's best are too many passages to encode by their tokens."""
        runs = [self.chunk_run(first, "dev") for first in firsts]

        def size(depth: int) -> int:
            return len({d for run in runs for docs in run.values() for d in list(docs)[:depth]})

        return next((depth for depth in RERANKED if size(depth) <= MOST_RERANKED), RERANKED[-1])

    def reranked(self, first: System, reranker: Reranker, depth: int, name: str) -> tuple[System, float, float]:
        """(two stages, weight of the second, its dev nDCG@10): a weight of 0 says that dev has no use for it."""
        qrels = self.queries("dev")[1]
        key = [first.key, model_key(reranker.model), depth, fingerprint(self.pieces)]
        run, reranked = self.chunk_run(first, "dev"), self.reranked_run(first, reranker, depth, "dev", name)
        weight, mean = self.stages.run(
            f"weight of {name}", [*key, fingerprint(run), qrels],
            lambda: self.best_weight(lambda w: second_stage(run, reranked, depth, w, self.depth)),
            lambda found: f"{found[0]:.1f} for {reranker.name}",
        )  # fmt: skip
        two = TwoStage(first.retriever, reranker, depth, weight, name)
        two.corpus = self.pieces

        def of_parts(split: str) -> Run:
            again = self.reranked_run(first, reranker, depth, split, name)
            return second_stage(self.chunk_run(first, split), again, depth, weight, self.depth)

        return self.add(two, *map(str, key), str(weight), of_parts=of_parts), weight, mean

    def reranked_run(self, first: System, reranker: Reranker, depth: int, split: str, name: str) -> Run:
        """The reranker's own order of the first stage's best, kept as a stage."""
        queries, run = self.queries(split)[0], self.chunk_run(first, split)
        key = [first.key, model_key(reranker.model), depth, fingerprint(self.pieces), queries]
        return self.stages.run(
            f"{split} reranked: {name}", key, lambda: reranker.rerank(queries, run, self.pieces, depth) if queries else {}
        )  # fmt: skip

    def final(self, system: System) -> Retriever:
        """The system as an application would use it: answers are documents, by their best chunk."""
        return ByDocument(system.retriever, self.owner) if self.owner else system.retriever

    def put_on_scoreboard(self, system: System, split: str) -> dict:
        """Score and record a system with its latency, which is measured once and kept."""
        queries, _ = self.queries(split)
        key = [system.key, fingerprint(self.pieces)]
        ms = self.stages.run(
            f"latency: {system.name}", key, lambda: latency(self.final(system), queries, n=20), lambda ms: f"{ms:.1f} ms a query"
        )  # fmt: skip
        usd = system.retriever.usd_per_1000_queries
        scores = record(self.collection, split, system.name, self.run(system, split), NOTEBOOK, ms, usd)
        return scores | {"ms": ms, "usd": usd}

    def keep_rows(self, names: Sequence[str]) -> None:
        """Take rows of an earlier homework off the scoreboard, of systems that are not there any more; the notebooks' rows stay."""
        board = read_scoreboard(self.collection)
        kept = board[(board["notebook"] != NOTEBOOK) | board["system"].isin(names)]
        if len(kept) < len(board):
            write_text(self.collection.build / "scoreboard.csv", kept.to_csv(index=False, float_format="%.6g"))
