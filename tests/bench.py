"""``make bench``: ratios from one run, ours beside the plain library call; absolute times are this machine's."""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from rank_bm25 import BM25Okapi
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import PrinterCallback

from helpers.collection.collection import Collection, open_collection
from helpers.collection.text import tokenize
from helpers.evaluation.choosing import DevRetrieval, dev_corpus
from helpers.evaluation.measures import per_query
from helpers.models.embed import encode
from helpers.models.load import full_name, load_encoder, load_late_interaction, load_reranker
from helpers.models.packaged import packaged_folder
from helpers.retrieval.first_stages import BM25
from helpers.retrieval.rerankers import CrossEncoderReranker, LateInteraction
from helpers.training.export import to_dataset
from helpers.training.fitting import Recipe, prepared
from helpers.training.losses import loss_for
from helpers.training.triplets import build_triplets
from helpers.training.tune import open_training_set, sample_queries

ROUNDS = 3


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired(plain: Callable, ours: Callable, rounds: int = ROUNDS) -> tuple[float, float, float]:
    """Median seconds of each, taken in turn, and the median of the ratios plain / ours."""
    pairs = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    return (
        statistics.median(p for p, _ in pairs),
        statistics.median(o for _, o in pairs),
        statistics.median(p / o for p, o in pairs),
    )


def bench_encoding(name: str, texts: list[str]) -> None:
    """The same texts by ``SentenceTransformer.encode`` with its defaults, and in our batches of like length."""
    encoder, plain = load_encoder(name), SentenceTransformer(str(packaged_folder(full_name(name))))
    plain.encode(texts[:32])
    encode(encoder, texts[:32])
    a, b, ratio = paired(lambda: plain.encode(texts, show_progress_bar=False), lambda: encode(encoder, texts))
    same = np.allclose(plain.encode(texts[:200]), np.array(encode(encoder, texts[:200])), atol=1e-5)
    print(
        f"encoding {len(texts)} passages by {name}: plain {a:.1f} s, ours {b:.1f} s, "
        f"ours is {ratio:.2f} times as fast (same vectors: {same})"
    )


def train(model: SentenceTransformer, rows: Dataset, loss: torch.nn.Module) -> None:
    """One epoch of the library's trainer in batches of 64 without duplicates; nothing is evaluated or saved."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=64,
            batch_sampler="no_duplicates",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss)
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def bench_training(collection: Collection, questions: int = 128) -> None:
    """The same rows by a plain ``SentenceTransformerTrainer`` call, and with the course's loss and recipe;
    then a dev evaluation.
    """
    data = open_training_set(collection)
    queries, positives = sample_queries(data, questions, seed=0)
    for form, kind in (("pairs", "in-batch"), ("tuples", "random")):
        rows = to_dataset(build_triplets(collection.corpus, queries, positives, kind), collection.corpus, form)

        def plain(rows=rows):
            model = load_encoder()
            train(model, rows, MultipleNegativesRankingLoss(model))

        def ours(rows=rows):
            model = load_encoder()
            with prepared(model, Recipe()):
                train(model, rows, loss_for(model, Recipe().scale, Recipe().dimensions))

        a, b, ratio = paired(plain, ours, rounds=2)
        print(
            f"training on {len(rows)} {form}: plain {len(rows) / a:.1f} rows/s, ours {len(rows) / b:.1f} rows/s, "
            f"ours is {ratio:.2f} times as fast"
        )
    encoder = load_encoder()
    run = {q: dict.fromkeys(docs, 1.0) for q, docs in data.dev_qrels.items()}
    dev = DevRetrieval(data.dev, data.dev_qrels, dev_corpus(collection.corpus, data.dev_qrels, run))
    once = min(seconds(lambda: per_query(dev.qrels, dev.retrieve(encoder))) for _ in range(ROUNDS))
    print(f"one dev evaluation: {once:.1f} s, as long as training on {once * len(rows) / b:.0f} such rows")


def bench_rerankers(collection: Collection, depth: int = 20, queries: int = 10) -> None:
    """Pairs of query and passage a second: late interaction with and without the passages' vectors, a cross-encoder."""
    some = dict(list(collection.queries.items())[:queries])
    first = BM25().index(collection.corpus).retrieve(some, depth)
    pairs = sum(map(len, first.values()))
    late = LateInteraction(load_late_interaction(), None)
    cold = seconds(lambda: late.rerank(some, first, collection.corpus, depth))
    warm = seconds(lambda: late.rerank(some, first, collection.corpus, depth))
    print(f"reranking, pairs/s: late interaction {pairs / cold:.0f} at first, {pairs / warm:.0f} with known passages")
    cross = load_reranker("ms-marco-minilm")
    texts = [(some[q], collection.corpus[d]) for q, docs in first.items() for d in docs]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            CrossEncoderReranker(cross, Path(folder)).rerank(some, first, collection.corpus, depth)

    a, b, ratio = paired(lambda: cross.predict(texts, show_progress_bar=False), ours)
    print(
        f"cross-encoder, {pairs} pairs: plain {pairs / a:.0f} pairs/s, ours {pairs / b:.0f} pairs/s, "
        f"ours is {ratio:.2f} times as fast"
    )


