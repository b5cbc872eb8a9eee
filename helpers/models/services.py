"""OpenAI and Cohere, where a key is set: embedding and reranking within the services' limits, with retries."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import cohere
import numpy as np
import openai
from cohere.core import ApiError
from pydantic import BaseModel

from helpers.models.embed import Embedder, Task, unit
from helpers.store.files import DATA, WorkbookError, fingerprint
from helpers.store.rows import read_rows

RETRIES = 6  # the SDKs wait longer each time, or as long as the service asks, on 408, 409, 429 and 5xx
TIMEOUT = 120.0  # seconds for one try
OPENAI_URL = "https://api.openai.com/v1"
OPENAI_INPUTS, OPENAI_REQUEST_TOKENS = 2048, 250_000  # a request takes 300,000 tokens; the estimate wants a margin
MAX_BYTES = 24_000  # of one text: below OpenAI's 8,192 tokens in all but rare scripts
COHERE_INPUTS = 96
WIDTHS = {"text-embedding-3-large": 3072}  # of OpenAI's models; another server's: OPENAI_EMBEDDING_WIDTH
TOKENS_PER_QUERY = 20  # to price a query before it is known

Answer = TypeVar("Answer")


class Prices(BaseModel):
    """What a model costs, in dollars, and the date of its price list; nan where a model has no price of that kind."""

    model: str
    usd_per_million_input_tokens: float = float("nan")
    usd_per_million_output_tokens: float = float("nan")
    usd_per_1000_searches: float = float("nan")
    as_of: str = "no date"


def _prices(model: str) -> Prices:
    table = read_rows(DATA / "prices.csv", Prices, unique="model").values()
    return next((row for row in table if row.model == model), Prices(model=model))


def price(model: str, column: str) -> float:
    """Dollars from the dated table in data/prices.csv; nan for a model that is not in it."""
    return getattr(_prices(model), column)


def priced(model: str) -> str:
    """The date of the price table's row; "no date" for a model that is not in it."""
    return _prices(model).as_of


def keys_set() -> dict[str, bool]:
    """{name of a setting: whether it is set} for the services; the values themselves are never shown."""
    names = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CO_API_KEY")
    return {name: bool(os.environ.get(name)) for name in names}


def asking(service: str, setting: str, call: Callable[[], Answer]) -> Answer:
    """The result of ``call``; a failure of the service becomes a WorkbookError, in one sentence without the key."""
    try:
        return call()
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise WorkbookError(
            f"{service} refused the key (HTTP {error.status_code}): check {setting} or unset it."
        ) from None
    except openai.APIStatusError as error:
        raise _failed(service, error.status_code, setting) from None
    except ApiError as error:
        if error.status_code in (401, 403):
            raise WorkbookError(
                f"{service} refused the key (HTTP {error.status_code}): check {setting} or unset it."
            ) from None
        raise _failed(service, error.status_code, setting) from None
    except (openai.APIConnectionError, OSError) as error:
        raise WorkbookError(
            f"{service} cannot be reached ({type(error).__name__}): check the network, or unset {setting}."
        ) from None
    except (AttributeError, TypeError, ValueError) as error:  # a web page for an answer, a key no header can hold
        raise WorkbookError(
            f"{service} cannot be asked, or its answer cannot be read ({type(error).__name__}): "
            f"check {setting} and the service's address (OPENAI_BASE_URL, CO_API_URL), or unset {setting}."
        ) from None
    except Exception as error:
        if type(error).__module__.startswith(("httpx", "httpcore")):
            raise WorkbookError(
                f"{service} cannot be reached ({type(error).__name__}): check the network, or unset {setting}."
            ) from None
        raise


def _failed(service: str, status: int | None, setting: str) -> WorkbookError:
    what = {
        429: "is asked too much",
        400: "does not accept the request",
        404: "does not know the model or the address",
        200: "gave an answer that cannot be read",
    }.get(status or 0, "failed")
    return WorkbookError(
        f"{service} {what} (HTTP {status}) after {RETRIES} retries where they help: run again later — what came "
        f"back so far is kept — or unset {setting}."
    )


def clip(text: str) -> str:
    """The text cut to ``MAX_BYTES`` bytes of UTF-8; a blank where the text is empty."""
    return text.encode()[:MAX_BYTES].decode(errors="ignore") or " "


