"""A config and fp32 tensors go in, a servable ONNX graph comes out: the only place that knows the arithmetic.

Opset 21 with onnxruntime's `com.microsoft` operators, written with onnx and numpy alone. The graph returns no token
that its `allow` input does not name, so the mask cannot be forgotten by whoever runs it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sluicegate.model_runner.weights import LlamaConfig, Weights

OPSET, MICROSOFT_OPSET, IR_VERSION = 21, 1, 10
CANDIDATES_MAX = 64
"""How many of the best allowed tokens the graph returns; drawing needs no more."""
_ALIGNMENT_BYTES = 4096  # onnxruntime maps external data by page
_DATA_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "int32": TensorProto.INT32}


@dataclass(slots=True)
class _GraphWriter:
    """Nodes and initializers while a graph is written; tensors go straight to the external data file."""

    data_path: Path
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    offset: int = 0

    def node(self, kind: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def small(self, name: str, values: NDArray[Any]) -> str:
        """Store a constant that the runtime must see while it loads (shapes, axes) inside the graph file."""
        self.initializers.append(onnx.numpy_helper.from_array(values, name))
        return name

    def large(self, name: str, values: NDArray[Any]) -> str:
        """Append a tensor to the external data file."""
        payload = np.ascontiguousarray(values)
        self.offset += -self.offset % _ALIGNMENT_BYTES
        with self.data_path.open("r+b") as target:
            target.seek(self.offset)
            target.write(payload.data)
        tensor = TensorProto(name=name, data_type=_DATA_TYPES[payload.dtype.name], dims=payload.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", self.data_path.name),
            ("offset", str(self.offset)),
            ("length", str(payload.nbytes)),
        ):
            tensor.external_data.add(key=key, value=value)
        self.initializers.append(tensor)
        self.offset += payload.nbytes
        return name


def write_graph(weights: Weights, graph_path: Path) -> None:
    """Write the fp32 graph of `weights` to `graph_path` and its tensors beside it, as `<name>.data`.

    Inputs: `input_ids` int64 [batch, new], rows right-padded; `last_index` int64 [batch], where each row's last token
    stands in `input_ids`; `seqlens_k` int32 [batch], a row's length with its past, minus 1; `total_sequence_length`
    int32 scalar, the longest of them; `allow` bool [batch, vocabulary]; `past_key_N`, `past_value_N` fp32
    [batch, key_value_heads, past, head_size].

    Outputs: `next_id` int64 [batch], the best allowed token or -1 where none is; `top_ids` int64 and `top_logits`
    fp32 [batch, 64], best first, -1 and -inf where fewer are allowed; `allowed_logits` fp32 [batch, vocabulary], -inf
    for what is not allowed; `present_key_N`, `present_value_N` as the past, longer.
    """
    config, tensors = weights.config, weights.tensors
    data_path = graph_path.with_name(graph_path.name + ".data")
    data_path.write_bytes(b"")
    writer = _GraphWriter(data_path)
    embedding = writer.large("token_embd", tensors["token_embd.weight"])
    cosines, sines = rotation_tables(config)
    writer.large("cos_cache", cosines)
    writer.large("sin_cache", sines)

    residual = writer.node("Gather", [embedding, "input_ids"], ["embedded"])
    added = ""
    for layer in range(config.layers):
        residual, added = _write_layer(writer, config, tensors, layer, residual, added)
    residual = writer.node("Add", [residual, added], ["last_residual"])

    # Only the last position is ever asked for, so the norm and the head see one row a sequence.
    axis = writer.small("axis_last", np.array([1], dtype=np.int64))
    index = writer.node("Unsqueeze", ["last_index", axis], ["last_index_column"])
    hidden = writer.node("GatherND", [residual, index], ["last_hidden"], batch_dims=1)
    scale = writer.large("output_norm", tensors["output_norm.weight"])
    hidden = writer.node(
        "SimplifiedLayerNormalization", [hidden, scale], ["last_normed"], axis=-1, epsilon=config.norm_epsilon
    )
    head = writer.large("output", tensors["output.weight"]) if "output.weight" in tensors else embedding
    writer.node("Gemm", [hidden, head], ["logits"], transB=1)
    _write_allowed_head(writer, config)

    graph = helper.make_graph(
        writer.nodes, "sluicegate_llama", *_describe_ends(config), initializer=writer.initializers
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", MICROSOFT_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="sluicegate")
    graph_path.write_bytes(model.SerializeToString(deterministic=True))


def rotation_tables(config: LlamaConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return cosines and sines [context, head_size / 2] of rotary embedding (RoFormer, arXiv:2104.09864)."""
    exponents = np.arange(0, config.head_size, 2, dtype=np.float64) / config.head_size
    angles = np.outer(np.arange(config.context_tokens, dtype=np.float64), config.rope_base**-exponents)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _write_layer(
    writer: _GraphWriter,
    config: LlamaConfig,
    tensors: dict[str, NDArray[np.float32]],
    layer: int,
    residual: str,
    added: str,
) -> tuple[str, str]:
    """Write one layer; take and return the residual stream as (stream, what is still to be added to it)."""
    at = f"layer_{layer}"

    def weight(part: str) -> NDArray[np.float32]:
        return tensors[f"blk.{layer}.{part}.weight"]

    def norm(part: str, stream: str, delta: str) -> tuple[str, str]:
        scale, name = writer.large(f"{at}_{part}", weight(part)), f"{at}_{part}_out"
        if not delta:
            kind = "SimplifiedLayerNormalization"
            return writer.node(kind, [stream, scale], [name], axis=-1, epsilon=config.norm_epsilon), stream
        total = f"{name}_residual"  # output 3 of the fused operator is the sum that it normalized
        writer.node(
            "SkipSimplifiedLayerNormalization",
            [delta, stream, scale],
            [name, "", "", total],
            domain="com.microsoft",
            epsilon=config.norm_epsilon,
        )
        return name, total

    def multiply(part: str, source: str, matrix: NDArray[np.float32]) -> str:
        return writer.node("MatMul", [source, writer.large(f"{at}_{part}", matrix.T)], [f"{at}_{part}_out"])

    normed, residual = norm("attn_norm", residual, added)
    packed = np.concatenate([weight("attn_q"), weight("attn_k"), weight("attn_v")])
    writer.node(
        "GroupQueryAttention",
        [
            multiply("attn_qkv", normed, packed),
            "",
            "",
            f"past_key_{layer}",
            f"past_value_{layer}",
            "seqlens_k",
            "total_sequence_length",
            "cos_cache",
            "sin_cache",
        ],
        [f"{at}_attention", f"present_key_{layer}", f"present_value_{layer}"],
        domain="com.microsoft",
        num_heads=config.heads,
        kv_num_heads=config.key_value_heads,
        do_rotary=1,
        rotary_interleaved=0,
        local_window_size=-1,
    )
    added = multiply("attn_output", f"{at}_attention", weight("attn_output"))
    normed, residual = norm("ffn_norm", residual, added)
    gate = multiply("ffn_gate", normed, weight("ffn_gate"))
    sigmoid = writer.node("Sigmoid", [gate], [f"{at}_ffn_sigmoid"])
    activated = writer.node("Mul", [gate, sigmoid], [f"{at}_ffn_activated"])
    up = multiply("ffn_up", normed, weight("ffn_up"))
    inner = writer.node("Mul", [activated, up], [f"{at}_ffn_inner"])
    return residual, multiply("ffn_down", inner, weight("ffn_down"))


