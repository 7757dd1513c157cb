"""The built graph computes what an independent forward pass computes, and lets no token out that is not allowed."""

import hashlib
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fixtures_model import CONTEXT, EPSILON, HEAD_SIZE, HEADS, KEY_VALUE_HEADS, LAYERS, ROPE_BASE, tiny_tensors
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from sluicegate.model_runner.build import BUILDER_VERSION, GRAPH_FILE

TENSORS = tiny_tensors()
VOCABULARY = TENSORS["token_embd.weight"].shape[0]
PROMPT = [5, 77, 200, 31, 9, 120, 64]


def _norm(x: NDArray[np.float64], scale: NDArray[np.float32]) -> NDArray[np.float64]:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * scale


def _rotate(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotate [tokens, heads, size] as transformers does: `x * cos + rotate_half(x) * sin`."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[0])[:, None] / ROPE_BASE ** (np.arange(half) / half)[None, :]
    cos, sin = (np.concatenate([f(angles)] * 2, -1)[:, None, :] for f in (np.cos, np.sin))
    return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin


def reference_logits(tokens: list[int]) -> NDArray[np.float64]:
    """Return the logits [tokens, vocabulary] of the tiny model, in float64, head by head and without a cache."""
    x = TENSORS["token_embd.weight"][tokens].astype(np.float64)
    count, group = len(tokens), HEADS // KEY_VALUE_HEADS
    later = np.triu(np.ones((count, count), dtype=bool), 1)
    for layer in range(LAYERS):
        w = {name.split(".")[2]: t for name, t in TENSORS.items() if name.startswith(f"blk.{layer}.")}
        h = _norm(x, w["attn_norm"])
        q = _rotate((h @ w["attn_q"].T).reshape(count, HEADS, HEAD_SIZE))
        k = _rotate((h @ w["attn_k"].T).reshape(count, KEY_VALUE_HEADS, HEAD_SIZE))
        v = (h @ w["attn_v"].T).reshape(count, KEY_VALUE_HEADS, HEAD_SIZE)
        mixed = np.empty((count, HEADS, HEAD_SIZE))
        for head in range(HEADS):
            scores = q[:, head] @ k[:, head // group].T / math.sqrt(HEAD_SIZE)
            scores[later] = -np.inf
            chances = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, head] = chances / chances.sum(-1, keepdims=True) @ v[:, head // group]
        x = x + mixed.reshape(count, -1) @ w["attn_output"].T
        h = _norm(x, w["ffn_norm"])
        gate = h @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
    return _norm(x, TENSORS["output_norm.weight"]) @ TENSORS["token_embd.weight"].T


class Runner:
    """The graph with nothing of ours between the test and the runtime."""

    def __init__(self, model_dir: Path) -> None:
        self.session = onnxruntime.InferenceSession(model_dir / GRAPH_FILE, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def feeds(self, rows: list[list[int]], past: dict[str, NDArray[np.float32]] | None = None) -> dict[str, np.ndarray]:
        longest, done = max(map(len, rows)), 0
        feeds: dict[str, np.ndarray] = {}
        for layer in range(LAYERS):
            for part in ("key", "value"):
                empty = np.zeros((len(rows), KEY_VALUE_HEADS, 0, HEAD_SIZE), np.float32)
                held = empty if past is None else past[f"present_{part}_{layer}"]
                feeds[f"past_{part}_{layer}"], done = held, held.shape[2]
        lengths = np.array([len(row) for row in rows])
        return feeds | {
            "input_ids": np.array([row + [0] * (longest - len(row)) for row in rows], np.int64),
            "last_index": (lengths - 1).astype(np.int64),
            "seqlens_k": (done + lengths - 1).astype(np.int32),
            "total_sequence_length": np.array(done + longest, np.int32),
            "allow": np.ones((len(rows), VOCABULARY), np.bool_),
        }

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.names, self.session.run(self.names, feeds), strict=True))


@pytest.fixture(scope="module")
def runner(tiny_dir: Path) -> Runner:
    return Runner(tiny_dir)


def test_a_prompt_gives_the_logits_of_an_independent_forward_pass(runner: Runner) -> None:
    out = runner.run(runner.feeds([PROMPT]))
    wanted = reference_logits(PROMPT)[-1]
    np.testing.assert_allclose(out["allowed_logits"][0], wanted, atol=2e-4)
    assert out["next_id"][0] == wanted.argmax()
    np.testing.assert_array_equal(out["top_ids"][0], np.argsort(-wanted, kind="stable")[:64])
    # The tolerance would not hide a wrong model: leaving out one token moves the logits far more.
    assert np.abs(reference_logits(PROMPT[1:])[-1] - wanted).max() > 0.1


def test_one_token_after_the_other_gives_the_same_as_the_whole(runner: Runner) -> None:
    past: dict[str, NDArray[np.float32]] | None = None
    wanted = reference_logits(PROMPT)
    for place, chunk in ((2, PROMPT[:3]), (3, PROMPT[3:4]), (4, PROMPT[4:5]), (6, PROMPT[5:])):
        past = runner.run(runner.feeds([chunk], past))
        np.testing.assert_allclose(past["allowed_logits"][0], wanted[place], atol=2e-4)
    assert past is not None
    assert past["present_key_0"].shape == (1, KEY_VALUE_HEADS, len(PROMPT), HEAD_SIZE)


def test_a_row_is_the_same_alone_and_beside_a_longer_one(runner: Runner) -> None:
    alone = runner.run(runner.feeds([PROMPT[:4]]))
    beside = runner.run(runner.feeds([PROMPT, PROMPT[:4]]))
    np.testing.assert_array_equal(beside["allowed_logits"][1], alone["allowed_logits"][0])


def test_the_whole_context_can_be_used(runner: Runner) -> None:
    tokens = [int(token) for token in np.random.default_rng(1).integers(4, VOCABULARY, CONTEXT)]
    out = runner.run(runner.feeds([tokens]))
    np.testing.assert_allclose(out["allowed_logits"][0], reference_logits(tokens)[-1], atol=5e-4)


@given(allowed=st.sets(st.integers(0, VOCABULARY - 1), max_size=90), start=st.integers(4, VOCABULARY - 1))
def test_no_token_leaves_that_is_not_allowed(runner: Runner, allowed: set[int], start: int) -> None:
    feeds = runner.feeds([[start, *PROMPT]])
    free = runner.run(feeds)["allowed_logits"][0]
    feeds["allow"][:] = False
    feeds["allow"][0, sorted(allowed)] = True
    out = runner.run(feeds)
    named = [int(token) for token in out["top_ids"][0] if token >= 0]
    assert named == sorted(allowed, key=lambda token: (-free[token], token))[:64]
    assert out["next_id"][0] == (named[0] if allowed else -1)
    assert set(np.flatnonzero(np.isfinite(out["allowed_logits"][0]))) == allowed
    assert np.isneginf(out["top_logits"][0][len(named) :]).all()


def test_an_empty_mask_names_no_token_and_an_open_one_does(runner: Runner) -> None:
    feeds = runner.feeds([PROMPT])
    assert runner.run(feeds)["next_id"][0] >= 0
    feeds["allow"][:] = False
    out = runner.run(feeds)
    assert out["next_id"][0] == -1
    assert (out["top_ids"] == -1).all()


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.ones((1, VOCABULARY), np.bool_), id="one row for two"),
        pytest.param(np.ones((3, VOCABULARY), np.bool_), id="three rows for two"),
        pytest.param(np.ones((2, VOCABULARY - 1), np.bool_), id="too narrow"),
        pytest.param(np.ones((2, 1), np.bool_), id="one column"),
        pytest.param(np.ones((VOCABULARY,), np.bool_), id="no batch"),
        pytest.param(np.ones((), np.bool_), id="scalar"),
        pytest.param(np.ones((2, VOCABULARY), np.float32), id="numbers"),
    ],
)
def test_a_misshapen_mask_is_refused(runner: Runner, mask: np.ndarray) -> None:
    feeds = runner.feeds([PROMPT, PROMPT])
    runner.run(feeds)
    with pytest.raises((Fail, InvalidArgument)):
        runner.run(feeds | {"allow": mask})


