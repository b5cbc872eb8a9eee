"""One way to ask a language model: an OpenAI-compatible service, or SmolLM2 in process; answers are kept on disk."""

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar

from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ValidationError

from helpers.models.services import asking, openai_client, price
from helpers.models.smollm import LINE_TOKENS, PENALTY, Conversation, SmolLM2
from helpers.store.answers import Answers
from helpers.store.files import WorkbookError, fingerprint
from helpers.store.progress import progress_bar

Schema = TypeVar("Schema", bound=BaseModel)
KeepReply = Callable[[int, "Reply"], None]  # gets the position of a conversation in its batch, and its reply
DEFAULT_MODEL = "gpt-4.1-mini"
ANSWER_TOKENS = 80  # assumed length of an answer, to price it before it is known
GO_ON = "raise LLM_MAX_CALLS or LLM_MAX_USD and run again, what was answered is kept"
SHOWN = {
    "cached": "from the cache",
    "answered": "answered now",
    "refused": "refused",
    "empty": "empty",
    "malformed": "malformed",
    "over budget": "over the budget, not asked",
}


class Reply(NamedTuple):
    """What came back for one conversation: the text, or why there is none (refused, empty)."""

    text: str
    status: str = "answered"
    usd: float = 0.0


class Backend(Protocol):
    """Something that answers conversations, a batch at a time; ``keep`` gets each reply the moment it is there."""

    name: str
    key: str
    batch: int
    small: bool  # too small for long instructions and JSON: prompts come in a short form

    def answer(self, conversations: Sequence[Conversation], schema: type[BaseModel], keep: KeepReply) -> None: ...


class InProcess:
    """SmolLM2, 16 conversations at a time."""

    small, batch = True, 16

    def __init__(self, model: SmolLM2 | None = None):
        self.model = model or SmolLM2()
        self.name, self.key = self.model.name, fingerprint(self.model.name, "Q4_1", PENALTY, LINE_TOKENS)

    def answer(self, conversations: Sequence[Conversation], schema: type[BaseModel], keep: KeepReply) -> None:
        """Answer the whole batch, then give each reply to ``keep``; status empty where the model wrote nothing."""
        for i, made in enumerate(self.model.answer(conversations, schema)):
            keep(i, Reply(json.dumps(made), "answered" if all(str(v) for v in made.values()) else "empty"))


class Endpoint:
    """Any OpenAI-compatible service, asked with the openai SDK, 8 conversations at once; it retries 429 and 5xx."""

    small, batch = False, 8

    def __init__(self, model: str | None = None):
        self.name = model or os.environ.get("LLM_MODEL") or DEFAULT_MODEL
        self.client = openai_client()
        self.key = fingerprint(self.name, str(self.client.base_url))

    def answer(self, conversations: Sequence[Conversation], schema: type[BaseModel], keep: KeepReply) -> None:
        """Ask all conversations at the same time and give each reply to ``keep``.

        Raises WorkbookError when one cannot be asked. Requests under way at that moment, or at an interrupt, are
        completed and kept first.
        """
        with ThreadPoolExecutor(self.batch) as pool:
            asked = [pool.submit(lambda i, c: keep(i, self._one(c, schema)), i, c) for i, c in enumerate(conversations)]
            for one in asked:
                one.result()

    def _one(self, conversation: Conversation, schema: type[BaseModel]) -> Reply:
        body = schema.model_json_schema()
        strict = body.get("additionalProperties") is False  # OpenAI refuses other schemas in its strict mode
        form = {"type": "json_schema", "json_schema": {"name": schema.__name__, "schema": body, "strict": strict}}
        ask = partial(self.client.chat.completions.create, model=self.name, messages=list(conversation))
        settings = "OPENAI_API_KEY, OPENAI_BASE_URL or LLM_MODEL"
        return asking(f"The model {self.name}", settings, lambda: self._reply(ask(response_format=form)))

    def _reply(self, response: ChatCompletion) -> Reply:
        if response.choices is None:
            raise ValueError  # JSON, but no answer; `asking` turns this into a sentence
        used = response.usage
        usd = _usd(self.name, used.prompt_tokens or 0, used.completion_tokens or 0) if used else 0.0
        message = response.choices[0].message if response.choices else None
        if message is not None and (message.refusal or response.choices[0].finish_reason == "content_filter"):
            return Reply(message.refusal or "", "refused", usd)
        text = (message.content or "").strip() if message is not None else ""
        return Reply(text, "answered" if text else "empty", usd)


