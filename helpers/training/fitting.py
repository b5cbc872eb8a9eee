"""One resumable training: its recipe, checkpoints chosen on dev, early stopping, and a record of the run.

A training that was interrupted continues at its last checkpoint; one that was finished before is only loaded.
"""

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    SentenceTransformer,
    SentenceTransformerTrainer,
)
from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from helpers.collection.collection import Collection
from helpers.models.load import load_trained, model_key
from helpers.models.packaged import quiet_files
from helpers.store.files import WorkbookError, fingerprint, write_text
from helpers.store.progress import progress_bar
from helpers.training.losses import SAMPLERS, loss_for

Model = SentenceTransformer | MultiVectorEncoder | CrossEncoder
CARD = """---
library_name: sentence-transformers
tags: [sentence-transformers]
---
# {name}

Tuned from `{base}` on {rows:,} rows of the collection `{collection}` ({kind}). \
The checkpoint was chosen by {metric} on items that
were not trained on: {start:.3f} before, {best:.3f} after (step {step} of {steps}). \
It is meant for this collection; it was not tested on others.

    from sentence_transformers import {kind}
    model = {kind}("{name}")

Everything that went into it is in `run.json`.
"""


@dataclass(frozen=True)
class Recipe:
    """How a training is done; a recipe with another value in any field is another training.

    epochs, fewest_steps : passes over the rows; where they make fewer steps (batches) than this, there are more passes
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


def metric_label(metric: str) -> str:
    """A metric's name for people: dev_ndcg@10 is "dev nDCG@10"."""
    return metric.replace("_", " ").replace("ndcg", "nDCG").replace("auc", "AUC")


def model_card(record: dict, kind: str, base: str) -> str:
    """The text of README.md beside the weights.

    ``record`` is what run.json holds, ``kind`` the name of the model's class, and ``base`` the name or folder of the
    model that was tuned.
    """
    dev = record["dev"]
    steps = dev["curve"][-1]["step"] if dev["curve"] else 0
    more = {"kind": kind, "base": base.split("/")[-1], "start": dev["start"], "best": dev["best"], "steps": steps}
    return CARD.format(**record | more)


TRAINERS = {
    CrossEncoder: CrossEncoderTrainer,
    MultiVectorEncoder: MultiVectorEncoderTrainer,
    SentenceTransformer: SentenceTransformerTrainer,
}


@dataclass
class Trained:
    """A tuned model, its folder, what its run.json says, and whether it was loaded instead of trained."""

    model: Any
    folder: Path
    record: dict
    loaded: bool = False


class _Bar(TrainerCallback):
    """A progress bar with the steps, the remaining time, and the latest score on dev."""

    def __init__(self, name: str, metric: str):
        self.name, self.metric = name, metric

    def on_train_begin(self, args, state, control, **_):
        self.bar = progress_bar(state.max_steps, f"Training {self.name}", "step", done=state.global_step)

    def on_step_end(self, args, state, control, **_):
        self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args, state, control, metrics, **_):
        self.bar.set_postfix_str(f"{metric_label(self.metric)} {metrics[f'eval_{self.metric}']:.3f}")

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


def loss_name(loss: str | torch.nn.Module) -> str:
    """What a loss is called in run.json: its kind in ``losses.loss_for``, or its class."""
    return loss if isinstance(loss, str) else type(loss).__name__


def training_key(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    evaluator: BaseEvaluator,
    loss: str | torch.nn.Module = "ranking",
) -> str:
    """A fingerprint of everything that a training's result depends on; it is the ``key`` in run.json.

    A training whose key is that of an earlier one would give the same model, so the earlier one's is loaded instead.
    """
    other = [] if loss == "ranking" else [loss_name(loss)]
    return fingerprint(model_key(model), dataset.to_dict(), asdict(recipe), evaluator.key, *other)