def test_a_missing_mask_is_refused(runner: Runner) -> None:
    feeds = runner.feeds([PROMPT])
    runner.run(feeds)
    del feeds["allow"]
    with pytest.raises(ValueError, match="allow"):
        runner.run(feeds)


def test_a_model_that_computes_nonsense_names_no_token(runner: Runner) -> None:
    out = runner.run(runner.feeds([PROMPT]))
    out["present_value_0"][:] = np.nan
    after = runner.run(runner.feeds([[5]], out))
    assert after["next_id"][0] == -1
    assert (after["top_ids"] == -1).all()


def test_a_changed_graph_comes_with_a_new_builder_version(tiny_dir: Path) -> None:
    graph = onnx.load(tiny_dir / GRAPH_FILE, load_external_data=False).graph
    text = "\n".join(
        [
            *(onnx.printer.to_text(node) for node in graph.node),
            *(
                f"{end.name} {end.type.SerializeToString(deterministic=True).hex()}"
                for end in (*graph.input, *graph.output)
            ),
            *(f"{tensor.name} {list(tensor.dims)}" for tensor in graph.initializer),
        ]
    )
    pinned = {1: "6e7bc8db521636cc"}
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert pinned.get(BUILDER_VERSION) == digest, "the graph changed: raise `BUILDER_VERSION` and pin its new digest"
