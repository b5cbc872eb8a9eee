"""The losses of sentence-transformers with less padding, more than one width, and a check that they are numbers."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.cross_encoder.losses import ListNetLoss
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores
from sentence_transformers.sentence_transformer.losses import (
    BatchHardTripletLossDistanceFunction,
    BatchSemiHardTripletLoss,
    MultipleNegativesRankingLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn

from helpers.models.embed import BATCH_TOKENS, batches_by_length
from helpers.store.files import WorkbookError

Features = dict[str, Any]
MARGIN = 0.3  # of the triplet losses, in cosine distance


def finite(loss: Tensor) -> Tensor:
    """The loss; raises WorkbookError when it is not a number, before the optimizer spoils the weights with it."""
    if not torch.isfinite(loss):
        raise WorkbookError(
            "The loss is no longer a number, so the training has diverged: lower the learning rate, "
            "and check the texts for anything unusual."
        )
    return loss


class AnchoredLoss(TripletLoss):
    """The library's TripletLoss in cosine distance; raises WorkbookError when it is not a number."""

    def __init__(self, model: SentenceTransformer):
        super().__init__(model, TripletDistanceMetric.COSINE, MARGIN)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        return finite(super().forward(sentence_features, labels))


class LabelLoss(BatchSemiHardTripletLoss):
    """The library's BatchSemiHardTripletLoss in cosine distance; raises WorkbookError when it is not a number."""

    def __init__(self, model: SentenceTransformer):
        super().__init__(model, BatchHardTripletLossDistanceFunction.cosine_distance, MARGIN)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        return finite(super().forward(sentence_features, labels))


class PairwiseLoss(nn.Module):
    """A loss for related items: in a batch, an item shall be nearer to those related to it than to those that are not.

    ``labels`` has the shape (rows, 1 + items): first the number of the row's own item, then for each item of the
    collection 1 if it is related to the row's, else 0. The loss is the mean of log(1 + exp(scale · (cosine to an
    unrelated item − cosine to a related item))) over all such pairs of the batch. Source: Burges et al., Learning to
    Rank using Gradient Descent, ICML 2005.
    """

    def __init__(self, model: SentenceTransformer, scale: float = 20.0):
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        vectors = nn.functional.normalize(self.model(next(iter(sentence_features)))["sentence_embedding"], dim=1)
        cosines = vectors @ vectors.T
        related = labels[:, 1:].bool()[:, labels[:, 0]]
        others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        pairs = (related & others)[:, :, None] & (~related & others)[:, None, :]
        gaps = (cosines[:, None, :] - cosines[:, :, None])[pairs]
        return finite(nn.functional.softplus(self.scale * gaps).mean() if len(gaps) else 0 * cosines.sum())


def _rows(columns: Sequence[Features]) -> Features:
    """The columns as one batch: all rows of the first, then of the second and so on, padded to the widest."""
    width = max(column["attention_mask"].shape[1] for column in columns)
    merged: Features = {}
    for key, first in columns[0].items():
        if isinstance(first, Tensor) and first.shape == columns[0]["attention_mask"].shape:
            padded = [nn.functional.pad(column[key], (0, width - column[key].shape[1])) for column in columns]
            merged[key] = torch.cat(padded)
        else:
            merged[key] = first
    return merged


def _settings(column: Features) -> dict[str, Any]:
    """The keys of a column with their values, such as the length of a prompt; None stands for any tensor."""
    return {key: None if isinstance(value, Tensor) else value for key, value in column.items()}


def _can_be_cut(columns: Sequence[Features]) -> bool:
    """Whether the columns are token ids padded on the right, with equal settings, so that rows can be regrouped."""
    masks = [column.get("attention_mask") for column in columns]
    equal_settings = all(_settings(column) == _settings(columns[0]) for column in columns)
    return equal_settings and all(isinstance(m, Tensor) and m.ndim == 2 and bool(m[:, 0].all()) for m in masks)