def _request_batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Batches of at most 2,048 inputs and about 250,000 tokens, a token taken as three bytes."""
    batch: list[str] = []
    tokens = 0
    for text in texts:
        size = len(text.encode()) // 3 + 1
        if batch and (len(batch) == OPENAI_INPUTS or tokens + size > OPENAI_REQUEST_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += size
    if batch:
        yield batch


def _unit(vectors: list[list[float]], texts: int, width: int, service: str) -> np.ndarray:
    widths = {len(v) for v in vectors}
    if len(vectors) != texts or widths - {width}:
        raise WorkbookError(
            f"{service} gave {len(vectors)} vectors of width {sorted(widths)} for {texts} texts, "
            f"expected width {width}: pass {service}Embedder(model, width) as the model's page says."
        )
    array = np.array(vectors, dtype=np.float32).reshape(texts, width)
    return unit(array)


class OpenAIEmbedder:
    """Embeddings of an OpenAI-compatible service; reads OPENAI_API_KEY and OPENAI_BASE_URL when it is made."""

    def __init__(self, model: str = "text-embedding-3-small", width: int | None = None):
        width = width or int(os.environ.get("OPENAI_EMBEDDING_WIDTH") or WIDTHS.get(model, 1536))
        if not (os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
            raise WorkbookError("Neither OPENAI_API_KEY nor OPENAI_BASE_URL is set: set one to use OpenAI embeddings.")
        self.model, self.width, self.name = model, width, model
        self.key = fingerprint("openai", os.environ.get("OPENAI_BASE_URL", ""), model, width)
        self.usd_per_1000_queries = price(model, "usd_per_million_input_tokens") * TOKENS_PER_QUERY / 1000
        self.client = openai_client()

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length; the task makes no difference to OpenAI's models."""
        vectors: list[list[float]] = []
        for batch in _request_batches([clip(t) for t in texts]):
            items = asking(
                "OpenAI",
                "OPENAI_API_KEY",
                lambda b=batch: self.client.embeddings.create(model=self.model, input=b).data,
            )
            vectors += [item.embedding for item in sorted(items, key=lambda item: item.index)]
        return _unit(vectors, len(texts), self.width, "OpenAI")


def openai_client() -> openai.OpenAI:
    """A client from OPENAI_API_KEY and OPENAI_BASE_URL; local servers take any key."""
    return openai.OpenAI(
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        base_url=os.environ.get("OPENAI_BASE_URL") or OPENAI_URL,  # the SDK takes an empty setting for an address
        max_retries=RETRIES,
        timeout=TIMEOUT,
    )


class CohereEmbedder:
    """Cohere's embeddings; reads CO_API_KEY (and CO_API_URL) when it is made."""

    def __init__(self, model: str = "embed-v4.0", width: int = 1536):
        self.client = cohere_client()
        self.model, self.width, self.name = model, width, model
        self.key = fingerprint("cohere", model, width)
        self.usd_per_1000_queries = price(model, "usd_per_million_input_tokens") * TOKENS_PER_QUERY / 1000

    def embed(self, texts: Sequence[str], task: Task) -> np.ndarray:
        """float32 of shape (texts, width), unit length; queries and documents are embedded differently."""
        kind = "search_query" if task == "query" else "search_document"
        vectors: list[list[float]] = []
        for start in range(0, len(texts), COHERE_INPUTS):
            batch = [clip(t) for t in texts[start : start + COHERE_INPUTS]]
            vectors += asking(
                "Cohere",
                "CO_API_KEY",
                lambda b=batch: list(
                    self.client.embed(
                        model=self.model,
                        texts=b,
                        input_type=kind,
                        embedding_types=["float"],
                        output_dimension=self.width,
                        request_options={"max_retries": RETRIES},
                    ).embeddings.float_
                ),
            )
        return _unit(vectors, len(texts), self.width, "Cohere")


def cohere_client() -> cohere.ClientV2:
    """A client from CO_API_KEY and CO_API_URL."""
    if not os.environ.get("CO_API_KEY"):
        raise WorkbookError("CO_API_KEY is not set: set it to use Cohere.")
    url = os.environ.get("CO_API_URL")
    return cohere.ClientV2(**({"base_url": url} if url else {}))


def service_embedders() -> list[Embedder]:
    """The services' embedders whose keys are set; none without a key."""
    set_ = keys_set()
    embedders: list[Embedder] = []
    if set_["OPENAI_API_KEY"] or set_["OPENAI_BASE_URL"]:
        embedders.append(OpenAIEmbedder(os.environ.get("OPENAI_EMBEDDING_MODEL") or "text-embedding-3-small"))
    if set_["CO_API_KEY"]:
        embedders.append(CohereEmbedder())
    return embedders
