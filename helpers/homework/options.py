"""What could be trained on, or put into the index beside the passages: judged queries, made questions, headings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from helpers.collection.repeats import Repeats
from helpers.collection.text import normalise
from helpers.evaluation.measures import Qrels
from helpers.homework.chunks import Chunks
from helpers.homework.sources import Labels, Queries, Sources
from helpers.models.embed import Embedder
from helpers.store.files import fingerprint

MOST_HEADINGS = 1000
MOST_POSITIVES = 5  # passages of one query that are trained on
HEADLESS = " (body)"  # after a doc id: its text without the heading, for training alone
# A heading: the first line, or what stands before the first colon, full stop, question or exclamation mark.
_HEADING = re.compile(r"^(?P<head>[^\n]{3,150}?)(?:\n+|[:.?!]\s+)(?P<body>\S.*)$", re.S)


def best_positives(positives: Qrels, most: int) -> Labels:
    """At most ``most`` relevant passages for each query, the best graded; a hash decides between equal grades."""
    best = {}
    for q, docs in positives.items():
        right = sorted((d for d, grade in docs.items() if grade > 0), key=lambda d: (-docs[d], fingerprint(q, d)))
        best[q] = {d: docs[d] for d in right[:most]}
    return best


def headings(corpus: Mapping[str, str], most: int = MOST_HEADINGS) -> tuple[Queries, Labels, dict[str, str]]:
    """Titles and headings as queries for the rest of their passages, which needs no LLM.

    A heading is a passage's first line, or what stands before its first colon or full stop: 2 to 20 words, before at
    least 8 more. Returns ({id: heading}, {id: {doc + HEADLESS: 1}}, {doc + HEADLESS: the passage without its heading}).
    Source: the inverse cloze task, Lee, Chang and Toutanova, ACL 2019.
    """
    queries: Queries = {}
    positives: Labels = {}
    headless: dict[str, str] = {}
    seen: set[str] = set()
    for doc in sorted(corpus, key=lambda d: fingerprint("opening", d)):
        match = _HEADING.match(corpus[doc].strip())
        if len(queries) == most or not match:
            continue
        parts = match["head"].split(" › ")
        head = normalise(" ".join(parts[1:] if len(parts) > 1 else parts).strip("#*= "))  # without the document's name
        if not 2 <= len(head.split()) <= 20 or len(match["body"].split()) < 8 or head.lower() in seen:
            continue
        seen.add(head.lower())
        query = f"o-{fingerprint(doc)[:12]}"
        queries[query], positives[query] = head, {doc + HEADLESS: 1}
        headless[doc + HEADLESS] = match["body"].strip()
    return queries, positives, headless


def to_chunks(chunks: Chunks, queries: Queries, positives: Qrels, embedder: Embedder) -> Labels:
    """Positives as they are searched: of a passage that was cut, the chunk that is nearest to the query."""
    if not chunks.parents or not positives:
        return {q: dict(docs) for q, docs in positives.items()}
    wanted = sorted({chunk for docs in positives.values() for doc in docs for chunk in chunks.parts.get(doc, ())})
    vectors = dict(zip(wanted, embedder.embed([chunks.texts[c] for c in wanted], "document"), strict=True))
    asked = dict(zip(positives, embedder.embed([queries[q] for q in positives], "query"), strict=True))
    over_chunks: Labels = {}
    for q, docs in positives.items():
        for doc, grade in docs.items():
            nearest = max(chunks.parts.get(doc, [doc]), key=lambda c, q=q: vectors[c] @ asked[q] if c in vectors else 0)
            over_chunks.setdefault(q, {})[nearest] = grade
    return over_chunks


def once(queries: Queries, positives: Qrels) -> tuple[Queries, Labels]:
    """(queries, positives) with each query text once, under its first id; the positives of equal texts are merged."""
    first: dict[str, str] = {}
    merged: Labels = {}
    for q, docs in positives.items():
        kept = first.setdefault(normalise(queries[q]), q)
        merged.setdefault(kept, {}).update(docs)
    return {q: queries[q] for q in merged}, merged


@dataclass(frozen=True)
class Option:
    """Queries and positives that could be trained on.

    headless : texts for training alone, the passages of headings without these
    """

    name: str
    queries: Queries
    positives: Labels
    headless: Mapping[str, str]


def training_options(chunks: Chunks, sources: Sources, embedder: Embedder) -> list[Option]:
    """What could be trained on: judged queries, the same with generated questions, and with headings too.

    Each option contains the one before it. None repeats a held-out query or has a heading of a held-out passage.
    """
    judged = to_chunks(chunks, sources.queries, best_positives(sources.positives, MOST_POSITIVES), embedder)
    made = to_chunks(chunks, *sources.made, embedder)
    free = {c: text for c, text in chunks.texts.items() if chunks.parents.get(c, c) not in sources.held_passages}
    heads, head_positives, headless = headings(free)
    repeats = Repeats([*sources.dev.values(), *sources.test.values()])
    heads = {q: text for q, text in heads.items() if not repeats(text)}
    options: list[Option] = []
    queries: Queries = {}
    positives: Labels = {}
    for name, more_queries, more, texts in (
        ("judged queries", sources.queries, judged, {}),
        ("made questions", sources.made[0], made, {}),
        ("headings", heads, {q: head_positives[q] for q in heads}, headless),
    ):
        if more:
            queries, positives = queries | more_queries, positives | more
            names = f"{options[-1].name} and {name}" if options else name
            options.append(Option(names, *once(queries, positives), texts))
    return options