def forward_by_length(
    columns: Sequence[Features], call: Callable[[Features], Features], output: str, chunk_tokens: int = BATCH_TOKENS
) -> list[Tensor]:
    """Run ``call`` on all rows in chunks of similar length, with hardly any padding; returns one output tensor a row.

    ``columns`` are padded batches (``input_ids``, ``attention_mask`` of shape (rows, tokens)), and the outputs are in
    their order. ``output`` is the key of what is wanted: "sentence_embedding" of shape (width,), or "token_embeddings"
    of shape (tokens of the row, width). The result is that of one padded forward pass: rows do not see each other.
    """
    merged = _rows(columns)
    lengths = merged["attention_mask"].sum(dim=1).tolist()
    results: list[Tensor | None] = [None] * len(lengths)
    for chunk in batches_by_length(lengths, chunk_tokens):
        width = lengths[chunk[0]]
        part = {k: v[chunk, :width] if isinstance(v, Tensor) and v.ndim == 2 else v for k, v in merged.items()}
        made = call(part)
        for i, row, mask in zip(chunk, made[output], made["attention_mask"].bool(), strict=True):
            results[i] = row if row.ndim == 1 else row[mask]
    return results


def _by_column(rows: list[Tensor], columns: Sequence[Features]) -> list[list[Tensor]]:
    sizes = [len(column["attention_mask"]) for column in columns]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [rows[start : start + size] for start, size in zip(starts, sizes, strict=True)]


class RankingLoss(MultipleNegativesRankingLoss):
    """MultipleNegativesRankingLoss in chunks of similar length, at one width or, with ``dimensions``, at several.

    Loss and gradients at full width are the library's own. ``dimensions`` are shorter widths: the first d numbers of
    each vector are trained to rank as well, with equal weight. Sources: Henderson et al., 2017 (in-batch negatives);
    Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022.
    """

    def __init__(self, model: SentenceTransformer, scale: float = 20.0, dimensions: Sequence[int] = ()):
        super().__init__(model, scale=scale)
        self.dimensions = tuple(dimensions)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        columns = list(sentence_features)
        if not _can_be_cut(columns):
            vectors = [self.model(column)["sentence_embedding"] for column in columns]
        else:
            rows = forward_by_length(columns, self.model, "sentence_embedding")
            vectors = [torch.stack(column) for column in _by_column(rows, columns)]
        full = vectors[0].shape[1]
        widths = [full, *(width for width in self.dimensions if width < full)]
        losses = [self.compute_loss_from_embeddings([v[:, :width] for v in vectors], labels) for width in widths]
        return finite(torch.stack(losses).mean())


class TokenRankingLoss(MultiVectorMultipleNegativesRankingLoss):
    """RankingLoss for late interaction: MaxSim averaged over the query's tokens, in-batch and mined negatives."""

    def __init__(self, model: MultiVectorEncoder, scale: float = 20.0):
        super().__init__(model, scale=scale, similarity_fct=mean_colbert_scores)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        columns = [dict(column) for column in sentence_features]
        tasks = [column.pop("task", "document" if i else "query") for i, column in enumerate(columns)]
        if not _can_be_cut(columns) or len(set(tasks[1:])) != 1:
            return finite(super().forward([c | {"task": t} for c, t in zip(columns, tasks, strict=True)], labels))
        queries = forward_by_length(columns[:1], lambda part: self.model(part, task=tasks[0]), "token_embeddings")
        passages = forward_by_length(columns[1:], lambda part: self.model(part, task=tasks[1]), "token_embeddings")
        count = len(columns) - 1
        # Query-major: the positive of query i is passage i * count, then its own negatives.
        ordered = [column[i] for i in range(len(queries)) for column in _by_column(passages, columns[1:])]
        padded_queries, query_mask = _padded(queries)
        padded, mask = _padded(ordered)
        shape = (len(queries), count)
        scores = mean_colbert_scores(
            padded_queries, padded.unflatten(0, shape), queries_mask=query_mask, documents_mask=mask.unflatten(0, shape)
        )
        wanted = torch.arange(len(queries), device=scores.device) * count
        return finite(nn.functional.cross_entropy(scores * self.scale, wanted))


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]


