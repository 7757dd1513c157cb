"""Our graph against optimum's export of the same weights: the same greedy tokens, and logits that are close."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fixtures_model import REPOSITORY

from sluicegate.model_runner.build import GRAPH_FILE, read_config, read_manifest
from sluicegate.model_runner.export import LOGITS_FILE, TOKENS_FILE
from sluicegate.model_runner.ports import Message
from sluicegate.model_runner.session import GraphSession
from sluicegate.model_runner.tokenizer import Tokenizer

NEW_TOKENS_MAX = 24
LOGITS_APART_MAX = 5e-4
PROMPTS: list[tuple[str | None, str]] = [
    (None, "What is the capital of France?"),
    (None, "List three things to check before riding a bicycle."),
    ("You are a helpful support assistant of Heron Cycles", "My rear brake squeals. What can I do?"),
    (None, "Priya Shah earns 41,500 pounds a year and started in May 2021.\n\nHow much does Priya Shah earn?"),
    (None, "Tell me a story about a heron and a bicycle."),
    ("Answer in one short sentence.", "Why is the sky blue?"),
    (None, "def area(width, height):\n    return"),
    (None, "Schreibe einen Satz über Fahrräder. 🚲 Grüße aus Köln!"),
    (None, " ".join(f"Line {number} of the ledger says {number * 37}." for number in range(40)) + "\n\nSummarize."),
    (None, ""),
]


@pytest.fixture(scope="module")
def prompts(smollm2_dir: Path) -> list[list[int]]:
    tokenizer = Tokenizer.open(smollm2_dir)
    return [
        tokenizer.prompt_tokens(
            [*([Message(role="system", content=system)] if system else []), Message(role="user", content=user)]
        )
        for system, user in PROMPTS
    ]


@pytest.fixture(scope="module")
def reference(
    prompts: list[list[int]], smollm2_source: Path, smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[list[int]], np.ndarray]:
    """Return what the export environment makes of the prompts: new tokens, and first logits [prompts, vocabulary]."""
    python = Path(os.environ.get("EXPORT_PYTHON", REPOSITORY / ".venv-export" / "bin" / "python"))
    if not python.exists():
        pytest.fail("no export environment, run `make test` or set `EXPORT_PYTHON`")
    out = tmp_path_factory.mktemp("export")
    asked = {
        "prompts": prompts,
        "new_tokens_max": NEW_TOKENS_MAX,
        "end_ids": sorted(Tokenizer.open(smollm2_dir).end_ids),
    }
    (out / "prompts.json").write_text(json.dumps(asked))
    command = [python, "-m", "sluicegate.model_runner.export", "--source", smollm2_source, "--out", out]
    # Nothing is fetched: the weights are local, and the hub must not be asked for anything beside them.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "hub"), "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [*command, "--prompts", out / "prompts.json"],
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (out / "checkpoint" / "model.safetensors").unlink()
    return json.loads((out / TOKENS_FILE).read_text()), np.load(out / LOGITS_FILE)["logits"]


@pytest.fixture(scope="module")
def ours(prompts: list[list[int]], smollm2_dir: Path) -> tuple[list[list[int]], list[dict[int, float]]]:
    """Return what our graph makes of the prompts with nothing masked: new tokens, and the first step's candidates."""
    config = read_config(read_manifest(smollm2_dir))
    session = GraphSession(smollm2_dir / GRAPH_FILE, config, provider="cpu", threads=2)
    ends = Tokenizer.open(smollm2_dir).end_ids
    everything = np.ones((1, config.vocabulary), dtype=np.bool_)
    memory = session.new_memory(rows=1, tokens=max(map(len, prompts)) + NEW_TOKENS_MAX)
    texts, firsts = [], []
    for prompt in prompts:
        [best] = session.read([prompt], memory, row=0, past=0, allow=everything)
        firsts.append(dict(zip(best.ids.tolist(), best.logits.tolist(), strict=True)))
        text = [int(best.ids[0])]
        while len(text) < NEW_TOKENS_MAX and text[-1] not in ends:
            [best] = session.step(text[-1:], [len(prompt) + len(text) - 1], memory, everything)
            text.append(int(best.ids[0]))
        texts.append(text)
    return texts, firsts


@pytest.mark.timeout(600)
def test_greedy_tokens_are_those_of_the_export(
    ours: tuple[list[list[int]], list[dict[int, float]]], reference: tuple[list[list[int]], np.ndarray]
) -> None:
    assert ours[0] == reference[0]
    # Equal because both wrote something, not because both were empty.
    assert sum(len(text) == NEW_TOKENS_MAX for text in ours[0]) >= 4
    assert len({tuple(text) for text in ours[0]}) == len(PROMPTS)


@pytest.mark.timeout(600)
def test_logits_are_close_to_those_of_the_export(
    ours: tuple[list[list[int]], list[dict[int, float]]], reference: tuple[list[list[int]], np.ndarray]
) -> None:
    apart = [
        abs(value - float(logits[token]))
        for first, logits in zip(ours[1], reference[1], strict=True)
        for token, value in first.items()
    ]
    assert len(apart) == 64 * len(PROMPTS)
    assert max(apart) < LOGITS_APART_MAX
    # Nothing that the export ranks higher was left out of the candidates.
    for first, logits in zip(ours[1], reference[1], strict=True):
        others = np.delete(logits, sorted(first))
        assert others.max() < min(first.values()) + LOGITS_APART_MAX
    # The bound would notice a model that answers another prompt.
    assert np.abs(reference[1][0] - reference[1][1]).max() > 1.0
