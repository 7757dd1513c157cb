"""The best allowed tokens and the grant's parameters go in, one token comes out: the only place that draws.

Pure: the draw is a hash of the seed and the position, so it depends on nothing else that runs at the time.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def draw_token(
    ids: NDArray[np.int64],
    logits: NDArray[np.float32],
    *,
    seed: int,
    position: int,
    temperature: float,
    top_p: float,
    top_k: int,
) -> int:
    """Return one of `ids`, [candidates], best first with their `logits`, at least one.

    `position` counts the tokens drawn before. Temperature 0 takes the best. `top_k` 0 keeps every candidate; `top_p`
    keeps the fewest that together reach it (nucleus sampling, arXiv:1904.09751).
    """
    if temperature == 0.0:
        return int(ids[0])
    kept = min(top_k, len(ids)) if top_k else len(ids)
    scaled = (logits[:kept].astype(np.float64) - float(logits[0])) / temperature
    chances = np.exp(scaled)
    chances /= chances.sum()
    if top_p < 1.0:
        nucleus = int(np.searchsorted(np.cumsum(chances), top_p, side="left")) + 1
        chances = chances[:nucleus] / chances[:nucleus].sum()
    edges = np.cumsum(chances)
    place = int(np.searchsorted(edges, uniform(seed, position) * edges[-1], side="right"))
    return int(ids[min(place, len(edges) - 1)])


def uniform(seed: int, position: int) -> float:
    """Return a number in [0, 1) that looks random and is fixed by `seed` and `position` alone."""
    digest = hashlib.sha256(f"sluicegate.draw.v1:{seed}:{position}".encode()).digest()
    # 53 bits, which is what a float holds exactly: more would round up to 1.
    return (int.from_bytes(digest[:8]) >> 11) / 2.0**53
