"""The card of a tuned model: what it is, what it was tuned on, and how to load it."""

CARD = """---
library_name: sentence-transformers
tags: [sentence-transformers]
---
# {name}

Tuned from `{base}` on {rows:,} rows of the collection `{collection}` ({kind}). The checkpoint was chosen by {metric} on items that
were not trained on: {start:.3f} before, {best:.3f} after (step {step} of {steps}). It is meant for this collection; it was not tested on others.

    from sentence_transformers import {kind}
    model = {kind}("{name}")

Everything that went into it is in `run.json`.
"""


def said(metric: str) -> str:
    """A metric's name for people: dev_ndcg@10 is "dev nDCG@10"."""
    return metric.replace("_", " ").replace("ndcg", "nDCG").replace("auc", "AUC")


def model_card(record: dict, kind: str, base: str) -> str:
    """The text of README.md beside the weights; ``record`` is run.json's, ``base`` the name or folder of what was tuned."""
    dev = record["dev"]
    steps = dev["curve"][-1]["step"] if dev["curve"] else 0
    more = {"kind": kind, "base": base.split("/")[-1], "start": dev["start"], "best": dev["best"], "steps": steps}
    return CARD.format(**record | more)