def fit(
    collection: Collection,
    name: str,
    model: Model,
    dataset: Dataset,
    evaluator: BaseEvaluator,
    recipe: Recipe,
    loss: str | torch.nn.Module = "ranking",
) -> Trained:
    """Tune ``model`` on the rows, in place, and keep it under ``build/<collection>/models/<name>``.

    ``evaluator(model)`` gives {``evaluator.primary_metric``: score on dev}, higher is better. What is kept is whatever
    scores best on dev: one of the checkpoints, or the model as it was before the training, where ``record["step"]`` is
    0. ``loss`` is a kind of ``losses.loss_for`` or a loss that depends on nothing but the model, the rows, the recipe
    and what the evaluator's key covers.

    If the same model was trained before on the same rows by the same recipe and dev set, the result is loaded. A
    training that was interrupted continues at its last checkpoint. Raises WorkbookError when the loss is not a number
    or the disk is full; nothing half-written is left in the folder then.
    """
    key = training_key(model, dataset, recipe, evaluator, loss)
    folder = collection.build / "models" / name
    record = _read(folder / "run.json")
    if record.get("key") == key:
        return Trained(load_trained(folder, type(model)), folder, record, loaded=True)
    work = folder.with_name(f"{name}.part")
    if _read(work / "begun.json").get("key") != key:
        shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir(parents=True, exist_ok=True)
        _check_space(work, model)
        base = {k: v.detach().clone() for k, v in model.state_dict().items()}
        begun = _read(work / "begun.json") or {"key": key, "start": evaluator(model)[evaluator.primary_metric]}
        write_text(work / "begun.json", json.dumps(begun))
        curve, seconds, best, step = _train(work, name, model, dataset, evaluator, recipe, begun["start"], loss)
        if step == 0:
            model.load_state_dict(base)
        weight, best = _average(model, base, evaluator, recipe, best) if step else (0.0, best)
        record = {
            "key": key,
            "name": name,
            "collection": collection.name,
            "data": fingerprint(dataset.to_dict()),
            "rows": len(dataset),
            "columns": dataset.column_names,
            "recipe": asdict(recipe),
            "loss": loss_name(loss),
            "metric": metric_label(evaluator.primary_metric),
            "dev": {"start": begun["start"], "best": best, "curve": curve},
            "step": step,
            "weight": weight,
            "seconds": round(seconds, 1),
            "peak_mib": _peak_mib(),
            "device": str(model.device),
            "versions": {p: version(p) for p in ("torch", "transformers", "sentence-transformers", "datasets")},
            "python": platform.python_version(),
        }
        _keep(work, folder, model, record)
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):  # torch's word for a failed write
            raise
        raise WorkbookError(
            f"Cannot store the training of {name} under {work.parent} ({str(error)[:120]}): "
            "free some space and run again; it goes on at the last checkpoint that is whole."
        ) from error
    return Trained(model, folder, record)


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _check_space(work: Path, model: Model) -> None:
    """Raises WorkbookError when the disk has no room for the model and three checkpoints.

    A checkpoint holds the weights and the optimizer's two numbers for each of them.
    """
    needed = sum(p.numel() for p in model.parameters()) * 4 * (3 * 3 + 1)
    free = shutil.disk_usage(work).free
    if free < needed:
        raise WorkbookError(
            f"The checkpoints need about {needed / 2**20:,.0f} MiB and {work.parent} has {free / 2**20:,.0f} MiB free: "
            "free some space or set WORKBOOK_BUILD to a folder on another disk."
        )


def _train(
    work: Path,
    name: str,
    model: Model,
    dataset: Dataset,
    evaluator: BaseEvaluator,
    recipe: Recipe,
    start: float,
    loss: str | torch.nn.Module,
) -> tuple[list[dict], float, float, int]:
    """Run the training; returns (dev curve, seconds, best dev score, step of the best checkpoint).

    ``model`` then holds the weights of the best checkpoint. A step of 0 says that none is better than ``start``;
    restoring the base model's weights is then left to the caller.
    """
    trainer_class = next(t for family, t in TRAINERS.items() if isinstance(model, family))
    metric = evaluator.primary_metric
    # Our model card shows no examples, and the library's search for some would print a progress bar.
    model.model_card_data.set_widget_examples = lambda dataset: None
    steps = max(recipe.fewest_steps, round(recipe.epochs * len(dataset) / recipe.batch_size))
    every = max(1, steps // recipe.evaluations)
    arguments = trainer_class.training_args_class(
        output_dir=str(work),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        lr_scheduler_type="cosine",
        weight_decay=recipe.weight_decay,
        seed=recipe.seed,
        data_seed=recipe.seed,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        restore_callback_states_from_checkpoint=True,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        **(
            {} if isinstance(model, CrossEncoder) else {"batch_sampler": SAMPLERS.get(loss_name(loss), "batch_sampler")}
        ),
        **_prompts(model, dataset.column_names),
    )
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=dataset,
        loss=loss_for(model, recipe.scale, recipe.dimensions, loss) if isinstance(loss, str) else loss,
        evaluator=evaluator,
        callbacks=[_Bar(name, metric), EarlyStoppingCallback(recipe.patience)],
    )
    trainer.remove_callback(PrinterCallback)
    spent, began = _read(work / "spent.json").get("seconds", 0.0), time.perf_counter()
    trainer.add_callback(_Clock(lambda: write_text(work / "spent.json", json.dumps({"seconds": clock()}))))

    def clock() -> float:
        return spent + time.perf_counter() - began

    with prepared(model, recipe), quiet_files():
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(work))
    curve = [
        {"step": log["step"], "epoch": round(log["epoch"], 3), "dev": log[f"eval_{metric}"]}
        for log in trainer.state.log_history
        if f"eval_{metric}" in log
    ]
    best = max(curve, key=lambda point: point["dev"], default={"dev": start, "step": 0})
    return curve, clock(), max(start, best["dev"]), best["step"] if best["dev"] > start else 0