def _usd(model: str, tokens_in: float, tokens_out: float) -> float:
    """Dollars by the dated price table; nan for a model that is not in it."""
    per_input, per_output = (price(model, f"usd_per_million_{way}_tokens") for way in ("input", "output"))
    return (tokens_in * per_input + tokens_out * per_output) / 1e6


def estimate_usd(model: str, conversations: Sequence[Conversation], answer_tokens: int = ANSWER_TOKENS) -> float:
    """Estimated dollars for asking these conversations; nan for a model without a price.

    Four bytes are counted as a token, and prices come from the dated table.
    """
    tokens = sum(len(m["content"].encode()) / 4 + 4 for c in conversations for m in c)
    return _usd(model, tokens, answer_tokens * len(conversations))


def parse(text: str, schema: type[Schema]) -> Schema | None:
    """The answer as the schema, also from inside a code fence or a sentence; None when it does not fit."""
    match = re.search(r"\{.*\}", text, re.DOTALL)
    with contextlib.suppress(ValidationError):
        return schema.model_validate_json(match[0] if match else text)
    return None


class LLM:
    """A language model with a memory on disk: what was answered once is not asked again, in this run and the next.

    ``max_calls`` and ``max_usd`` bound what *this object* may spend. At the bound it prints a sentence, keeps what it
    has and answers the rest with None. ``counts`` says what became of every conversation; ``summary()`` says it in
    words.
    """

    def __init__(self, backend: Backend, folder: Path, max_calls: int | None = None, max_usd: float | None = None):
        self.backend, self.name, self.small = backend, backend.name, backend.small
        self.max_calls, self.max_usd = max_calls, max_usd
        self.counts, self.calls, self.usd = Counter[str](), 0, 0.0
        name = re.sub(r"[^\w.-]+", "-", backend.name)
        self.answers, self._lock = Answers(Path(folder) / "llm" / f"{name}.jsonl"), Lock()

    @property
    def key(self) -> str:
        """A fingerprint of what the answers depend on besides the prompts: the model and the budget."""
        return fingerprint(self.backend.key, self.max_calls, self.max_usd)

    def _take(self, batch: Sequence[str], bar: Any, position: int, reply: Reply) -> None:
        """Count an answer and write it down at once; threads that bring theirs at the same time wait for each other."""
        with self._lock:
            self.calls, self.usd = self.calls + 1, self.usd + (reply.usd if reply.usd == reply.usd else 0.0)
            self.answers.keep({batch[position]: [reply.status, reply.text]})
            bar.update(1)

    def _within_budget(self, conversations: list[Conversation]) -> int:
        """How many of these conversations, from the first on, the budget still allows; prints what all would cost."""
        n = len(conversations)
        allowed = n if self.max_calls is None else min(n, max(0, self.max_calls - self.calls))
        dollars = 0.0 if self.small else estimate_usd(self.name, conversations)
        if dollars > 0:
            print(f"{n:,} calls to {self.name}: about ${dollars:.2f} by data/prices.csv.")
            if self.max_usd is not None:
                allowed = min(allowed, int(n * min(1.0, max(0.0, self.max_usd - self.usd) / dollars)))
        elif dollars != dollars and self.max_usd is not None:
            print(f"{self.name} has no price in data/prices.csv: its calls are not bounded in dollars, only in number.")
        return allowed

    def ask(self, conversations: Sequence[Conversation], schema: type[Schema]) -> list[Schema | None]:
        """One answer per conversation, as an instance of ``schema``, or None where there is none.

        Only conversations without a stored answer are asked, in batches. Each answer is written to disk as soon as it
        arrives, so nothing is lost if a later one fails.
        """
        form = json.dumps(schema.model_json_schema(), sort_keys=True)
        keys = [fingerprint(self.backend.key, list(c), form) for c in conversations]
        before = set(self.answers)
        new = {k: c for k, c in zip(keys, conversations, strict=True) if k not in before}
        todo = list(new)[: self._within_budget(list(new.values()))] if new else []
        todo.sort(key=lambda k: sum(len(m["content"]) for m in new[k]))  # like lengths share a batch
        with progress_bar(len(todo), f"Asking {self.name}", "answer") as bar:
            for start in range(0, len(todo), self.backend.batch):
                if self.max_usd is not None and self.usd > self.max_usd:  # answers were longer than estimated
                    break
                batch = todo[start : start + self.backend.batch]
                self.backend.answer([new[k] for k in batch], schema, partial(self._take, batch, bar))
        if left := sum(k not in self.answers for k in new):
            print(f"Stopped at the budget: {left:,} of {len(new):,} calls are not made; {GO_ON}.")
        return [self._read(k, schema, k in before) for k in keys]

    def _read(self, key: str, schema: type[Schema], cached: bool) -> Schema | None:
        status, text = self.answers.get(key, ["over budget", ""])
        answer = parse(text, schema) if status == "answered" else None
        if status == "answered":
            status = "malformed" if answer is None else "cached" if cached else "answered"
        self.counts[status] += 1
        return answer

    def summary(self) -> str:
        """What became of everything that was asked, in one sentence."""
        parts = [f"{self.counts[status]:,} {words}" for status, words in SHOWN.items() if self.counts[status]]
        cost = f"; ${self.usd:.3f}" if self.usd else ""
        return f"{self.name}: {self.counts.total():,} asked: {', '.join(parts) or 'nothing'}{cost}."

    def log_likelihoods(self, conversations: Sequence[Conversation], texts: Sequence[str]) -> list[float]:
        """Mean log-probability per token of each text as the conversation's answer; ≤ 0, higher is likelier.

        Only the model in process can do this: raises WorkbookError for a service.
        """
        if not isinstance(self.backend, InProcess):
            raise WorkbookError("Services do not give the likelihood of a text: use small_llm(folder) for it.")
        pairs = list(zip(conversations, texts, strict=True))
        keys = [fingerprint(self.backend.key, list(c), t, "likelihood") for c, t in pairs]
        new = {k: pair for k, pair in zip(keys, pairs, strict=True) if k not in self.answers}
        todo = sorted(new, key=lambda k: len(new[k][0][-1]["content"]))
        with progress_bar(len(todo), "Likelihoods", "text") as bar:
            for start in range(0, len(todo), self.backend.batch):
                batch = todo[start : start + self.backend.batch]
                likelihoods = self.backend.model.log_likelihoods(*zip(*(new[k] for k in batch), strict=True))
                self.answers.keep({k: ["likelihood", value] for k, value in zip(batch, likelihoods, strict=True)})
                bar.update(len(batch))
        return [self.answers[k][1] for k in keys]


