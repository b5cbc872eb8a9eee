"""SmolLM2 in process: answers line by line, choices and likelihoods, without a key or a network."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args, get_origin

import numpy as np
import torch
from pydantic import BaseModel
from transformers import DynamicCache

from helpers.models.load import SMALL_LLM, load_small_llm
from helpers.store.files import WorkbookError

Conversation = Sequence[dict[str, str]]  # messages with role and content, as chat services take them
PENALTY = 1.1  # on words that stand in the prompt or the answer already, against loops and copying
LINE_TOKENS = 32  # an answer is one line of at most so many tokens


class SmolLM2:
    """A small instruction-following language model; loaded at its first use, greedy, the same answer every time.

    It is too small to write JSON, so ``answer`` fills a pydantic schema field by field: a field of ``Literal`` values
    gets the likeliest of them, a text field gets one generated line.
    """

    name = SMALL_LLM

    def __init__(self) -> None:
        self._loaded: tuple | None = None

    def _ready(self) -> tuple:
        if self._loaded is None:
            self._loaded = load_small_llm()
        return self._loaded

    def _tokens(self, conversations: Sequence[Conversation], leads: Sequence[str]) -> list[list[int]]:
        """Token ids of each conversation up to where its answer goes on; a lead is the answer's beginning."""
        _, tokenizer = self._ready()
        texts = [
            tokenizer.apply_chat_template(list(c), tokenize=False, add_generation_prompt=True) + lead
            for c, lead in zip(conversations, leads, strict=True)
        ]
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    def _shared(self, rows: Sequence[list[int]], own: int = 1) -> tuple[int, DynamicCache]:
        """How many first tokens all rows share, and the model's key-value cache of them, to be computed once per batch.

        Prompts share their instructions and examples. Each row keeps at least its last ``own`` tokens for itself.
        """
        model, _ = self._ready()
        shortest = min(map(len, rows))
        n = next((i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), shortest)
        n = max(0, min(n, shortest - own))
        memory = DynamicCache(config=model.config)
        if n:
            model(torch.tensor([rows[0][:n]]), past_key_values=memory, logits_to_keep=1)
            memory.batch_repeat_interleave(len(rows))
        return n, memory

    @torch.inference_mode()
    def lines(
        self, conversations: Sequence[Conversation], leads: Sequence[str], max_tokens: int = LINE_TOKENS
    ) -> list[str]:
        """One generated line per conversation, greedy; "" where the model wrote nothing."""
        model, tokenizer = self._ready()
        rows = self._tokens(conversations, leads)
        n, memory = self._shared(rows)
        width = max(map(len, rows))
        gaps = [width - len(row) for row in rows]  # between the shared beginning and each row's own part
        # The gaps are masked, but the repetition penalty counts the tokens in them all the same. So they are filled
        # with the row's own last token, which is penalised anyway.
        ids = [row[:n] + row[-1:] * gap + row[n:] for row, gap in zip(rows, gaps, strict=True)]
        mask = [[1] * n + [0] * gap + [1] * (len(row) - n) for row, gap in zip(rows, gaps, strict=True)]
        made = model.generate(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            past_key_values=memory if n else None,
            max_new_tokens=max_tokens,
            do_sample=False,
            repetition_penalty=PENALTY,
            pad_token_id=tokenizer.pad_token_id,
            stop_strings=["\n"],
            tokenizer=tokenizer,
        )
        texts = tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
        return [text.split("\n")[0].strip() for text in texts]

    def _log_probabilities(self, rows: Sequence[list[int]], keep: int) -> Iterator[torch.Tensor]:
        """For each row the log-probabilities of the next token at its last ``keep`` positions, (keep, vocabulary)."""
        model, tokenizer = self._ready()
        n, memory = self._shared(rows, keep)
        own = [row[n:] for row in rows]
        width = max(map(len, own))
        padded = [row + [tokenizer.pad_token_id] * (width - len(row)) for row in own]  # after the text, so never seen
        hidden = model.model(torch.tensor(padded), past_key_values=memory).last_hidden_state
        for row, states in zip(own, hidden, strict=True):
            yield model.lm_head(states[max(0, len(row) - keep) : len(row)]).log_softmax(-1)

    @torch.inference_mode()
    def choose(
        self, conversations: Sequence[Conversation], leads: Sequence[str], options: Sequence[str]
    ) -> list[np.ndarray]:
        """For each conversation the log-probabilities of the options, shape (options,); higher is likelier.

        Options are compared by their first tokens; raises ValueError when two begin with the same one.
        """
        _, tokenizer = self._ready()
        first = [tokenizer(f" {option}", add_special_tokens=False)["input_ids"] for option in options]
        if all(tokenizer.decode(ids[0]).strip() == "" for ids in first):  # the blank is a token of its own
            leads = [f"{lead} " for lead in leads]
            first = [ids[1:] for ids in first]
        heads = [ids[0] for ids in first]
        if len(set(heads)) < len(heads):
            raise ValueError(f"The options {list(options)} begin with the same token: name them differently.")
        rows = self._tokens(conversations, leads)
        return [scores[-1, heads].numpy() for scores in self._log_probabilities(rows, 1)]

    @torch.inference_mode()
    def log_likelihoods(self, conversations: Sequence[Conversation], texts: Sequence[str]) -> list[float]:
        """Mean log-probability per token of each text as the conversation's answer; ≤ 0, higher is likelier.

        Raises WorkbookError on an empty text.
        """
        _, tokenizer = self._ready()
        asked = self._tokens(conversations, [""] * len(texts))
        answers = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        if not all(answers):
            raise WorkbookError("An empty text has no likelihood: leave it out.")
        rows = [a + t for a, t in zip(asked, answers, strict=True)]
        likelihoods = []
        for answer, scores in zip(answers, self._log_probabilities(rows, max(map(len, answers)) + 1), strict=True):
            before = scores[-len(answer) - 1 : -1]  # the position before a token foretells it
            likelihoods.append(float(before[torch.arange(len(answer)), torch.tensor(answer)].mean()))
        return likelihoods

    def answer(self, conversations: Sequence[Conversation], schema: type[BaseModel]) -> list[dict]:
        """One dict per conversation with the schema's fields, filled in their order."""
        values: list[dict] = [{} for _ in conversations]
        leads = [""] * len(conversations)
        for field, info in schema.model_fields.items():
            leads = [f"{lead}{field}:" for lead in leads]
            if get_origin(info.annotation) is Literal:
                options = get_args(info.annotation)
                scores = self.choose(conversations, leads, [str(o) for o in options])
                filled = [options[int(row.argmax())] for row in scores]
            else:
                filled = self.lines(conversations, leads)
            for value, made in zip(values, filled, strict=True):
                value[field] = made
            leads = [f"{lead} {made}\n" for lead, made in zip(leads, filled, strict=True)]
        return values
