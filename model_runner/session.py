"""A built graph goes in, one model call at a time comes out: the only place that touches onnxruntime.

It lists exactly the provider asked for, since onnxruntime otherwise falls back to the CPU without a word.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from sluicegate.model_runner.errors import ModelFailed, ProviderRefused
from sluicegate.model_runner.graph import CANDIDATES_MAX
from sluicegate.model_runner.memory import KeyValues
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
        self._steps: dict[int, _Call] = {}

    def new_memory(self, *, rows: int, tokens: int) -> KeyValues:
        """Return memory for `rows` sequences of at most `tokens` tokens each."""
        return KeyValues(self._config, rows=rows, tokens=tokens)

    def read(
        self, prompts: Sequence[Sequence[int]], memory: KeyValues, *, row: int, past: int, allow: NDArray[np.bool_]
    ) -> list[Candidates]:
        """Read prompts of at least 2 tokens into the rows from `row` on, where `past` tokens stand already.

        More than one only where `past` is 0. `allow` is bool [prompts, vocabulary]: only tokens that it names can be
        in the results, which are what may follow each prompt.

        Raises:
            ModelFailed: the runtime failed; what the rows held is lost.
            ValueError: one token, which computes in another order, or several prompts behind a past.
        """
        if any(len(prompt) < 2 for prompt in prompts) or (past and len(prompts) != 1):
            raise ValueError("at least 2 tokens are read at once, and behind a past only one prompt")
        longest = max(len(prompt) for prompt in prompts)
        call = _Call(self._config, memory, row=row, rows=len(prompts), new=longest)
        call.input_ids[:] = 0
        for place, prompt in enumerate(prompts):
            call.input_ids[place, : len(prompt)] = prompt
            call.last_index[place] = len(prompt) - 1
            call.seqlens_k[place] = past + len(prompt) - 1
        call.total[...] = past + longest
        call.allow[:] = allow
        return self._run(call)

    def step(
        self, tokens: Sequence[int], lengths: Sequence[int], memory: KeyValues, allow: NDArray[np.bool_]
    ) -> list[Candidates]:
        """Put one token behind each of the first rows, which hold `lengths` tokens, and return what may follow.

        `allow` is bool [rows, vocabulary], as in `read`. Raises: ModelFailed: as there.
        """
        count = len(tokens)
        call = self._steps.get(count)
        if call is None or call.memory is not memory:
            call = self._steps[count] = _Call(self._config, memory, row=0, rows=count, new=1)
        call.input_ids[:, 0] = tokens
        call.last_index[:] = 0
        call.seqlens_k[:] = lengths
        call.total[...] = max(lengths) + 1
        call.allow[:] = allow
        return self._run(call)

    def _run(self, call: _Call) -> list[Candidates]:
        try:
            if call.binding is None:
                call.binding = call.bind(self._session.io_binding())
            self._session.run_with_iobinding(call.binding)
        except _RUNTIME_ERRORS as error:
            raise ModelFailed(f"the runtime failed in a model call with `{type(error).__name__}`") from None
        found = []
        for ids, logits, allow in zip(call.top_ids, call.top_logits, call.allow, strict=True):
            named = ids >= 0
            best = Candidates(ids=ids[named], logits=logits[named])
            if not allow[best.ids].all():
                raise ModelFailed("the graph returned a token that its mask forbids")
            found.append(best)
        return found


class _Call:
    """The arrays of one shape of model call; the runtime reads and writes them where they lie, cache included."""

    def __init__(self, config: LlamaConfig, memory: KeyValues, *, row: int, rows: int, new: int) -> None:
        if row + rows > memory.rows:
            raise ValueError("the rows of a call must lie in the memory")
        self.memory = memory
        self.binding: onnxruntime.IOBinding | None = None
        self._layers, self._row = config.layers, row
        self.input_ids = np.empty((rows, new), dtype=np.int64)
        self.last_index = np.empty(rows, dtype=np.int64)
        self.seqlens_k = np.empty(rows, dtype=np.int32)
        self.total = np.empty((), dtype=np.int32)
        self.allow = np.zeros((rows, config.vocabulary), dtype=np.bool_)
        candidates = min(CANDIDATES_MAX, config.vocabulary)
        self.top_ids = np.empty((rows, candidates), dtype=np.int64)
        self.top_logits = np.empty((rows, candidates), dtype=np.float32)

    def bind(self, binding: onnxruntime.IOBinding) -> onnxruntime.IOBinding:
        for name, array in (
            ("input_ids", self.input_ids),
            ("last_index", self.last_index),
            ("seqlens_k", self.seqlens_k),
            ("total_sequence_length", self.total),
            ("allow", self.allow),
        ):
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        ids, logits = self.top_ids, self.top_logits
        binding.bind_output("top_ids", "cpu", 0, np.int64, ids.shape, ids.ctypes.data)
        binding.bind_output("top_logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        shape = (len(self.input_ids), *self.memory.row_shape)
        names = [f"{part}_{layer}" for layer in range(self._layers) for part in ("key", "value")]
        # Past and present at one address: the operator then writes in place and copies nothing.
        for name, address in zip(names, self.memory.addresses(self._row), strict=True):
            binding.bind_input(f"past_{name}", "cpu", 0, np.float32, shape, address)
            binding.bind_output(f"present_{name}", "cpu", 0, np.float32, shape, address)
        return binding


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