def _write_allowed_head(writer: _GraphWriter, config: LlamaConfig) -> None:
    """Write the only way out: everything that leaves has passed `allow`."""
    # Without the reshape a mask of one row would silently be stretched over a whole batch.
    shape = writer.node("Shape", ["logits"], ["logits_shape"])
    allow = writer.node("Reshape", ["allow", shape], ["allow_rows"])
    nothing = writer.small("minus_infinity", np.array(-np.inf, dtype=np.float32))
    allowed = writer.node("Where", [allow, "logits", nothing], ["allowed_logits"])
    count = writer.small("candidates", np.array([min(CANDIDATES_MAX, config.vocabulary)], dtype=np.int64))
    writer.node("TopK", [allowed, count], ["top_logits", "top_any"], axis=-1, largest=1, sorted=1)
    # A comparison is false for -inf and for NaN, so neither a forbidden token nor a broken model names one.
    lowest = writer.small("lowest", np.array(np.finfo(np.float32).min, dtype=np.float32))
    real = writer.node("GreaterOrEqual", ["top_logits", lowest], ["top_real"])
    none = writer.small("no_token", np.array(-1, dtype=np.int64))
    top = writer.node("Where", [real, "top_any", none], ["top_ids"])
    first = writer.small("first", np.array(0, dtype=np.int64))
    writer.node("Gather", [top, first], ["next_id"], axis=1)


def _describe_ends(config: LlamaConfig) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Return the graph's inputs and outputs with their types and shapes."""
    candidates = min(CANDIDATES_MAX, config.vocabulary)
    cache: list[str | int | None] = ["batch", config.key_value_heads, "past", config.head_size]
    longer: list[str | int | None] = ["batch", config.key_value_heads, "present", config.head_size]
    value = helper.make_tensor_value_info
    inputs = [
        value("input_ids", TensorProto.INT64, ["batch", "new"]),
        value("last_index", TensorProto.INT64, ["batch"]),
        value("seqlens_k", TensorProto.INT32, ["batch"]),
        value("total_sequence_length", TensorProto.INT32, []),
        value("allow", TensorProto.BOOL, ["batch", config.vocabulary]),
    ]
    outputs = [
        value("next_id", TensorProto.INT64, ["batch"]),
        value("top_ids", TensorProto.INT64, ["batch", candidates]),
        value("top_logits", TensorProto.FLOAT, ["batch", candidates]),
        value("allowed_logits", TensorProto.FLOAT, ["batch", config.vocabulary]),
    ]
    for layer in range(config.layers):
        for part in ("key", "value"):
            inputs.append(value(f"past_{part}_{layer}", TensorProto.FLOAT, cache))
            outputs.append(value(f"present_{part}_{layer}", TensorProto.FLOAT, longer))
    return inputs, outputs
