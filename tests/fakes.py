"""Stand-ins for models, quick and the same everywhere."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from werkzeug import Response

from helpers.collection.collection import Collection

KEY = "sk-Secret0Value1That2Nobody3May4See"  # no real one


class FakeEmbedder:
    """A text's vector is the sum of one random vector a word, scaled to unit length.

    Texts that share words are close; ``embedded`` holds every text that was asked for, in order.
    """

    def __init__(self, name: str = "fake", width: int = 32):
        self.name, self.width, self.key = name, width, f"{name}{width}"
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str], task: str) -> np.ndarray:
        self.embedded += texts
        return np.array([self._vector(text) for text in texts], dtype=np.float32).reshape(len(texts), self.width)

    def _vector(self, text: str) -> np.ndarray:
        words = sorted(text.lower().split()) or [""]
        seeds = [int.from_bytes(hashlib.sha256(f"{self.name} {word}".encode()).digest()[:8], "big") for word in words]
        vector = sum(np.random.default_rng(seed).standard_normal(self.width) for seed in seeds)
        return vector / np.linalg.norm(vector)


def random_texts(n: int, seed: int = 0, words: int = 40, length: int = 12) -> list[str]:
    """Texts of 1 to ``length`` made-up words, some of them frequent and most of them rare, as in a language."""
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, words + 1)
    vocabulary = [f"{a}{b}{c}" for a in "bdfgk" for b in "aou" for c in "lmnprt"][:words]
    lengths = rng.integers(1, length + 1, size=n)
    return [" ".join(rng.choice(vocabulary, size=size, p=shares / shares.sum())) for size in lengths]


def failure(status: int, body: str | None = None, content_type: str = "application/json", **headers: str) -> Response:
    """An error answer, with a message that repeats the key as a careless service might."""
    message = (
        body
        if body is not None
        else json.dumps({"error": {"message": f"problem with key {KEY}"}, "message": f"key {KEY}"})
    )
    return Response(message, status, headers, content_type=content_type)


def tiny_encoder(folder):
    """An encoder of the packaged one's kind and vocabulary, stored in ``folder``.

    It has two layers of width 32 and random weights.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoTokenizer, BertConfig, BertModel

    from helpers.models.packaged import MINILM, package_folder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
        BertModel(config).save_pretrained(folder / "bert")
    AutoTokenizer.from_pretrained(package_folder(MINILM)).save_pretrained(folder / "bert")
    words = Transformer(str(folder / "bert"), max_seq_length=64)
    modules = [words, Pooling(32, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "tiny"))
    return SentenceTransformer(str(folder / "tiny"), device="cpu")


def save_beir(collection: Collection, folder: Path) -> None:
    """Write the collection as a BEIR folder; ``open_collection(folder)`` gives it back."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)

    def lines(texts: dict[str, str], info: dict[str, dict]) -> str:
        rows = ({"_id": i, "text": t, **({"metadata": info[i]} if info.get(i) else {})} for i, t in texts.items())
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    (folder / "corpus.jsonl").write_text(lines(collection.corpus, {}), encoding="utf-8")
    if collection.queries:
        (folder / "queries.jsonl").write_text(lines(collection.queries, collection.query_info), encoding="utf-8")
    for split, qrels in collection.qrels.items():
        rows = [f"{q}\t{d}\t{grade}\n" for q, docs in qrels.items() for d, grade in docs.items()]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), encoding="utf-8")
