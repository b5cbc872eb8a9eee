"""What the homework leaves behind: the chosen model in a folder, its costs, and failures to look at."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router

from helpers.collection.collection import Collection
from helpers.evaluation.measures import Qrels, per_query
from helpers.homework.systems import System
from helpers.models.packaged import quiet_files
from helpers.models.services import price
from helpers.retrieval.first_stages import Run
from helpers.store.files import WorkbookError, write_text

LICENCES = (
    "Licences: the packaged encoders are all-MiniLM-L6-v2 (Apache-2.0) and bge-small-en-v1.5 (MIT), the packaged "
    "cross-encoder is ms-marco-MiniLM-L12-v2 (Apache-2.0); a model of your own has its own. All three were trained on "
    "MS MARCO among other data, which is offered for non-commercial research."
)
API_MODEL = "text-embedding-3-small"
MOST_FAILURES = 10


def with_adapter(encoder: SentenceTransformer, matrix: np.ndarray) -> SentenceTransformer:
    """The encoder with the adapter inside: ``encode_query`` applies the matrix, ``encode_document`` does not.

    ``matrix`` has the shape (width, width), as ``train_adapter`` gives it. Queries and documents share all other
    layers, so the folder is hardly bigger.
    """
    width = matrix.shape[0]
    turn = Dense(
        width, width, bias=False, activation_function=torch.nn.Identity(), init_weight=torch.from_numpy(matrix.T.copy())
    )
    route = Router({"query": [turn, Normalize()], "document": [Normalize()]}, default_route="document")
    modules = [*encoder.children(), route]
    return SentenceTransformer(modules=modules, device=str(encoder.device), prompts=dict(encoder.prompts or {}))


def loading(folder: str) -> dict[str, str]:
    """{library: three lines of code that load and use the model}, for sentence-transformers alone and for LanceDB."""
    return {
        "sentence-transformers": f"""from sentence_transformers import SentenceTransformer
model = SentenceTransformer({folder!r})
scores = model.similarity(model.encode_query("a question"), model.encode_document(["a passage"]))""",
        "LanceDB": """import lancedb
table = lancedb.connect("index").create_table("passages", \
[{"text": t, "vector": model.encode_document(t)} for t in passages])
hits = table.search(model.encode_query("a question")).distance_type("dot").limit(10).to_list()""",
    }


def hand_over(folder: Path, encoder: SentenceTransformer, matrix: np.ndarray | None, search: Mapping[str, Any]) -> None:
    """Write the model, search.json (what the system does beside it) and a README.md into ``folder``, all or nothing.

    ``search`` is the content of search.json. A folder that has the same ``key`` in it is left as it is.
    """
    try:
        if json.loads((folder / "search.json").read_text(encoding="utf-8"))["key"] == search["key"]:
            return
    except (OSError, ValueError, KeyError):
        pass
    model = encoder if matrix is None else with_adapter(encoder, matrix)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with quiet_files():
            model.save_pretrained(str(part), create_model_card=False)
        lines = "\n\n".join(f"With {name}:\n\n```python\n{code}\n```" for name, code in loading(folder.name).items())
        paragraphs = [f"# {search['system']}", search["decision"], lines, search["beside"], LICENCES]
        write_text(part / "README.md", "\n\n".join(filter(None, paragraphs)) + "\n")
        write_text(part / "search.json", json.dumps(search, indent=1, ensure_ascii=False))
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except OSError as error:
        raise WorkbookError(f"Cannot write {folder} ({error.strerror}): free some space and run again.") from error


def costs(passages: int, tokens: int, query_tokens: float, encode_seconds: float) -> dict[str, float]:
    """What it costs to host the encoder, as measured here, and to rent one, by the dated price table.

    ``encode_seconds`` is the time for all passages. Prices are dollars for API_MODEL, for the passages once and for
    1,000 queries; they are nan where the table has none.
    """
    per_token = price(API_MODEL, "usd_per_million_input_tokens") / 1e6
    return {
        "passages": passages,
        "tokens": tokens,
        "encode_seconds": encode_seconds,
        "passages_per_second": passages / encode_seconds if encode_seconds > 0 else float("nan"),
        "api_usd_index": tokens * per_token,
        "api_usd_1000_queries": 1000 * query_tokens * per_token,
    }


def failures(collection: Collection, queries: Mapping[str, str], qrels: Qrels, run: Run, base: Run) -> list[dict]:
    """Queries with nothing right among the first ten of ``run``, at most ten, the worst losses against ``base`` first.

    Each is a row with the query, the passage wanted and its rank (0: not found), and what came first.
    """
    if not qrels:
        return []
    scores, before = per_query(qrels, run), per_query(qrels, base)
    change = (scores - before)["ndcg@10"]
    failed = sorted(scores.index[scores["recall@10"] == 0], key=lambda q: (change[q], q))[:MOST_FAILURES]
    rows = []
    for q in failed:
        wanted = max(qrels[q], key=lambda d, q=q: (qrels[q][d], d))
        rank = {d: r for r, d in enumerate(run.get(q, {}), 1)}.get(wanted, 0)
        came = next(iter(run.get(q, {})), "")
        texts = [collection.corpus.get(d, "") for d in (wanted, came)]
        rows.append(
            {
                "query": queries[q],
                "wanted": wanted,
                "wanted_text": texts[0][:200],
                "rank": rank,
                "came": came,
                "came_text": texts[1][:200],
                "lost": bool(change[q] < 0),
            }
        )
    return rows


def beside_the_model(system: System, cut: bool) -> str:
    """What the system does beside comparing the model's vectors, in sentences; "" where that is all.

    ``cut`` says whether long passages were cut into chunks.
    """
    sentences = []
    first = system.first or system
    if system.first:
        two = system.retriever
        sentences.append(
            f"It puts the best {two.depth} passages in order by {two.reranker.name}, weighing {system.weight:.1f}, "
            f"and the first stage, weighing {1 - system.weight:.1f} (helpers/retrieval/rerankers.py)."
        )
    if first.words:
        sentences.append(
            f"It adds BM25, weighing {1 - first.weight:.1f}, to the vectors, weighing {first.weight:.1f} "
            "(helpers/retrieval/first_stages.py, WeightedHybrid)."
        )
    if first.questions:
        sentences.append(
            f"Its index holds {first.questions:,} questions beside the passages, and a passage ranks by the best of "
            "itself and its questions (helpers/retrieval/first_stages.py, with_questions)."
        )
    if system.lexical and not system.first:
        sentences.append("BM25 alone does the search; the model is here for comparison.")
    if cut:
        sentences.append(
            "It cuts long passages into chunks, and a document ranks by its best one (helpers/collection/chunking.py)."
        )
    return " ".join(sentences)