def synthetic(texts: list[str], n: int, rng: np.random.Generator) -> list[str]:
    """n passages with the words of real ones, shuffled together in pairs."""
    words = [t.split() for t in texts]
    picks = rng.integers(0, len(words), size=(n, 2))
    return [" ".join(rng.permutation(words[i] + words[j])[: len(words[i])]) for i, j in picks]


def bench_search(texts: list[str], queries: list[str], sizes: tuple[int, ...]) -> None:
    """Milliseconds a query, and how they grow, for dense search and three BM25 engines."""
    rng = np.random.default_rng(0)
    table: dict[str, list[float]] = {}
    for size in sizes:
        passages = texts[:size] if size <= len(texts) else synthetic(texts, size, rng)
        corpus = {f"d{i}": text for i, text in enumerate(passages)}
        vectors = rng.normal(size=(size, 384)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        with tempfile.TemporaryDirectory() as folder:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 384)
            rows = pa.table({"id": list(corpus), "text": passages, "vector": column})
            dense = lancedb.connect(Path(folder)).create_table("t", rows)
            dense.create_index("text", config=lancedb.index.FTS())
            engines = {
                "LanceDB dense, exact": lambda q, t=dense, v=vectors: t.search(v[len(q)]).limit(10).to_arrow(),
                "LanceDB full text": lambda q, t=dense: (
                    t.search(lancedb.query.MatchQuery(q, "text")).limit(10).to_arrow()
                ),
            }
            okapi, bm25 = BM25Okapi([tokenize(text) for text in passages]), BM25().index(corpus)
            engines["BM25 by rank-bm25"] = lambda q, o=okapi, i=list(corpus): o.get_top_n(tokenize(q), i, 10)
            engines["BM25 by bm25s"] = lambda q, i=bm25: i.search(q, 10)
            for name, search in engines.items():
                search(queries[0])
                took = [seconds(lambda q=q, s=search: s(q)) * 1000 for q in queries[:20]]
                table.setdefault(name, []).append(statistics.median(took))
    print(f"\nms a query{'':<14}" + "".join(f"{size:>12,}" for size in sizes) + f"{'growth':>12}")
    for name, took in table.items():
        print(f"{name:<24}" + "".join(f"{ms:>12.2f}" for ms in took) + f"{took[-1] / took[0]:>11.1f}x")
    a, b = table["BM25 by rank-bm25"], table["BM25 by bm25s"]
    print("\nrank-bm25 / bm25s: " + ", ".join(f"{x / y:.1f} at {s:,}" for s, x, y in zip(sizes, a, b, strict=True)))


def main() -> None:
    """Run all benchmarks."""
    collection = open_collection("pydocs")
    texts, queries = list(collection.corpus.values()), list(collection.queries.values())
    for name in ("minilm", "bge-small"):
        bench_encoding(name, texts[:800])
    bench_training(collection)
    bench_rerankers(collection)
    bench_search(texts, queries, (3_000, 20_000, 100_000))


if __name__ == "__main__":
    main()
