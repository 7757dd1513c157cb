"""The source of weights: what is read is what was written, and what is not known is refused by its name."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from fixtures_model import HIDDEN, LAYERS, Settings, Tensors, tiny_tensors, write_tiny_gguf

from sluicegate.model_runner.errors import ModelRefused
from sluicegate.model_runner.weights import open_source, read_weights, source_digest


def test_tensors_come_back_with_q_and_k_in_the_order_of_the_checkpoint(tiny_gguf: Path) -> None:
    weights = read_weights(tiny_gguf)
    wanted = tiny_tensors()
    assert weights.tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(weights.tensors[name], tensor, err_msg=name)
    assert weights.config.layers == LAYERS
    assert weights.config.hidden == HIDDEN


def test_a_quantized_tensor_is_dequantized(tmp_path: Path) -> None:
    name = "blk.0.ffn_gate.weight"
    path = tmp_path / "q8.gguf"
    writer_add = gguf.GGUFWriter.add_tensor

    def add(self: gguf.GGUFWriter, key: str, tensor: np.ndarray, **rest: object) -> None:
        if key == name:
            packed = gguf.quants.quantize(tensor, gguf.GGMLQuantizationType.Q8_0)
            writer_add(self, key, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer_add(self, key, tensor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf.GGUFWriter, "add_tensor", add)
        write_tiny_gguf(path)
    read, wanted = read_weights(path).tensors[name], tiny_tensors()[name]
    assert read.dtype == np.float32
    assert 0 < np.abs(read - wanted).max() < np.abs(wanted).max() / 100


def _drop(name: str) -> Callable[[Tensors, Settings], None]:
    def change(tensors: Tensors, settings: Settings) -> None:
        (tensors if name in tensors else settings).pop(name)  # type: ignore[attr-defined]

    return change


def _set(name: str, value: object) -> Callable[[Tensors, Settings], None]:
    def change(tensors: Tensors, settings: Settings) -> None:
        if isinstance(value, np.ndarray):
            tensors[name] = value
        else:
            settings[name] = value

    return change


def _poison(tensors: Tensors, settings: Settings) -> None:
    tensors["blk.1.ffn_up.weight"][3, 3] = np.nan


REFUSED = {
    "missing tensor": (_drop("blk.1.ffn_norm.weight"), r"`blk\.1\.ffn_norm\.weight` is missing"),
    "missing embedding": (_drop("token_embd.weight"), r"`token_embd\.weight` is missing"),
    "unknown tensor": (_set("rope_freqs.weight", np.ones(4, np.float32)), r"`rope_freqs\.weight` is not known"),
    "bias": (_set("blk.0.attn_q.bias", np.ones(64, np.float32)), r"`blk\.0\.attn_q\.bias` is not known"),
    "a layer too many": (_set("blk.2.attn_norm.weight", np.ones(64, np.float32)), r"`blk\.2\.attn_norm\.weight`"),
    "wrong shape": (_set("blk.0.ffn_up.weight", np.ones((60, 64), np.float32)), r"`blk\.0\.ffn_up\.weight` has shape"),
    "transposed": (_set("blk.0.ffn_up.weight", np.ones((64, 96), np.float32)), r"`blk\.0\.ffn_up\.weight` has shape"),
    "not finite": (_poison, r"`blk\.1\.ffn_up\.weight` holds values that are not finite"),
    "missing setting": (_drop("llama.embedding_length"), r"`llama\.embedding_length` is missing"),
    "unknown setting": (_set("llama.attention.sliding_window", 64), r"`llama\.attention\.sliding_window` is not known"),
    "experts": (_set("llama.expert_count", 8), r"`llama\.expert_count` is not known"),
    "foreign setting": (_set("split.count", 2), r"`split\.count` is not known"),
    "rope scaling": (_set("llama.rope.scaling.type", "yarn"), r"rope scaling `yarn` is not supported"),
    "rope scaling factor": (_set("llama.rope.scaling.factor", 8.0), r"`llama\.rope\.scaling\.factor` is not known"),
    "partial rotation": (_set("llama.rope.dimension_count", 4), r"`llama\.rope\.dimension_count` is `4`"),
    "value size": (_set("llama.attention.value_length", 32), r"`llama\.attention\.value_length` is `32`"),
    "vocabulary": (_set("llama.vocab_size", 9), r"`llama\.vocab_size` is `9`"),
    "one size a layer": (_set("llama.feed_forward_length", [64, 32]), r"`llama\.feed_forward_length` is not one"),
    "zero": (_set("llama.block_count", 0), r"`llama\.block_count` is not one positive number"),
    "uneven heads": (_set("llama.attention.head_count_kv", 3), r"is not a multiple of"),
    "small heads": (_set("llama.attention.head_count", 8), r"`8` heads in `64` are not supported"),
    "odd head size": (_set("llama.attention.head_count", 5), r"`5` heads in `64` are not supported"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    path = write_tiny_gguf(tmp_path / "changed.gguf", change=change)
    with pytest.raises(ModelRefused, match=message):
        read_weights(path)


@pytest.mark.parametrize("architecture", ["qwen2", "gemma3", "llama4", "mamba"])
def test_another_architecture_is_refused_by_name(architecture: str, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "other.gguf", architecture=architecture)
    with pytest.raises(ModelRefused, match=f"architecture `{architecture}` is not supported"):
        read_weights(path)


@pytest.mark.parametrize("kept", [0, 3, 20, 4000, 30000])
def test_a_truncated_file_is_refused(kept: int, tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_gguf.read_bytes()[:kept])
    with pytest.raises(ModelRefused, match=r"`cut\.gguf` is not a readable gguf file"):
        read_weights(path)


def _pack(path: Path, *members: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, member in enumerate(members):
            archive.write(member, f"some_model/{number}-{member.name}")
        archive.writestr("some_model/__init__.py", "")
    return path


def test_a_wheel_and_the_file_in_it_are_the_same_source(tiny_gguf: Path, tmp_path: Path) -> None:
    wheel = _pack(tmp_path / "model.whl", tiny_gguf)
    assert source_digest(wheel) == source_digest(tiny_gguf)
    with open_source(wheel) as path:
        assert path.read_bytes() == tiny_gguf.read_bytes()
    assert not path.exists()
    with open_source(tiny_gguf) as path:
        assert path == tiny_gguf


def test_a_source_that_cannot_be_used_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    both = _pack(tmp_path / "two.whl", tiny_gguf, tiny_gguf)
    none = _pack(tmp_path / "none.whl")
    cut = tmp_path / "cut.whl"
    cut.write_bytes(_pack(tmp_path / "whole.whl", tiny_gguf).read_bytes()[:5000])
    flipped = []
    for place in range(1000, 9000, 1000):
        data = bytearray((tmp_path / "whole.whl").read_bytes())
        data[place] ^= 0xFF
        flipped.append(tmp_path / f"flipped-{place}.whl")
        flipped[-1].write_bytes(data)
    other = tmp_path / "model.bin"
    other.write_bytes(b"GGUF")
    for path, message in (
        (both, "holds 2 gguf files"),
        (none, "holds 0 gguf files"),
        (cut, "is damaged, fetch it again"),
        *((path, "is damaged, fetch it again") for path in flipped),
        (other, "is neither a"),
        (tmp_path / "missing.gguf", "no model at"),
        (tmp_path / "missing.whl", "no model at"),
    ):
        with pytest.raises(ModelRefused, match=message):
            source_digest(path)
        with pytest.raises(ModelRefused, match=message), open_source(path):
            pytest.fail("an unusable source was opened")
