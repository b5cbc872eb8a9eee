"""SmolLM2's batches and shared beginnings change nothing.

Every number is that of one text at a time, computed plainly.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.models import smollm
from helpers.models.prompts import Prompt
from helpers.models.smollm import LINE_TOKENS, PENALTY, SmolLM2
from helpers.store.files import WorkbookError

CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
EXAMPLE = [{"role": "user", "content": "an example that all share"}, {"role": "assistant", "content": "its answer"}]


class Verdict(BaseModel):
    reason: str
    grade: Literal[0, 1, 2]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, and one each for " y" and " n"; the padding token stands nowhere else, unlike SmolLM2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "Ġy", "Ġn"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "y"), ("Ġ", "n")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True) for t in ("<|im_start|>", "<|im_end|>", "<pad>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, chat_template=CHAT, eos_token="<|im_end|>", pad_token="<pad>", padding_side="left"
    )


@pytest.fixture(scope="module")
def tiny():
    """A Llama of two layers with random weights, large enough that its answers differ, and its tokenizer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model only waits for others
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.pad_token_id] = 0.1  # else zeros, which are never the likeliest
    yield model, tokenizer
    torch.set_num_threads(threads)


@pytest.fixture
def small(tiny, monkeypatch) -> SmolLM2:
    monkeypatch.setattr(smollm, "load_small_llm", lambda: tiny)
    return SmolLM2()


@pytest.fixture
def favour(tiny):
    """Makes a token likelier than the model finds it, or as likely as a function of all scores says."""
    hooks = []

    def add(token: int, bonus: float | Callable[[torch.Tensor], torch.Tensor]) -> None:
        def hook(module, inputs, logits):
            logits[..., token] = bonus(logits) if callable(bonus) else logits[..., token] + bonus
            return logits

        hooks.append(tiny[0].lm_head.register_forward_hook(hook))

    yield add
    for hook in hooks:
        hook.remove()


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def ids_of(tokenizer, conversation, lead: str = "") -> list[int]:
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return tokenizer(text + lead, add_special_tokens=False)["input_ids"]