def small_llm(folder: Path) -> LLM:
    """SmolLM2 in process, whatever keys are set."""
    return LLM(InProcess(), folder)


def open_llm(folder: Path, max_calls: int | None = None, max_usd: float | None = None) -> LLM:
    """The language model to ask: a service when ``$OPENAI_API_KEY`` or ``$OPENAI_BASE_URL`` is set, else SmolLM2.

    The service is asked for ``$LLM_MODEL``, by default gpt-4.1-mini. The budget is what is given, else
    ``$LLM_MAX_CALLS`` and ``$LLM_MAX_USD`` (one dollar by default, where a price is known). Answers are kept under
    ``folder``. Raises WorkbookError when one of the two settings is not a number.
    """
    calls, usd = os.environ.get("LLM_MAX_CALLS"), os.environ.get("LLM_MAX_USD") or 1.0
    try:
        bound = int(calls) if max_calls is None and calls else max_calls
        dollars = float(usd) if max_usd is None else max_usd
    except ValueError:
        raise WorkbookError(
            "LLM_MAX_CALLS and LLM_MAX_USD are numbers, such as 500 and 2.50: correct or unset them."
        ) from None
    if not (os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        return LLM(InProcess(), folder, bound)
    return LLM(Endpoint(), folder, bound, dollars)
