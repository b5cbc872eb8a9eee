"""Has a model become worse at other things by tuning? Two tests: finding related passages, and everyday questions."""

import re
from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, Field

from helpers.evaluation.measures import per_query
from helpers.models.embed import Embedder
from helpers.retrieval.first_stages import nearest
from helpers.store.files import DATA, WorkbookError
from helpers.store.rows import Text, read_rows

Texts = dict[str, str]
_SEE_ALSO = re.compile(r"^See Also[ \t]*\n-+[ \t]*\n(.*?)(?=\n\S[^\n]*\n-{3,}|\Z)", re.S | re.M)
_ROLE = re.compile(r"(?::py)?:\w+:`~?([\w.]+)`")
_COLON = re.compile(r"\s*:(?=\s|$)")  # between the names of a line and what they do


def see_also(pages: Mapping[str, str], corpus: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Which passages are related: {doc: {linked doc: 1}}, from the "See Also" sections of reference pages.

    Pages without such a section are left out. The pages are in numpydoc's form. A short name is looked up beside the
    page (``numpy.cumsum`` for ``cumsum`` on ``numpy.sum``), then further up.
    """
    links: dict[str, dict[str, int]] = {}
    for doc, page in pages.items():
        section = _SEE_ALSO.search(page)
        if doc not in corpus or section is None:
            continue
        lines = [_ROLE.sub(r"\1", line) for line in section[1].splitlines() if line and not line[0].isspace()]
        heads = [_COLON.split(line, maxsplit=1)[0] for line in lines if not line.startswith("..")]
        names = [name for head in heads for name in re.split(r"[,\s]+", head) if name]
        linked = {target for name in names if (target := _resolved(name, doc, corpus)) and target != doc}
        if linked:
            links[doc] = dict.fromkeys(sorted(linked), 1)
    return links


def _resolved(name: str, page: str, corpus: Mapping[str, str]) -> str | None:
    name, parts = name.strip("`,.").removesuffix("()"), page.split(".")
    candidates = [name, *(f"{'.'.join(parts[:i])}.{name}" for i in range(len(parts) - 1, 0, -1))]
    return next((candidate for candidate in candidates if candidate in corpus), None)


def relatedness(embedder: Embedder, corpus: Mapping[str, str], links: Mapping[str, Mapping[str, int]]) -> np.ndarray:
    """How well each page's links are found as its nearest neighbours: nDCG@10, of shape (links,), in their order.

    The passage itself does not count as a neighbour.
    """
    ids = sorted(corpus)
    vectors = embedder.embed([corpus[d] for d in ids], "document")
    place = {d: i for i, d in enumerate(ids)}
    run = nearest(dict.fromkeys(links, ""), vectors[[place[d] for d in links]], ids, vectors, 11)
    run = {doc: {d: s for d, s in docs.items() if d != doc} for doc, docs in run.items()}
    return per_query(links, run).loc[list(links), "ndcg@10"].to_numpy()


class _Pair(BaseModel):
    """An ordinary question and the passage that answers it."""

    id: Text = Field(alias="_id")
    question: Text
    answer: Text


def everyday() -> tuple[Texts, Texts, dict[str, dict[str, int]]]:
    """(corpus, queries, qrels) of ordinary questions with one right passage each.

    They were written for the course by a language model. Raises WorkbookError when their file is missing.
    """
    path = DATA / "everyday" / "pairs.jsonl"
    if not path.is_file():
        raise WorkbookError(f"{path} is missing: fetch the workbook anew.")
    pairs = read_rows(path, _Pair, unique="id").values()
    corpus = {f"a-{pair.id}": pair.answer for pair in pairs}
    queries = {f"q-{pair.id}": pair.question for pair in pairs}
    return corpus, queries, {f"q-{pair.id}": {f"a-{pair.id}": 1} for pair in pairs}


def answered(embedder: Embedder, corpus: Mapping[str, str], queries: Mapping[str, str], qrels) -> np.ndarray:
    """nDCG@10 of each query by exact search over the corpus, of shape (queries,), in the order of the queries."""
    ids = sorted(corpus)
    passages = embedder.embed([corpus[d] for d in ids], "document")
    run = nearest(queries, embedder.embed(list(queries.values()), "query"), ids, passages, 10)
    return per_query(qrels, run).loc[list(queries), "ndcg@10"].to_numpy()