@torch.inference_mode()
def plain_log_probabilities(loaded, ids: list[int]) -> torch.Tensor:
    """(tokens, vocabulary): the next token's log-probabilities after each token of one text."""
    return loaded[0](input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


def plain_likelihood(loaded, conversation, text: str) -> float:
    asked = ids_of(loaded[1], conversation)
    answer = loaded[1](text, add_special_tokens=False)["input_ids"]
    scores = plain_log_probabilities(loaded, asked + answer)
    return sum(scores[len(asked) + i - 1, token].item() for i, token in enumerate(answer)) / len(answer)


@torch.inference_mode()
def plain_line(loaded, conversation, lead: str, max_tokens: int = LINE_TOKENS) -> str:
    """Greedy, token by token, the whole text read anew for each.

    Repetitions are punished as in CTRL (Keskar et al., 2019).
    """
    model, tokenizer = loaded
    ids = ids_of(tokenizer, conversation, lead)
    made: list[int] = []
    while len(made) < max_tokens:
        scores = model(input_ids=torch.tensor([ids + made])).logits[0, -1]
        seen = torch.tensor(sorted({*ids, *made}))
        scores[seen] = torch.where(scores[seen] > 0, scores[seen] / PENALTY, scores[seen] * PENALTY)
        made.append(int(scores.argmax()))
        if made[-1] == tokenizer.eos_token_id or "\n" in tokenizer.decode(made[-1:]):
            break
    return tokenizer.decode(made, skip_special_tokens=True).split("\n")[0].strip()


BATCHES = {
    "one": ([user("alone")], ["its text"]),
    "same length": ([user("first"), user("other")], ["texts", "texte"]),
    "different lengths": (
        [user("short"), user("a question that is a good deal longer"), user("mid length")],
        ["a long text for a short question", "x", "text of mid length"],
    ),
    "identical rows": ([user("the same")] * 3, ["the same text"] * 3),
    "same question": ([user("the same")] * 3, ["one", "two words", "other"]),
    "same text": ([user("one"), user("two"), user("three")], ["the text"] * 3),
    "one text begins another": ([user("the same")] * 2, ["text", "text and more of it"]),
    "shared example": ([[*EXAMPLE, *user(f"question {i}")] for i in range(5)], ["a", "bc", "def", "g" * 30, "hi"]),
    "text longer than another row": ([user("a"), user("b")], ["x" * 90, "y"]),
    "one token": ([user("a"), user("bb")], ["x", "y"]),
    "other roles": ([[{"role": "system", "content": "s"}, *user("q")], user("q")], ["text", "text"]),
    "unicode": ([user("漢字 🙂"), user("ünïcödé")], ["ä", "字"]),
}


@pytest.mark.parametrize(("conversations", "texts"), BATCHES.values(), ids=BATCHES)
def test_likelihoods_are_those_of_one_text_at_a_time(small, tiny, conversations, texts):
    expected = [plain_likelihood(tiny, c, t) for c, t in zip(conversations, texts, strict=True)]
    found = small.log_likelihoods(conversations, texts)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert all(type(value) is float and value <= 0 for value in found)


def test_likelihood_does_not_depend_on_the_company(small):
    conversations, texts = BATCHES["different lengths"]
    together = small.log_likelihoods(conversations, texts)
    alone = [small.log_likelihoods([c], [t])[0] for c, t in zip(conversations, texts, strict=True)]
    backwards = small.log_likelihoods(conversations[::-1], texts[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, backwards, atol=1e-5)


def test_empty_text_has_no_likelihood_and_says_so(small):
    with pytest.raises(WorkbookError, match=r"^An empty text has no likelihood: leave it out\.$"):
        small.log_likelihoods([user("a"), user("b")], ["text", ""])


def test_shared_beginning_is_read_once(small, tiny):
    conversations, _ = BATCHES["shared example"]
    read = []
    hook = tiny[0].model.embed_tokens.register_forward_hook(lambda module, inputs, out: read.append(inputs[0].shape))
    try:
        small.log_likelihoods(conversations, ["text"] * 5)
    finally:
        hook.remove()
    rows = [len(ids_of(tiny[1], c)) + 4 for c in conversations]
    # "question 0" to "question 4" are different in their last byte. After it come <|im_end|>, a line end, <|im_start|>,
    # "assistant", a line end: 13 tokens, and the text's four. With its own byte that is 18 a row.
    assert set(rows) == {rows[0]}
    assert read == [(1, rows[0] - 18), (5, 18)]


LINES = {
    "one": ([user("alone")], [""]),
    "lead": ([user("alone")], ["question:"]),
    "different lengths": (
        [user("short"), user("a question that is a good deal longer than it"), user("mid length"), user("q" * 60)],
        ["question:"] * 4,
    ),
    "different leads": ([user("the same")] * 3, ["", "grade: 1\nreason:", "x"]),
    "identical rows": ([user("the same")] * 3, ["question:"] * 3),
    "one begins another": ([user("the same")] * 2, ["a", "abc"]),
    "shared example": ([[*EXAMPLE, *user("question" * i)] for i in range(4)], ["question:"] * 4),
}


@pytest.mark.parametrize("stop", [None, "\n", "<|im_end|>"], ids=["to the limit", "line ends", "answer ends"])
@pytest.mark.parametrize(("conversations", "leads"), LINES.values(), ids=LINES)
def test_lines_are_those_of_greedy_decoding_one_at_a_time(small, tiny, favour, conversations, leads, stop):
    if stop:
        favour(tiny[1](stop)["input_ids"][0], 2.0)
    expected = [plain_line(tiny, c, lead) for c, lead in zip(conversations, leads, strict=True)]
    assert small.lines(conversations, leads) == expected


def test_lines_of_the_tests_end_early_and_late(small, tiny, favour):
    """The comparison above would be empty if all lines were: they are of many lengths."""
    conversations = [user(f"question {i}" * (i % 4 + 1)) for i in range(12)]
    favour(tiny[1]("\n")["input_ids"][0], 2.0)
    lengths = {len(line) for line in small.lines(conversations, [""] * 12)}
    assert len(lengths) > 3


def test_padding_token_is_no_likelier_and_no_less_likely_in_a_batch(small, tiny, favour):
    favour(tiny[1].pad_token_id, lambda scores: scores.amax(-1) * 1.05)  # the likeliest, until it is punished by 1.1
    conversations = [user("q" * n) for n in (1, 7, 30, 80)]
    expected = [plain_line(tiny, c, "") for c in conversations]
    assert small.lines(conversations, [""] * 4) == expected


@pytest.mark.parametrize("token", ["\n", "<|im_end|>"])
def test_model_that_writes_nothing_gives_an_empty_line(small, tiny, favour, token):
    favour(tiny[1](token)["input_ids"][0], 1000.0)
    assert small.lines([user("a"), user("bcd")], ["question:"] * 2) == ["", ""]


def test_line_has_at_most_the_tokens_it_may_have(small, tiny, favour):
    favour(tiny[1]("x")["input_ids"][0], 1000.0)
    assert small.lines([user("a"), user("bcd")], ["", ""], max_tokens=5) == ["xxxxx"] * 2
    assert small.lines([user("a")], [""]) == ["x" * LINE_TOKENS]


def test_the_same_call_gives_the_same_lines(small):
    conversations, leads = LINES["different lengths"]
    assert small.lines(conversations, leads) == small.lines(conversations, leads)


@pytest.mark.parametrize("options", [["0", "1", "2"], ["yes", "no"], ["7"], ["yes", "2"], ["漢", "é"]])
@pytest.mark.parametrize(("conversations", "leads"), LINES.values(), ids=LINES)
def test_options_are_scored_by_the_next_token_of_each(small, tiny, conversations, leads, options):
    # " yes" and " no" begin with tokens of their own; " 2" is a blank and a digit, so the digit counts, after a blank.
    blank = " " if options[0] not in ("yes", "no") else ""
    first = {"yes": "Ġy", "no": "Ġn", "2": "2" if blank else "Ġ", "漢": "æ", "é": "Ã"}
    heads = tiny[1].convert_tokens_to_ids([first.get(option, option) for option in options])
    for c, lead, scores in zip(conversations, leads, small.choose(conversations, leads, options), strict=True):
        expected = plain_log_probabilities(tiny, ids_of(tiny[1], c, lead + blank))[-1, heads]
        assert scores.shape == (len(options),)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("options", [["yes", "yellow"], ["10", "12", "2"], ["a", "a"], ["yes", "1", "2"]])
def test_options_with_the_same_first_token_are_refused(small, options):
    with pytest.raises(ValueError, match="begin with the same token: name them differently"):
        small.choose([user("a")], [""], options)


def test_answer_fills_the_fields_in_their_order_each_seeing_those_before(small, tiny):
    conversations = [user("one"), user("the second question"), user("3")]
    answers = small.answer(conversations, Verdict)
    for c, answer in zip(conversations, answers, strict=True):
        assert list(answer) == ["reason", "grade"]
        assert answer["reason"] == plain_line(tiny, c, "reason:")
        lead = f"reason: {answer['reason']}\ngrade: "
        digits = tiny[1].convert_tokens_to_ids(["0", "1", "2"])
        scores = plain_log_probabilities(tiny, ids_of(tiny[1], c, lead))[-1, digits]
        assert answer["grade"] == int(scores.argmax())
        Verdict.model_validate(answer)


def test_choices_may_come_first_and_keep_their_type(small):
    class Mixed(BaseModel):
        sure: Literal["yes", "no"]
        grade: Literal[3, 4]
        why: str

    (answer,) = small.answer([user("one")], Mixed)
    assert answer["sure"] in ("yes", "no")
    assert answer["grade"] in (3, 4)
    assert list(answer) == ["sure", "grade", "why"]


def test_model_is_loaded_at_its_first_use_and_once(tiny, monkeypatch):
    loads = []
    monkeypatch.setattr(smollm, "load_small_llm", lambda: loads.append(1) or tiny)
    model = SmolLM2()
    assert loads == []
    for _ in range(2):
        model.answer([user("a")], Verdict)
        model.log_likelihoods([user("a")], ["b"])
    assert loads == [1]


# The packaged model itself, half a minute to load

PASSAGES = [
    "numpy.clip(a, a_min, a_max): Clip (limit) the values in an array.",
    "pandas.melt(frame): Unpivot a DataFrame from wide to long format, optionally leaving identifiers set.",
    "scipy.stats.iqr(x): Compute the interquartile range of the data along the specified axis. " * 5,
]
QUERIES = ["cap sensor readings 0 to 100", "one row per month and shop", "spread of the middle half"]


@pytest.fixture(scope="module")
def packaged() -> SmolLM2:
    return SmolLM2()


@pytest.mark.slow
def test_packaged_model_gives_the_same_alone_in_a_batch_and_computed_plainly(packaged):
    loaded = packaged._ready()
    pairs = list(zip(PASSAGES, QUERIES, strict=True))

    prompts = [Prompt("likelihood").fill(passage=p) for p, _ in pairs]
    expected = [plain_likelihood(loaded, c, q) for c, (_, q) in zip(prompts, pairs, strict=True)]
    np.testing.assert_allclose(packaged.log_likelihoods(prompts, [q for _, q in pairs]), expected, atol=1e-4)

    judge = [Prompt("judge_small").fill(query=q, passage=p) for p, q in pairs]
    digits = loaded[1].convert_tokens_to_ids(["0", "1", "2"])
    for c, scores in zip(judge, packaged.choose(judge, ["grade:"] * len(judge), ["0", "1", "2"]), strict=True):
        expected = plain_log_probabilities(loaded, ids_of(loaded[1], c, "grade: "))[-1, digits]
        np.testing.assert_allclose(scores, expected, atol=1e-4)

    asked = [Prompt("questions_small_question").fill(passage=p) for p in PASSAGES]
    lines = packaged.lines(asked, ["question:"] * 3)
    assert lines == [packaged.lines([c], ["question:"])[0] for c in asked]
    assert packaged.lines(asked, ["question:"] * 3, 8)[0] == plain_line(loaded, asked[0], "question:", 8)
    assert all(lines)
    assert len(set(lines)) == 3

    said = packaged.lines([user("Name a colour."), user("What is the capital of France?")], ["", ""])
    assert all(said)
    assert "Paris" in said[1]
