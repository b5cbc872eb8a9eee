"""A public collection from the Hugging Face hub, in BEIR's layout there, kept as a BEIR folder under ``build/hub``."""

import json
import shutil
from pathlib import Path

import datasets
import huggingface_hub

from helpers.store.files import WorkbookError, build_dir, fingerprint, write_text

PREFIX = "hub:"  # before a dataset's name in COLLECTION, as in hub:BeIR/scifact
SECONDS = 10  # for the hub to answer


def _check_reachable(name: str) -> None:
    """Raise WorkbookError at once, rather than after a minute of retries, when a dataset cannot be had."""
    if Path(name).is_dir():
        return
    try:
        huggingface_hub.HfApi().dataset_info(name, timeout=SECONDS)
    except Exception as error:  # httpx, hub and validation errors have no common base
        raise WorkbookError(
            f"Cannot get the collection {name!r} from the hub ({type(error).__name__}): check the name and go online, "
            "or give COLLECTION a folder that is here."
        ) from error


def fetch(name: str) -> Path:
    """The folder with a dataset of the hub as a BEIR folder; it is fetched once and found in ``build/hub`` after that.

    The layout is that of the BEIR datasets: ``name`` has the configurations ``corpus`` and ``queries`` (_id, title,
    text), and ``name``-qrels the splits with query-id, corpus-id and score. A folder of the same layout on disk will do
    as ``name``. Raises WorkbookError when it cannot be reached or is laid out in another way.
    """
    folder = build_dir("hub") / f"{name.strip('/').replace('/', '-').strip('-')[-60:]}-{fingerprint(name)[:6]}"
    if folder.is_dir():
        return folder
    _check_reachable(name)
    cache, part = str(build_dir("hub") / "cache"), folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "qrels").mkdir(parents=True)
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        for what in ("corpus", "queries"):
            rows = datasets.load_dataset(name, what, split=what, cache_dir=cache)
            texts = ({"_id": str(r["_id"]), "title": r.get("title") or "", "text": r["text"]} for r in rows)
            write_text(part / f"{what}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in texts))
        for split, rows in datasets.load_dataset(f"{name}-qrels", cache_dir=cache).items():
            lines = [f"{r['query-id']}\t{r['corpus-id']}\t{int(r['score'])}" for r in rows]
            write_text(part / "qrels" / f"{split}.tsv", "\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))
    except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise WorkbookError(
            f"The dataset {name!r} could not be read as a BEIR collection ({' '.join(str(error).split())[:160]}): "
            f"it needs the configurations corpus and queries, and {name}-qrels beside it."
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    part.rename(folder)
    return folder
