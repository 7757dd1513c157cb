"""Rows of keys and values at fixed addresses: the only place that holds them.

What the graph reads and what it writes is one buffer, so a model call copies nothing. A row takes no memory before it
is written, and gives it back, wiped, when its request ends.
"""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from sluicegate.model_runner.weights import LlamaConfig

_ROW_TOKENS_STEP = 64  # a row of fp32 heads of 16, 32, .. elements is whole pages then


class KeyValues:
    """Keys and values of `rows` sequences of at most `tokens` tokens, fp32 [2 x layers, rows, heads, tokens, head]."""

    def __init__(self, config: LlamaConfig, *, rows: int, tokens: int) -> None:
        parts = 2 * config.layers
        self.rows, self.tokens = rows, -(-tokens // _ROW_TOKENS_STEP) * _ROW_TOKENS_STEP
        self.row_shape = (config.key_value_heads, self.tokens, config.head_size)
        self._row_bytes = int(np.prod(self.row_shape)) * 4
        self._bytes = mmap.mmap(-1, parts * rows * self._row_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # A huge page would make a short row as dear as a long one.
        self._bytes.madvise(mmap.MADV_NOHUGEPAGE)
        self._values: NDArray[np.float32] = np.frombuffer(self._bytes, dtype=np.float32)
        self._values = self._values.reshape(parts, rows, *self.row_shape)

    def addresses(self, row: int) -> list[int]:
        """Return where `row` begins, for each layer its keys and then its values; the rows behind it follow."""
        first = int(self._values.ctypes.data)
        return [first + (part * self.rows + row) * self._row_bytes for part in range(len(self._values))]

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` of row `source` over row `target`."""
        self._values[:, target, :, :tokens] = self._values[:, source, :, :tokens]

    def wipe(self, row: int) -> None:
        """Give the memory of `row` back; it reads as zeros from here on."""
        for part in range(len(self._values)):
            start = (part * self.rows + row) * self._row_bytes
            self._bytes.madvise(mmap.MADV_DONTNEED, start, self._row_bytes)


def token_bytes(config: LlamaConfig) -> int:
    """Return how many bytes one token of one row holds."""
    return 2 * config.layers * config.key_value_heads * config.head_size * 4
