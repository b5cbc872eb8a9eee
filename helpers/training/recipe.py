"""How a training is done, and how a model is prepared for it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer

Model = SentenceTransformer | MultiVectorEncoder | CrossEncoder


@dataclass(frozen=True)
class Recipe:
    """How a training is done; a recipe with another value in any field is another training.

    epochs, fewest_steps : passes over the rows; with few rows there are as many as it takes to make this many steps
    scale : 1 / temperature of the softmax over the passages of a batch
    dimensions : shorter widths at which the vectors shall rank as well (Matryoshka); empty for the full width alone
    frozen_layers, frozen_embeddings : what keeps the base model's weights; layers are counted from the input
    weights : shares of the tuned weights in an average with the base model's, from which dev chooses
    evaluations, patience : how often dev is scored, and after how many scores without a gain the training stops

    With the defaults, a training takes minutes on two cores (notebook 06, appendix).
    """

    epochs: float = 1.2
    fewest_steps: int = 12
    batch_size: int = 64
    learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    scale: float = 20.0
    dimensions: tuple[int, ...] = (192, 96, 48)
    dropout: float = 0.0
    frozen_layers: int = 0
    frozen_embeddings: bool = True
    weights: tuple[float, ...] = (1.0,)
    evaluations: int = 3
    patience: int = 2
    max_tokens: int = 192
    seed: int = 0


@contextlib.contextmanager
def prepared(model: Model, recipe: Recipe) -> Iterator[None]:
    """A context that sets the model up for a training and restores it afterwards.

    Inside, the parts that the recipe freezes are frozen, and its dropout and input length are set.
    """
    dropouts = [(m, m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    length, network = model.max_seq_length, model[0].model
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for module, _ in dropouts:
        module.p = recipe.dropout
    model.max_seq_length = min(length or recipe.max_tokens, recipe.max_tokens)
    if recipe.frozen_embeddings:
        network.get_input_embeddings().weight.requires_grad_(False)
    layers = next((m for m in network.modules() if isinstance(m, torch.nn.ModuleList)), [])
    for layer in list(layers)[: recipe.frozen_layers]:
        layer.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in trainable:
            parameter.requires_grad_(flag)
        model.max_seq_length = length
        for module, p in dropouts:
            module.p = p


def mixed(tuned: dict[str, torch.Tensor], base: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """share × tuned + (1 − share) × base for every weight. Source: Wortsman et al., WiSE-FT, CVPR 2022."""
    return {k: torch.lerp(base[k], v, share) if v.is_floating_point() else v for k, v in tuned.items()}