class ListLoss(ListNetLoss):
    """ListNetLoss for a cross-encoder, in chunks of similar length: the passages of a query compete in a softmax.

    With one relevant passage in a list it is the cross-entropy of picking that one. Source: Cao et al., Learning to
    Rank: From Pairwise Approach to Listwise Approach, ICML 2007.
    """

    def forward(self, inputs, labels, prompt: str | None = None, task: str | None = None) -> Tensor:
        queries, lists = inputs
        pairs = [(query, doc) for query, docs in zip(queries, lists, strict=True) for doc in docs]
        lengths = [len(ids) for ids in self.model.tokenizer(pairs, truncation=True)["input_ids"]]
        scores: list[Tensor | None] = [None] * len(pairs)
        for chunk in batches_by_length(lengths, 2 * BATCH_TOKENS):
            tokens = self.model.preprocess([pairs[i] for i in chunk], prompt=prompt, task=task)
            for i, score in zip(
                chunk,
                self.model(batch_to_device(tokens, self.model.device))["scores"].view(-1),
                strict=True,
            ):
                scores[i] = score
        sizes = [len(docs) for docs in lists]
        parts = torch.stack(scores).float().split(sizes)
        wanted = [label.float().to(scores[0].device) for label in labels]
        losses = [
            nn.functional.cross_entropy(self.activation_fn(s), w / w.sum()) for s, w in zip(parts, wanted, strict=True)
        ]
        return finite(torch.stack(losses).mean())


class PassagesLoss(nn.Module):
    """The cross-entropy of a query's right passage against *all* passages, whose vectors stay as they are.

    ``passages`` has the shape (passages, width), unit length. ``labels``, of shape (rows, n), holds positions in it:
    first the row's right passage, then others that are right too and count for nothing, filled up with −1. Only the
    encoder of queries learns, so every passage can be a negative at the price of one matrix product. Source: query-side
    fine-tuning, as in Lee et al., Learning Dense Representations of Phrases at Scale, ACL 2021.
    """

    def __init__(self, model: SentenceTransformer, passages: np.ndarray, scale: float = 20.0):
        super().__init__()
        self.model, self.scale, self.passages = model, scale, torch.from_numpy(passages)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        columns = list(sentence_features)[:1]
        if _can_be_cut(columns):
            vectors = torch.stack(forward_by_length(columns, self.model, "sentence_embedding"))
        else:
            vectors = self.model(columns[0])["sentence_embedding"]
        vectors = nn.functional.normalize(vectors, dim=1)
        scores = self.scale * vectors @ self.passages.to(vectors.device).T
        rows, columns = (labels[:, 1:] >= 0).nonzero(as_tuple=True)
        scores[rows, labels[rows, columns + 1]] = float("-inf")
        return finite(nn.functional.cross_entropy(scores, labels[:, 0]))


# How a batch is put together for each loss of a bi-encoder. For "ranking", a text that occurs twice would be its own
# negative; for "labels", a batch needs several texts of the same label.
SAMPLERS = {
    "ranking": "no_duplicates",
    "triplet": "batch_sampler",
    "labels": "group_by_label",
    "relation": "batch_sampler",
}


def loss_for(
    model: SentenceTransformer | MultiVectorEncoder | CrossEncoder,
    scale: float,
    dimensions: Sequence[int],
    kind: str = "ranking",
):
    """The loss for a model of this family: the course's ranking loss or, for a bi-encoder, also one of the library's.

    kind : "ranking", in-batch and mined negatives;
        "triplet", rows of anchor, positive and negative, without in-batch negatives;
        "labels", rows of a text and a label, the triplets found in each batch (Schroff et al., FaceNet, CVPR 2015);
        "relation", see ``PairwiseLoss``
    """
    if isinstance(model, CrossEncoder):
        return ListLoss(model, activation_fn=nn.Identity())
    if isinstance(model, MultiVectorEncoder):
        return TokenRankingLoss(model, scale)
    if kind == "triplet":
        return AnchoredLoss(model)
    if kind == "relation":
        return PairwiseLoss(model, scale)
    if kind == "labels":
        return LabelLoss(model)
    return RankingLoss(model, scale, dimensions)
