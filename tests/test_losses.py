"""The course's losses are the library's, in value and in gradients, whatever the lengths of the texts."""

import copy
import string
from itertools import pairwise

import numpy as np
import pytest
import torch
from fakes import random_texts
from scipy.special import log_softmax
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize
from sentence_transformers.multi_vector_encoder.data_collator import MultiVectorEncoderDataCollator
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.losses import (
    BatchSemiHardTripletLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    TripletLoss,
)
from torch import nn

from helpers.models.load import pair_encoder, token_encoder
from helpers.store.files import WorkbookError
from helpers.training.losses import (
    MARGIN,
    SAMPLERS,
    AnchoredLoss,
    LabelLoss,
    ListLoss,
    PairwiseLoss,
    RankingLoss,
    TokenRankingLoss,
    finite,
    forward_by_length,
    loss_for,
)

# Of a batch's columns: 12 short queries, then passages of 1 to 60 words, one of them a word and one cut at 64 tokens.
NAMES = ("anchor", "positive", "negative", "other")
PASSAGES = ["tea", " ".join(["a long way down"] * 30), *random_texts(34, seed=2, length=60)]
TABLE = [random_texts(12, seed=1, length=6), *(PASSAGES[i::3] for i in range(3))]
COLUMNS = pytest.mark.parametrize("columns", [2, 3, 4])


@pytest.fixture(scope="module")
def encoder(tiny):
    """Without dropout and in double precision, so that equal means equal to ten digits."""
    return copy.deepcopy(tiny).double().eval()


@pytest.fixture(scope="module")
def tokens(tiny):
    return token_encoder(tiny).double().eval()


@pytest.fixture(scope="module")
def pairs(tiny):
    return pair_encoder(tiny).eval()


def features(model, columns: int = 4, rows: int = 12, texts=TABLE) -> list[dict]:
    """The columns of a batch as the library's own collator makes them for the trainer."""
    late = isinstance(model, MultiVectorEncoder)
    collator = (MultiVectorEncoderDataCollator if late else SentenceTransformerDataCollator)(model.preprocess)
    names = NAMES[:columns]
    table = [dict(zip(names, row, strict=False)) for row in zip(*texts, strict=True)]
    batch = collator(table[:rows])
    return [{k.removeprefix(f"{n}_"): v for k, v in batch.items() if k.startswith(f"{n}_")} for n in names]


def backward(loss: nn.Module, columns: list[dict]) -> dict[str, torch.Tensor]:
    """The loss's value, under "loss", and the gradient of each weight that has one."""
    loss.zero_grad()
    value = loss([dict(column) for column in columns], None)
    value.backward()
    gradients = {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}
    return {"loss": value.detach(), **gradients}


def assert_same(ours: nn.Module, theirs: nn.Module, columns: list[dict]) -> None:
    found, expected = backward(ours, columns), backward(theirs, columns)
    assert len(expected) > 20
    assert found.keys() == expected.keys()
    # MaxSim comes in single precision whatever the model's.
    tolerance = 1e-5 if isinstance(ours, TokenRankingLoss) else 1e-9
    largest = max(float(value.abs().max()) for name, value in expected.items() if name != "loss")
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=tolerance, abs=tolerance)
    for name in expected.keys() - {"loss"}:
        assert float((found[name] - expected[name]).abs().max()) <= tolerance * largest, name


def tokenwise(model: MultiVectorEncoder, scale: float = 20.0) -> nn.Module:
    return MultiVectorMultipleNegativesRankingLoss(model, scale=scale, similarity_fct=mean_colbert_scores)


def read(model, loss, columns) -> list[tuple[int, int]]:
    """The shape of each batch that the model reads for a loss."""
    shapes = []
    handle = model[0].register_forward_pre_hook(lambda module, args: shapes.append(tuple(args[0]["input_ids"].shape)))
    with torch.no_grad():
        loss([dict(column) for column in columns], None)
    handle.remove()
    return shapes