@contextlib.contextmanager
def prepared(model: Model, recipe: Recipe) -> Iterator[None]:
    """A context in which the model has the recipe's dropout and input length, and its frozen parts do not learn.

    Afterwards all of this is as it was before.
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


def _prompts(model: Model, columns: list[str]) -> dict[str, dict[str, str]]:
    """The trainer's argument ``prompts``, by which each column is read with the model's own prompt.

    The first column is read as queries, the others as passages. Nothing is set for a model without prompts, a
    cross-encoder or late interaction.
    """
    known = {} if isinstance(model, CrossEncoder | MultiVectorEncoder) else dict(model.prompts or {})
    passage = known.get("document") or known.get("passage")
    chosen = {column: passage if i else known.get("query") for i, column in enumerate(columns) if column != "label"}
    return {"prompts": {column: prompt for column, prompt in chosen.items() if prompt}} if any(chosen.values()) else {}


def _last_whole_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written completely, or None; broken ones that are newer are removed.

    The trainer's state is the last file of a checkpoint to be written.
    """
    for folder in sorted(work.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True):
        if _read(folder / "trainer_state.json"):
            return str(folder)
        shutil.rmtree(folder)
    return None


class _Clock(TrainerCallback):
    """Runs ``call`` whenever a checkpoint was written."""

    def __init__(self, call: Callable[[], None]):
        self.call = call

    def on_save(self, args, state, control, **_):
        self.call()


def mixed(tuned: dict[str, torch.Tensor], base: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """share × tuned + (1 − share) × base for every weight. Source: Wortsman et al., WiSE-FT, CVPR 2022."""
    return {k: torch.lerp(base[k], v, share) if v.is_floating_point() else v for k, v in tuned.items()}


def _average(
    model: Model, base: dict[str, torch.Tensor], evaluator: BaseEvaluator, recipe: Recipe, best: float
) -> tuple[float, float]:
    """Average the tuned weights with the base model's by the share of ``recipe.weights`` that scores best on dev.

    Returns (share of the tuned weights, dev score) and leaves the averaged weights in ``model``. Where no average beats
    ``best``, the share is 1.
    """
    tuned = {k: v.detach().clone() for k, v in model.state_dict().items()}
    chosen = 1.0
    for share in (w for w in recipe.weights if w != 1.0):
        model.load_state_dict(mixed(tuned, base, share))
        value = evaluator(model)[evaluator.primary_metric]
        if value > best:
            chosen, best = share, value
    model.load_state_dict(mixed(tuned, base, chosen))
    return chosen, best


def _peak_mib() -> int:
    """The most memory that this process has held so far, in MiB: the GPU's where there is one, else RAM.

    It is 0 on a system that does not tell.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    if os.name != "posix":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if platform.system() == "Darwin" else 2**10)


def _keep(work: Path, folder: Path, model: Model, record: dict) -> None:
    """Write the model, its record and its card beside the checkpoints, then move them to ``folder`` in one step."""
    ready = work / "ready"
    with quiet_files():
        model.save_pretrained(str(ready), create_model_card=False)
    write_text(ready / "README.md", model_card(record, type(model).__name__, model[0].model.name_or_path))
    write_text(ready / "run.json", json.dumps(record, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    ready.replace(folder)
    shutil.rmtree(work, ignore_errors=True)
