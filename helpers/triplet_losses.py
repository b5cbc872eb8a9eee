"""Losses of triplets, of labels and of a relation, and a check that a loss is a number."""

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    BatchHardTripletLossDistanceFunction,
    BatchSemiHardTripletLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from torch import Tensor, nn

from helpers.store import WorkbookError

Features = dict[str, Any]
MARGIN = 0.3  # of the triplet losses, in cosine distance


def finite(loss: Tensor) -> Tensor:
    """The loss; raises WorkbookError when it is not a number, before the optimizer spoils the weights with it."""
    if not torch.isfinite(loss):
        raise WorkbookError(
            "The loss is no longer a number, so the training has diverged: lower the learning rate, and check the texts for "
            "anything unusual."
        )
    return loss


class AnchoredLoss(TripletLoss):
    """The library's TripletLoss in cosine distance; stops when it is no number."""

    def __init__(self, model: SentenceTransformer):
        super().__init__(model, TripletDistanceMetric.COSINE, MARGIN)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        return finite(super().forward(sentence_features, labels))


class LabelLoss(BatchSemiHardTripletLoss):
    """The library's BatchSemiHardTripletLoss in cosine distance; stops when it is no number."""

    def __init__(self, model: SentenceTransformer):
        super().__init__(model, BatchHardTripletLossDistanceFunction.cosine_distance, MARGIN)

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        return finite(super().forward(sentence_features, labels))


class PairwiseLoss(nn.Module):
    """Of all items of the batch, those related to an item shall be nearer to it than those that are not, pair by pair.

    The labels have the shape (rows, 1 + items): a row's own number, then 1 for each item of the collection that it is related to,
    else 0. The loss is the mean of log(1 + exp(scale · (cosine to an unrelated one − cosine to a related one))).
    Source: Burges et al., Learning to Rank using Gradient Descent, ICML 2005.
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
