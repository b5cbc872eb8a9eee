"""Cohere's reranker fine-tuning, as its SDK still offers it; the service itself was retired on 15 September 2025."""

import re
from pathlib import Path

import cohere
from cohere.finetuning.finetuning import BaseModel, FinetunedModel, Settings

from helpers.models.services import asking
from helpers.store.files import WorkbookError
from helpers.training.export import COHERE_QUERIES, read_cohere

RETIRED = "Cohere retired fine-tuning on 15 September 2025 and no longer serves models that were tuned there"


def submit(path: Path, name: str, client: cohere.ClientV2) -> str:
    """Upload a file of ``export.write_cohere`` and ask for a tuned reranker; returns the id of the tuned model.

    ``client`` comes from ``services.cohere_client()``. Raises WorkbookError before anything is uploaded when the file
    is wrong or has too few queries, and afterwards when the service refuses, which the real one now always does.
    """
    rows = read_cohere(path)
    if len(rows) < COHERE_QUERIES:
        raise WorkbookError(
            f"{path} has {len(rows)} queries and Cohere asked for at least {COHERE_QUERIES}: collect more."
        )

    def ask() -> str:
        with Path(path).open("rb") as file:
            dataset = client.datasets.create(name=name, type="reranker-finetune-input", data=file)
        settings = Settings(base_model=BaseModel(base_type="BASE_TYPE_RERANK"), dataset_id=dataset.id)
        made = client.finetuning.create_finetuned_model(request=FinetunedModel(name=name, settings=settings))
        return made.finetuned_model.id

    try:
        return asking("Cohere", "CO_API_KEY", ask)
    except WorkbookError as error:
        status = re.search(r"HTTP \d+", str(error))
        raise WorkbookError(
            f"Cohere did not start the training ({status[0] if status else 'no answer'}), for {RETIRED}: "
            "tune your own reranker (notebook 07)."
        ) from None
