"""The engine: every way a generation ends, what it records, and that equal jobs give equal outcomes."""

import contextlib
import functools
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fixtures_model import CONTEXT
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.model_runner import session
from sluicegate.model_runner.build import DATA_FILE, ensure_built, read_manifest
from sluicegate.model_runner.engine import Capacity, Engine
from sluicegate.model_runner.errors import ModelFailed, ModelRefused, ProviderRefused, TextRefused
from sluicegate.model_runner.ports import Generator, Job, Message
from sluicegate.model_runner.session import Candidates, GraphSession

HELLO = (Message(role="user", content="hello there"),)
JOB = Job(messages=HELLO, max_tokens=12, seed=3)
WARM = replace(JOB, temperature=1.5)


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def engine(tiny_dir: Path) -> Engine:
    return Engine.load(tiny_dir, threads=1, window_tokens=128)


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what puts a function around both kinds of model call: it gets its name, the call and its arguments."""

    def patch(wrapper: Callable[..., object]) -> None:
        for name in ("read", "step"):
            wrapped = functools.partialmethod(_hand_over, wrapper, name, getattr(GraphSession, name))
            monkeypatch.setattr(GraphSession, name, wrapped)

    return patch


def _hand_over(
    session: GraphSession,
    wrapper: Callable[..., object],
    name: str,
    call: Callable[..., object],
    *args: object,
    **named: object,
) -> object:
    return wrapper(name, functools.partial(call, session), *args, **named)


@pytest.fixture
def steps(around: Callable[..., None]) -> list[int]:
    """Return a list that grows by the number of tokens of every model call."""
    calls: list[int] = []

    def counted(name: str, call: Callable[..., object], tokens: Any, *args: object, **named: object) -> object:
        calls.append(len(tokens) if name == "step" else sum(map(len, tokens)))
        return call(tokens, *args, **named)

    around(counted)
    return calls


def test_an_outcome_says_how_it_was_made(engine: Engine, tiny_dir: Path) -> None:
    generator: Generator = engine
    outcome = generator.submit(JOB, never).result()
    manifest = read_manifest(tiny_dir)
    assert outcome.finish == "length"
    assert outcome.output_tokens == 12
    assert outcome.prompt_tokens == len(engine.tokenizer.prompt_tokens(HELLO))
    assert outcome.provider == "CPUExecutionProvider"
    assert outcome.graph_digest == manifest["graph_digest"]
    assert outcome.tokenizer_digest == manifest["tokenizer_digest"]
    assert outcome.seed == 3
    assert outcome.text


def test_greedy_is_the_same_for_every_seed_and_a_draw_is_not(engine: Engine) -> None:
    greedy = {engine.generate(replace(JOB, seed=seed), never).text for seed in range(5)}
    drawn = {engine.generate(replace(WARM, seed=seed), never).text for seed in range(5)}
    assert len(greedy) == 1
    assert len(drawn) > 1


@given(seed=st.integers(0, 2**63 - 1), temperature=st.sampled_from([0.0, 0.7, 2.0]), top_k=st.integers(0, 70))
def test_the_same_job_gives_the_same_outcome(engine: Engine, seed: int, temperature: float, top_k: int) -> None:
    job = replace(JOB, seed=seed, temperature=temperature, top_k=top_k, top_p=0.9, max_tokens=5)
    assert engine.generate(job, never) == engine.generate(job, never)


def test_threads_at_once_get_what_they_get_alone(engine: Engine) -> None:
    jobs = [replace(WARM, seed=seed) for seed in range(8)]
    alone = [engine.generate(job, never) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: engine.generate(job, never), jobs)) == alone


def test_generations_run_side_by_side_in_one_call(engine: Engine, steps: list[int]) -> None:
    alone = engine.generate(JOB, never)
    calls = len(steps)
    futures = [engine.submit(JOB, never) for _ in range(16)]
    assert [future.result() for future in futures] == [alone] * 16
    # The first may start before the others are there: a few rounds at most, not sixteen.
    assert len(steps) - calls <= 4 * calls
    assert max(steps[calls:]) >= 8


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_only_a_choice_comes_out(engine: Engine, temperature: float) -> None:
    choices = ("positive", "negative", "neither")
    seen = set()
    for seed in range(20):
        outcome = engine.generate(replace(JOB, choices=choices, seed=seed, temperature=temperature), never)
        assert outcome.finish == "stop"
        seen.add(outcome.text)
    assert seen <= set(choices)
    assert len(seen) == 1 if temperature == 0.0 else len(seen) > 1


def test_a_complete_choice_ends_without_another_call(engine: Engine, steps: list[int]) -> None:
    job = replace(JOB, choices=("positive", "negative"))
    outcome = engine.generate(job, never)
    assert len(steps) == outcome.output_tokens
    exact = engine.generate(replace(job, max_tokens=outcome.output_tokens), never)
    assert exact == outcome
    assert exact.finish == "stop"


def test_a_choice_cut_by_the_limit_says_so(engine: Engine) -> None:
    outcome = engine.generate(replace(JOB, choices=("positive", "negative"), max_tokens=1), never)
    assert (outcome.finish, outcome.output_tokens) == ("length", 1)


def test_nothing_allowed_ends_as_blocked_without_a_model_call(engine: Engine, steps: list[int]) -> None:
    outcome = engine.generate(replace(JOB, choices=()), never)
    assert (outcome.finish, outcome.text, outcome.output_tokens) == ("blocked", "", 0)
    assert steps == []
    engine.generate(JOB, never)
    assert len(steps) == 12


def test_a_model_that_names_nothing_ends_as_blocked(engine: Engine, around: Callable[..., None]) -> None:
    nothing = Candidates(ids=np.array([], dtype=np.int64), logits=np.array([], dtype=np.float32))
    around(lambda name, call, tokens, *args, **named: [nothing] * len(tokens))
    outcome = engine.generate(JOB, never)
    assert (outcome.finish, outcome.text) == ("blocked", "")


@pytest.mark.parametrize("asked", [0, 1, 5])
def test_a_cancelled_job_stops_before_the_next_call(engine: Engine, steps: list[int], asked: int) -> None:
    outcome = engine.generate(JOB, lambda: len(steps) >= asked)
    assert (outcome.finish, outcome.output_tokens) == ("cancelled", asked)
    assert len(steps) == asked
    assert engine.generate(JOB, never).text.startswith(outcome.text.rstrip("\ufffd"))


def test_a_job_past_its_deadline_is_not_run(engine: Engine, steps: list[int]) -> None:
    late = engine.generate(replace(JOB, deadline_monotonic_s=time.monotonic() - 1), never)
    assert (late.finish, late.output_tokens) == ("expired", 0)
    assert steps == []
    assert engine.generate(replace(JOB, deadline_monotonic_s=time.monotonic() + 600), never).finish == "length"


def test_a_prompt_longer_than_the_job_allows_never_reaches_the_model(engine: Engine, steps: list[int]) -> None:
    tokens = len(engine.tokenizer.prompt_tokens(JOB.messages))
    over = engine.generate(replace(JOB, prompt_tokens_max=tokens - 1), never)
    assert (over.finish, over.prompt_tokens, over.text, steps) == ("too_long", tokens, "", [])
    assert engine.generate(replace(JOB, prompt_tokens_max=tokens), never) == engine.generate(JOB, never)
    with pytest.raises(ValueError, match="prompt_tokens_max"):
        replace(JOB, prompt_tokens_max=0)


def test_a_prompt_that_does_not_fit_never_reaches_the_model(engine: Engine, steps: list[int]) -> None:
    frame = len(engine.tokenizer.prompt_tokens([Message(role="user", content="")]))

    def ask(characters: int) -> Job:
        return replace(JOB, messages=(Message(role="user", content="1" * characters),))

    full = engine.generate(ask(128 - frame), never)
    assert (full.finish, full.prompt_tokens, full.text, steps) == ("too_long", 128, "", [])
    fits = engine.generate(ask(127 - frame), never)
    assert (fits.finish, fits.prompt_tokens, fits.output_tokens) == ("length", 127, 1)
    assert steps == [127]


def test_a_stop_string_is_found_across_tokens_and_cut_off(engine: Engine) -> None:
    # A random model speaks random bytes: choices make it say a known text, one token a letter.
    said = replace(JOB, choices=("abc def xyz",), max_tokens=40)
    assert engine.generate(said, never).text == "abc def xyz"
    for stop, text in (
        (("def",), "abc "),
        (("c d", "zzz"), "ab"),
        (("xyz", "ef"), "abc d"),
        (("a",), ""),
        (("abc def xyz",), ""),
        (("fed",), "abc def xyz"),
        (("bc", "c"), "a"),
    ):
        outcome = engine.generate(replace(said, stop=stop), never)
        assert (outcome.text, outcome.finish) == (text, "stop")


def test_the_first_of_several_stop_strings_in_one_token_counts(engine: Engine) -> None:
    said = replace(JOB, choices=("posing",))
    assert engine.tokenizer.token_bytes[engine.tokenizer.encode("posing")[0]] == b"pos"
    assert engine.generate(replace(said, stop=("s", "os")), never).text == "p"


def test_a_stop_string_of_several_bytes_a_character_is_found(engine: Engine) -> None:
    said = replace(JOB, choices=("né 😀!",), max_tokens=40)
    assert engine.generate(said, never).text == "né 😀!"
    assert engine.generate(replace(said, stop=("😀",)), never).text == "né "
    assert engine.generate(replace(said, stop=("é",)), never).text == "n"


def test_an_end_token_ends_the_text(engine: Engine) -> None:
    outcome = engine.generate(replace(JOB, choices=("",)), never)
    assert (outcome.finish, outcome.text, outcome.output_tokens) == ("stop", "", 0)


def test_a_byte_without_a_token_is_refused(engine: Engine) -> None:
    with pytest.raises(TextRefused, match="0x04"):
        engine.generate(replace(JOB, messages=(Message(role="user", content="blue\x04fin"),)), never)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1},
        {"top_p": float("nan")}, {"top_k": -1}, {"stop": ("",)},
    ],
)  # fmt: skip
def test_a_job_out_of_range_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(JOB, **change)  # type: ignore[arg-type]


def test_a_damaged_build_is_not_loaded(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = ensure_built(tiny_gguf, tmp_path)
    data = bytearray((folder / DATA_FILE).read_bytes())
    data[100] ^= 1
    (folder / DATA_FILE).write_bytes(data)
    with pytest.raises(ModelRefused, match="differs from its manifest"):
        Engine.load(folder)
    with pytest.raises(ModelRefused, match=r"no readable `manifest\.json`"):
        Engine.load(tmp_path / "nowhere")


@pytest.mark.parametrize("window", [0, 1, CONTEXT + 1])
def test_a_window_that_the_model_does_not_have_is_refused(window: int, tiny_dir: Path) -> None:
    with pytest.raises(ModelRefused, match=f"a window of `{window}` tokens"):
        Engine.load(tiny_dir, window_tokens=window)


def test_memory_too_small_for_one_window_is_refused(tiny_dir: Path) -> None:
    with pytest.raises(ModelRefused, match="needs 1 MiB of memory"):
        Engine.load(tiny_dir, window_tokens=CONTEXT, capacity=Capacity(memory_bytes=1000))


def test_a_failed_call_fails_its_jobs_and_no_later_one(engine: Engine, around: Callable[..., None]) -> None:
    broken = True

    def fail(name: str, call: Callable[..., object], *args: object, **named: object) -> object:
        if broken and name == "step":
            raise ModelFailed("on purpose")
        return call(*args, **named)

    around(fail)
    with pytest.raises(ModelFailed):
        engine.generate(JOB, never)
    broken = False
    assert engine.generate(JOB, never).finish == "length"


def test_two_runtimes_over_each_other_are_refused(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session.refuse_two_runtimes()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    with pytest.raises(ProviderRefused, match="are both installed"):
        Engine.load(tiny_dir, window_tokens=CONTEXT)


def test_a_provider_that_was_asked_for_is_used_or_refused(tiny_dir: Path) -> None:
    with pytest.raises(ProviderRefused, match="provider `tpu` is not known"):
        Engine.load(tiny_dir, provider="tpu", window_tokens=CONTEXT)  # type: ignore[arg-type]
    # With a GPU or without: the CPU never takes over what was asked of CUDA.
    runs_on = "CUDAExecutionProvider"
    with contextlib.suppress(ProviderRefused):
        runs_on = Engine.load(tiny_dir, provider="cuda", window_tokens=CONTEXT).provider
    assert runs_on.startswith("CUDAExecutionProvider")
    assert Engine.load(tiny_dir, window_tokens=CONTEXT).provider == "CPUExecutionProvider"


def test_a_session_that_fell_back_to_the_cpu_is_refused(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["CPUExecutionProvider"])
    with pytest.raises(ProviderRefused, match="provider `cuda`"):
        Engine.load(tiny_dir, provider="cuda", window_tokens=CONTEXT)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderRefused, match="provider `cuda` was asked for and this onnxruntime has none"):
        Engine.load(tiny_dir, provider="cuda", window_tokens=CONTEXT)


def test_a_session_on_another_provider_is_refused(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["XnnpackExecutionProvider"])
    with pytest.raises(ProviderRefused, match="the session runs on `XnnpackExecutionProvider`"):
        Engine.load(tiny_dir, window_tokens=CONTEXT)


def test_cuda_is_listed_alone_and_its_fallback_is_off(tiny_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_session(path: Path, options: onnxruntime.SessionOptions, providers: list[str]) -> None:
        asked.append((options.get_session_config_entry("session.disable_cpu_ep_fallback"), providers))
        raise ValueError("enough")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    with pytest.raises(ProviderRefused, match="provider `cuda` cannot run this graph"):
        Engine.load(tiny_dir, provider="cuda", window_tokens=CONTEXT)
    assert asked == [("1", ["CUDAExecutionProvider"])]


def test_serving_imports_nothing_of_the_export() -> None:
    code = (
        "import sys, sluicegate.model_runner.engine, sluicegate.model_runner.build\n"
        "found = {'torch', 'transformers', 'optimum'} & {name.partition('.')[0] for name in sys.modules}\n"
        "assert 'onnxruntime' in sys.modules\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