@COLUMNS
def test_ranking_loss_equals_the_librarys_in_value_and_gradients(encoder, columns):
    assert_same(RankingLoss(encoder), MultipleNegativesRankingLoss(encoder), features(encoder, columns))


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_ranking_loss_takes_its_scale(encoder, scale):
    columns = features(encoder)
    assert_same(RankingLoss(encoder, scale), MultipleNegativesRankingLoss(encoder, scale=scale), columns)


@pytest.mark.parametrize("columns", [2, 4])
def test_a_batch_of_one_row_has_its_own_negatives_only(encoder, tokens, columns):
    assert_same(RankingLoss(encoder), MultipleNegativesRankingLoss(encoder), features(encoder, columns, rows=1))
    assert_same(TokenRankingLoss(tokens), tokenwise(tokens), features(tokens, columns, rows=1))


def test_texts_are_read_in_several_batches_of_like_length_with_less_padding_than_the_librarys(encoder, tokens):
    many = [random_texts(48, seed=i, length=60 if i else 6) for i in range(4)]
    losses = [
        (encoder, RankingLoss(encoder), MultipleNegativesRankingLoss(encoder)),
        (tokens, TokenRankingLoss(tokens), tokenwise(tokens)),
    ]
    for model, ours, theirs in losses:
        columns = features(model, rows=48, texts=many)
        real = sum(int(column["attention_mask"].sum()) for column in columns)
        found, expected = (sum(rows * width for rows, width in read(model, loss, columns)) for loss in (ours, theirs))
        assert real <= found < 1.2 * real
        assert expected > 1.5 * real
        assert len(read(model, ours, columns)) > 2


def test_ranking_loss_of_texts_that_are_all_alike_is_the_logarithm_of_their_number(encoder):
    # Each of 3 queries has the same score for all 3 · 2 passages: −log(1 / 6).
    alike = dict(encoder.preprocess(["tea"] * 3))
    assert RankingLoss(encoder)([alike] * 3).item() == pytest.approx(np.log(6))


def by_hand(encoder, columns: int, width: int, scale: float = 20.0) -> float:
    """In-batch cross-entropy of the cosines of the first ``width`` numbers of each vector."""
    vectors = [encoder.encode(texts, convert_to_numpy=True)[:, :width] for texts in TABLE[:columns]]
    queries, *passages = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors]
    scores = queries @ np.concatenate(passages).T * scale
    return float(-np.diag(log_softmax(scores, axis=1)).mean())


@COLUMNS
def test_dimensions_train_the_mean_of_the_losses_at_each_width_the_full_one_included(encoder, columns):
    at = {width: by_hand(encoder, columns, width) for width in (4, 16, 32)}
    assert min(abs(at[a] - at[b]) for a, b in ((4, 16), (4, 32), (16, 32))) > 0.01
    for dimensions, widths in {(16,): (32, 16), (16, 4): (32, 16, 4), (4,): (32, 4)}.items():
        loss = RankingLoss(encoder, dimensions=dimensions)(features(encoder, columns))
        assert loss.item() == pytest.approx(np.mean([at[width] for width in widths]), rel=1e-6)


def test_dimensions_have_the_gradients_of_the_librarys_matryoshka_loss_with_equal_weights(encoder):
    theirs = MatryoshkaLoss(encoder, MultipleNegativesRankingLoss(encoder), [32, 16, 4], [1 / 3] * 3)
    columns = features(encoder)
    found, expected = backward(RankingLoss(encoder, dimensions=[16, 4]), columns), backward(theirs, columns)
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-9)
    expected = {name.removeprefix("loss."): value for name, value in expected.items()}
    for name in found.keys() - {"loss"}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11)


