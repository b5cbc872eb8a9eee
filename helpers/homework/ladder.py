"""The ladder of the report: what each system scores, and what it costs to build, at a query, and in upkeep."""

from collections.abc import Sequence

import numpy as np

from helpers.homework.scores import Scores
from helpers.homework.systems import System, Systems
from helpers.homework.tuning import Tuned


def to_build(system: System, base: System, passages: int, seconds: float | None) -> list[str]:
    """What has to be made before the system can be used, beside what the present one, ``base``, has already.

    ``passages`` is the number of passages to index, ``seconds`` the time of the encoder's training.
    """
    if system.first:
        return to_build(system.first, base, passages, seconds)
    needs = []
    if system.tuned:
        needs += [f"a training ({seconds:,.0f} s here)"] if seconds else ["a training"]
    if system.encoder is not None and system.encoder is not base.encoder:
        needs.append(f"new vectors of all {passages:,} passages")
    if system.matrix is not None:
        needs.append("an adapter (seconds), the vectors stay" if not system.tuned else "an adapter (seconds)")
    if system.lexical or system.words:
        needs.append("an index of words")
    if system.questions:
        needs.append(f"{system.questions:,} questions and their vectors")
    return needs


def upkeep(system: System) -> list[str]:
    """What has to be done when passages or people's questions change."""
    if system.first:
        return [*upkeep(system.first), f"it reads {system.retriever.depth} passages at every query: a GPU if many ask"]
    tasks = [] if system.lexical else ["vectors of new passages"]
    if system.lexical or system.words:
        tasks.append("words of new passages")
    if system.questions:
        tasks.append("questions on new passages")
    if system.tuned or system.matrix is not None:
        tasks.append("training again when questions change")
    return tasks


def ladder(systems: Systems, tuned: Tuned, scores: Scores) -> list[dict[str, object]]:
    """One row a system, the cheapest first: system, dev, final, ms, build, upkeep; scores are mean nDCG@10."""
    rows = []
    passages = len(systems.runs.chunks.texts)
    for system in (*systems.untrained, *tuned.systems, *scores.reranked.values()):
        needs = to_build(system, scores.base, passages, tuned.seconds)
        rows.append(
            {
                "system": system.name,
                "dev": _mean(scores.dev.get(system.name, ())),
                "final": _mean(scores.on_final.get(system.name, ())),
                "ms": scores.ms.get(system.name),
                "build": "; ".join(needs) or "nothing, it is there",
                "upkeep": "; ".join(upkeep(system)),
            }
        )
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
