"""A built graph goes in, one model call at a time comes out: the only place that touches onnxruntime.

It lists exactly the provider asked for, since onnxruntime otherwise falls back to the CPU without a word.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from sluicegate.model_runner.errors import ModelFailed, ProviderRefused
from sluicegate.model_runner.graph import CANDIDATES_MAX
from sluicegate.model_runner.weights import LlamaConfig

Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# onnxruntime has no exception tree; these are what a missing library, an unplaceable node or a failed call raise.
_RUNTIME_ERRORS = (
    runtime_errors.Fail,
    runtime_errors.RuntimeException,
    runtime_errors.NotImplemented,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidArgument,
    runtime_errors.EPFail,
    ValueError,
)


@dataclass(slots=True)
class Cache:
    """Keys and values of one sequence so far, as the runtime holds them; `tokens` counts its length."""

    values: list[onnxruntime.OrtValue]
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The best allowed tokens after one call, best first: `ids` int64 and `logits` fp32; none where all are masked."""

    ids: NDArray[np.int64]
    logits: NDArray[np.float32]


class GraphSession:
    """One loaded graph on one provider; `provider` names what the runtime says it runs on."""

    def __init__(self, graph_path: Path, config: LlamaConfig, *, provider: Provider, threads: int) -> None:
        """Load the graph; `threads` is how many cores one call may use.

        Raises:
            ProviderRefused: two runtimes are installed over each other, or `provider` cannot run the whole graph.
        """
        refuse_two_runtimes()
        wanted = PROVIDERS.get(provider)
        if wanted is None:
            raise ProviderRefused(f"provider `{provider}` is not known, use `{'` or `'.join(PROVIDERS)}`")
        if wanted not in onnxruntime.get_available_providers():
            raise ProviderRefused(f"provider `{provider}` was asked for and this onnxruntime has none")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if provider != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self._session = onnxruntime.InferenceSession(graph_path, options, providers=[wanted])
        except _RUNTIME_ERRORS as error:
            raise ProviderRefused(f"provider `{provider}` cannot run this graph, see its installation") from error
        # A failed CUDA set-up leaves a session on the CPU alone, with a warning for a log that nobody reads.
        listed = self._session.get_providers()
        if listed[:1] != [wanted]:
            raise ProviderRefused(f"provider `{provider}` was asked for and the session runs on `{','.join(listed)}`")
        self._session.disable_fallback()
        self.provider = ",".join(listed)
        self._config = config
        self._cache_names = [f"{part}_{layer}" for layer in range(config.layers) for part in ("key", "value")]
        self._output_names = ["top_ids", "top_logits", *(f"present_{name}" for name in self._cache_names)]

    def new_cache(self) -> Cache:
        """Return the cache of a sequence that has no token yet."""
        shape = (1, self._config.key_value_heads, 0, self._config.head_size)
        empty = [_value(np.zeros(shape, dtype=np.float32)) for _ in self._cache_names]
        return Cache(values=empty, tokens=0)

    def step(self, tokens: list[int], cache: Cache, allow: NDArray[np.bool_]) -> Candidates:
        """Run the model over `tokens`, which follow what `cache` holds, and put them into the cache.

        `allow` is bool [vocabulary]: only tokens that it names can be in the result.

        Raises:
            ModelFailed: the runtime failed; the cache is as it was.
        """
        total = cache.tokens + len(tokens)
        feeds = {
            "input_ids": _value(np.array([tokens], dtype=np.int64)),
            "last_index": _value(np.array([len(tokens) - 1], dtype=np.int64)),
            "seqlens_k": _value(np.array([total - 1], dtype=np.int32)),
            "total_sequence_length": _value(np.array(total, dtype=np.int32)),
            "allow": _value(allow[None, :]),
        }
        feeds |= {f"past_{name}": past for name, past in zip(self._cache_names, cache.values, strict=True)}
        try:
            ids, logits, *present = self._session.run_with_ort_values(self._output_names, feeds)
        except _RUNTIME_ERRORS as error:
            raise ModelFailed(f"the runtime failed in a model call with `{type(error).__name__}`") from None
        cache.values, cache.tokens = present, total
        top_ids, top_logits = ids.numpy()[0], logits.numpy()[0]
        named = top_ids >= 0
        if len(top_ids) > CANDIDATES_MAX or not allow[top_ids[named]].all():
            raise ModelFailed("the graph returned a token that its mask forbids")
        return Candidates(ids=top_ids[named], logits=top_logits[named])


def refuse_two_runtimes() -> None:
    """Stop where `onnxruntime` and `onnxruntime-gpu` are both installed: they share a folder and overwrite each other.

    Raises:
        ProviderRefused: both are there.
    """
    installed = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            installed.append(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(installed) > 1:
        raise ProviderRefused(
            "`onnxruntime` and `onnxruntime-gpu` are both installed, uninstall both and install the second again"
        )


def _value(array: NDArray[np.generic]) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