def test_widths_that_are_not_below_the_full_one_are_ignored(encoder):
    columns = features(encoder)
    plain, narrow = (RankingLoss(encoder, dimensions=d)(columns).item() for d in ((), (8,)))
    assert RankingLoss(encoder, dimensions=(32, 64))(columns).item() == plain
    assert RankingLoss(encoder, dimensions=(384, 32, 8))(columns).item() == narrow != plain


@COLUMNS
def test_token_loss_equals_the_librarys_in_value_and_gradients(tokens, columns):
    batch = features(tokens, columns)
    assert [column["task"] for column in batch] == ["query", *["document"] * (columns - 1)]
    assert_same(TokenRankingLoss(tokens), tokenwise(tokens), batch)


def test_token_loss_takes_its_scale_and_columns_without_a_task(tokens):
    batch = [{k: v for k, v in column.items() if k != "task"} for column in features(tokens)]
    assert_same(TokenRankingLoss(tokens, scale=5), tokenwise(tokens, scale=5), batch)


@pytest.fixture(scope="module")
def choosy(tokens):
    """A late-interaction model that leaves out the passages' commas and some words, but not the queries'."""
    words = [*string.punctuation, "a", "way"]
    modules = [tokens[0], MultiVectorMask(words), Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=modules, device="cpu").double().eval()


TASKS = [
    ["query", "document", "document", "document"],
    ["document", "query", "query", "query"],
    ["document", "document", "document", "document"],
    ["query", "document", "query", "document"],
]


@pytest.mark.parametrize("tasks", TASKS)
def test_token_loss_scores_the_tokens_that_each_columns_task_scores(choosy, tokens, tasks):
    texts = [["a, b", "way, down", "tea!"], *[["a long way", "cup, of, a: tea", "x"]] * 3]
    batch = [choosy.preprocess(column, task=task) | {"task": task} for column, task in zip(texts, tasks, strict=True)]
    assert_same(TokenRankingLoss(choosy), tokenwise(choosy), batch)
    assert TokenRankingLoss(choosy)(batch).item() != pytest.approx(TokenRankingLoss(tokens)(batch).item(), rel=1e-4)


def test_padding_on_the_left_cannot_be_cut_and_gives_the_librarys_loss(encoder, tokens, monkeypatch):
    for model, ours, theirs in [
        (encoder, RankingLoss(encoder), MultipleNegativesRankingLoss(encoder)),
        (tokens, TokenRankingLoss(tokens), tokenwise(tokens)),
    ]:
        right = ours(features(model)).item()
        monkeypatch.setattr(model.tokenizer, "padding_side", "left")
        batch = features(model)
        assert not batch[1]["attention_mask"][:, 0].all()
        assert_same(ours, theirs, batch)
        # BERT counts its positions from the left, padding too, so here the loss is another one.
        assert ours(batch).item() != pytest.approx(right, rel=1e-6)


def test_columns_with_different_keys_cannot_be_cut_and_give_the_librarys_loss(encoder):
    batch = features(encoder)
    del batch[2]["token_type_ids"]
    assert_same(RankingLoss(encoder), MultipleNegativesRankingLoss(encoder), batch)


@pytest.mark.parametrize("attend", [True, False])
def test_queries_filled_up_with_mask_tokens_give_the_librarys_loss(tokens, monkeypatch, attend):
    monkeypatch.setattr(tokens[0], "query_expansion", {"strategy": "fixed", "length": 24, "attend": attend})
    batch = features(tokens)
    assert batch[0]["input_ids"].shape == (12, 24)
    assert "query_expansion_positions" in batch[0]
    assert_same(TokenRankingLoss(tokens), tokenwise(tokens), batch)


QUERIES = ["red tea", "a long way down the hill to the sea", "house"]
LISTS = [["tea", *PASSAGES[1:20]], ["sea", PASSAGES[1]], [*PASSAGES[:22], "tea", "house"]]
LABELS = [[1, *[0] * 19], [0, 1], [2, 1, *[0] * 21, 1]]
PAIRS = [(query, doc) for query, docs in zip(QUERIES, LISTS, strict=True) for doc in docs]


def listed(labels=LABELS) -> tuple[tuple, list[torch.Tensor]]:
    return (QUERIES, LISTS), [torch.tensor(row) for row in labels]


def test_list_loss_is_the_mean_of_each_querys_cross_entropy_by_hand(pairs):
    # Of the third query's list the wanted shares are 1/2 for the first, 1/4 for the second, 1/4 for the last.
    scores = [pairs.predict([pair], activation_fn=nn.Identity())[0] for pair in PAIRS]
    first, second, third = (
        log_softmax(np.array(part, dtype=float)) for part in (scores[:20], scores[20:22], scores[22:])
    )
    expected = [-first[0], -second[1], -(third[0] / 2 + third[1] / 4 + third[-1] / 4)]
    found = ListLoss(pairs, activation_fn=nn.Identity())(*listed())
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_list_loss_has_the_gradients_of_one_padded_forward_pass_and_reads_in_several(pairs):
    loss = ListLoss(pairs, activation_fn=nn.Identity())
    loss.zero_grad()
    shapes = []
    handle = pairs[0].register_forward_pre_hook(lambda module, args: shapes.append(args[0]["input_ids"].shape))
    loss(*listed()).backward()
    handle.remove()
    assert len(shapes) > 1
    assert sum(rows for rows, _ in shapes) == len(PAIRS)
    found = {name: p.grad.clone() for name, p in pairs.named_parameters() if p.grad is not None}
    loss.zero_grad()
    parts = pairs(pairs.preprocess(PAIRS))["scores"].view(-1).split([20, 2, 24])
    shares = [torch.tensor(row) / sum(row) for row in LABELS]
    sum(-(share * part.log_softmax(0)).sum() for share, part in zip(shares, parts, strict=True)).div(3).backward()
    expected = {name: p.grad for name, p in pairs.named_parameters() if p.grad is not None}
    assert len(found) > 20
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name in expected:
        assert float((found[name] - expected[name]).abs().max()) <= 1e-5 * largest, name


def test_list_loss_of_equal_scores_is_the_logarithm_of_each_lists_length(pairs):
    model = copy.deepcopy(pairs)
    nn.init.zeros_(model[-1].linear.weight)
    # (log 20 + log 2 + log 24) / 3 = log(960) / 3 = 2.28898, wherever the relevant ones stand.
    for labels in (LABELS, [[*[0] * 19, 1], [1, 1], [3, *[1] * 23]]):
        assert ListLoss(model, activation_fn=nn.Identity())(*listed(labels)).item() == pytest.approx(2.28898, abs=1e-5)


def test_list_loss_of_a_query_depends_on_no_other_query_of_the_batch(pairs):
    loss = ListLoss(pairs, activation_fn=nn.Identity())
    alone = [
        loss(([query], [docs]), [torch.tensor(row)]).item()
        for query, docs, row in zip(QUERIES, LISTS, LABELS, strict=True)
    ]
    assert loss(*listed()).item() == pytest.approx(np.mean(alone), rel=1e-5)


def broken(model, weight: float):
    """A copy of the model with one number of its word vectors, that of [CLS], replaced."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied[0].model.embeddings.word_embeddings.weight[101, 0] = weight
    return copied


@pytest.mark.parametrize("kind", ["encoder", "tokens", "tokens padded on the left", "pairs"])
def test_a_weight_that_is_not_a_number_ends_in_one_sentence(encoder, tokens, pairs, kind):
    model = broken({"encoder": encoder, "pairs": pairs}.get(kind, tokens), float("nan"))
    if "left" in kind:
        model.tokenizer.padding_side = "left"
    inputs = listed() if kind == "pairs" else (features(model), None)
    with pytest.raises(WorkbookError, match=r"^The loss is no longer a number.* lower the learning rate") as caught:
        loss_for(model, 20.0, (16,))(*inputs)
    message = str(caught.value)
    assert message.endswith(".")
    assert ". " not in message
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_infinite_loss_passes_and_every_other_does_as_it_is(value):
    with pytest.raises(WorkbookError):
        finite(torch.tensor(value))
    loss = torch.tensor(0.5, requires_grad=True)
    assert finite(loss) is loss


CHUNKS = pytest.mark.parametrize("chunk_tokens", [1, 100, 1024, 10**6])


@CHUNKS
def test_each_row_has_the_vector_of_its_own_forward_pass_in_the_order_of_the_rows(encoder, chunk_tokens):
    with torch.no_grad():
        found = forward_by_length(features(encoder), encoder, "sentence_embedding", chunk_tokens)
        texts = [text for column in TABLE for text in column]
        expected = [encoder(encoder.preprocess([text]))["sentence_embedding"][0] for text in texts]
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=0, atol=1e-10)
    assert torch.pdist(torch.stack(found)[:12]).min() > 1e-4  # no two of these rows could be taken for each other


@CHUNKS
def test_each_row_has_the_token_vectors_of_its_own_forward_pass_and_no_padding(tokens, chunk_tokens):
    batch = [{k: v for k, v in column.items() if k != "task"} for column in features(tokens)]
    with torch.no_grad():
        found = forward_by_length(batch, lambda part: tokens(part, task="document"), "token_embeddings", chunk_tokens)
        texts = [text for column in TABLE for text in column]
        expected = [tokens(tokens.preprocess([text]), task="document")["token_embeddings"][0] for text in texts]
    assert {len(row) for row in found} >= {3, 64}  # [CLS] tea [SEP], and the longest that the model takes
    for row, other in zip(found, expected, strict=True):
        torch.testing.assert_close(row, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("chunk_tokens", [1, 100, 1024])
def test_a_forward_pass_by_length_reads_the_longest_rows_first_and_holds_to_its_tokens(encoder, chunk_tokens):
    shapes = []

    def call(part):
        shapes.append(tuple(part["input_ids"].shape))
        return encoder(part)

    forward_by_length(features(encoder), call, "sentence_embedding", chunk_tokens)
    assert sum(rows for rows, _ in shapes) == 48
    assert all(rows * width <= chunk_tokens or rows == 1 for rows, width in shapes)
    assert all(first[1] >= second[1] for first, second in pairwise(shapes))


def test_each_family_of_models_has_its_loss(encoder, tokens, pairs):
    ranking, token, listwise = (loss_for(model, 7.0, [16, 8]) for model in (encoder, tokens, pairs))
    assert (type(ranking), ranking.scale, ranking.dimensions) == (RankingLoss, 7.0, (16, 8))
    assert (type(token), token.scale) == (TokenRankingLoss, 7.0)
    assert type(listwise) is ListLoss


def test_each_kind_of_loss_is_the_one_that_is_named_and_has_a_sampler(encoder):
    kinds = {"ranking": RankingLoss, "triplet": AnchoredLoss, "labels": LabelLoss, "relation": PairwiseLoss}
    assert {kind: type(loss_for(encoder, 7.0, (), kind)) for kind in SAMPLERS} == kinds
    assert issubclass(AnchoredLoss, TripletLoss)
    assert issubclass(LabelLoss, BatchSemiHardTripletLoss)
    assert loss_for(encoder, 7.0, (), "ranking").scale == 7.0


class Given(nn.Module):
    """A model that gives each text the vector that it is given."""

    def forward(self, column):
        return {"sentence_embedding": column["vectors"]}


def given(rows) -> dict[str, torch.Tensor]:
    return {"vectors": torch.tensor(rows, dtype=torch.float64)}


def test_triplet_loss_is_the_mean_worked_out_by_hand_and_lengths_do_not_count():
    anchor, positive, negative = (
        given(rows) for rows in ([[1, 0], [5, 0], [1, 0]], [[3, 0], [0, 2], [2, 2]], [[0, 1], [1, 0], [1, 1]])
    )
    # In cosine distance: 0 - 1 + 0.3 is below 0 and counts 0; 1 - 0 + 0.3 = 1.3; of equal ones the margin, 0.3.
    loss = loss_for(Given(), 20.0, (), "triplet")([anchor, positive, negative], None)
    assert MARGIN == 0.3
    assert loss.item() == pytest.approx(1.6 / 3)


def test_triplet_loss_has_no_negatives_from_the_batch(encoder):
    loss, columns = loss_for(encoder, 20.0, (), "triplet"), features(encoder, 3)
    # With the batch's own negatives the mean of rows read one at a time would be another number.
    alone = [loss(features(encoder, 3, texts=[[c[i]] for c in TABLE]), None).item() for i in range(12)]
    assert loss(columns, None).item() == pytest.approx(np.mean(alone), rel=1e-9)
    assert np.std(alone) > 1e-3


def test_triplet_loss_falls_when_anchor_and_positive_come_closer_and_not_past_the_margin():
    def loss(degrees):
        turned = np.radians(degrees)
        rows = [given([[1, 0]]), given([[np.cos(turned), np.sin(turned)]]), given([[0, 1]])]
        return loss_for(Given(), 20.0, (), "triplet")(rows, None).item()

    # 1 - cos(degrees) - 1 + 0.3 for 90, 80 and 60 degrees.
    assert [loss(d) for d in (90, 80, 60)] == pytest.approx([0.3, 0.3 - np.cos(np.radians(80)), 0.0], abs=1e-12)


def test_loss_of_labels_finds_the_semi_hard_triplets_of_the_batch_by_hand():
    # Directions 0° and 20° have label 7, 50° and 110° label 3; a distance is 1 - cos of the angle between. Of each pair
    # the nearest stranger farther away than its partner, else the farthest one: 0° takes 50°; 20° takes 50°; 50° has no
    # stranger farther away than 110° and takes 0°; 110° takes 20°, too far away for the margin of 0.3.
    turned = np.radians([0, 20, 50, 110])
    loss = loss_for(Given(), 20.0, (), "labels")(
        [given(np.stack([np.cos(turned), np.sin(turned)], 1))], torch.tensor([7, 7, 3, 3])
    )
    away = {degrees: 1 - np.cos(np.radians(degrees)) for degrees in (20, 30, 50, 60)}
    rows = [away[20] - away[50] + 0.3, away[20] - away[30] + 0.3, away[60] - away[50] + 0.3, 0.0]
    assert min(rows[:3]) > 0
    assert loss.item() == pytest.approx(sum(rows) / 4, abs=1e-5)


def test_pairwise_loss_by_hand():
    # Directions 0°, 60° and 90°: cosines .5 (0-60), 0 (0-90), cos 30 (60-90).
    # Item 4 is related to item 2 alone, and 2 to 4; 0 to none.
    turned = np.radians([0, 60, 90])
    vectors = given(np.stack([np.cos(turned), np.sin(turned)], 1))
    labels = torch.tensor([[0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 1], [4, 0, 0, 1, 0, 0]])
    # Of item 2 (60°): 4 is nearer than 0 by cos 30 - .5; of item 4 (90°): 2 is nearer than 0 by cos 30 - 0.
    gaps = [0.5 - np.cos(np.pi / 6), 0 - np.cos(np.pi / 6)]
    loss = loss_for(Given(), 2.0, (), "relation")([vectors], labels)
    assert loss.item() == pytest.approx(np.mean(np.log1p(np.exp(2.0 * np.array(gaps)))))


def test_pairwise_loss_of_a_batch_in_which_nothing_is_related_is_0():
    vectors = given([[1, 0], [0, 1]])
    assert loss_for(Given(), 2.0, (), "relation")([vectors], torch.tensor([[0, 0, 0], [1, 0, 0]])).item() == 0
