"""Measured runs go in; medians, ratios to raw aiokafka, a table and a file of raw numbers come out."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.table import Table

from bench.tally import Measured

REFERENCE: Final = "raw"
TITLES: Final[Mapping[str, str]] = {
    "raw": "raw aiokafka (the reference)",
    "raw-proof": "raw aiokafka, and proof",
    "raw-proof-seals": "raw aiokafka, proof, seals",
    "faust": "(a) Faust, proof, seals",
    "faust-no-proof": "(b) Faust, seals",
    "faust-no-seals": "(c) Faust, proof",
    "faust-neither": "Faust, neither",
    "loop": "(f) bare loop, proof, seals",
    "naive": "(e) naive Faust agent",
    "quix": "(g) quixstreams",
}
LIKE: Final[Mapping[str, str]] = {"faust": "raw-proof-seals", "loop": "raw-proof-seals", "faust-no-seals": "raw-proof"}
"""The loop that does the same cryptography; for every other contender it is the reference."""
FLOOR: Final[Mapping[tuple[str, str], float]] = {
    ("distinct", "faust-neither"): 0.88,
    ("memo", "faust-neither"): 0.80,
    ("distinct", "faust-no-proof"): 0.89,
    ("memo", "faust-no-proof"): 0.73,
    ("distinct", "naive"): 0.17,
    ("memo", "naive"): 0.12,
}
"""What a prototype with a cheaper decision reached, as a share of the reference (design, section 10)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one contender; `measured` counts only where `faults` is empty."""

    mix: str
    contender: str
    repeat: int
    measured: Measured | None
    faults: tuple[str, ...] = ()

    @property
    def rate(self) -> float | None:
        """Events per CPU-second, None where the run is not to be believed."""
        return None if self.measured is None or self.faults else self.measured.per_cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A contender's figures on one mix: the median rate, and the ratios to the reference of the same repeat.

    `like`: the ratio to raw aiokafka with the same cryptography, None where that did not run.
    """

    contender: str
    rate: float
    ratio: float
    ratio_low: float
    ratio_high: float
    like: float | None
    slice_events: float


def summarize(runs: Sequence[Run], mix: str) -> tuple[list[Row], list[str]]:
    """A row for each contender whose every run was sound, and the names of the others.

    A ratio is taken within a repeat, whose runs stood next to each other in time, and the median over the repeats.
    """
    mine = [run for run in runs if run.mix == mix]
    rate_of = {(run.contender, run.repeat): run.rate for run in mine}
    rows: list[Row] = []
    unsound: list[str] = []
    for contender in dict.fromkeys(run.contender for run in mine):
        own = [run for run in mine if run.contender == contender]
        rates = [run.rate for run in own if run.rate is not None]
        ratios = _ratios(own, REFERENCE, rate_of)
        alike = _ratios(own, LIKE.get(contender, REFERENCE), rate_of)
        if len(rates) < len(own) or len(ratios) < len(own):
            unsound.append(contender)
            continue
        rows.append(
            Row(
                contender=contender,
                rate=statistics.median(rates),
                ratio=statistics.median(ratios),
                ratio_low=min(ratios),
                ratio_high=max(ratios),
                like=statistics.median(alike) if len(alike) == len(own) else None,
                slice_events=statistics.median(
                    run.measured.events / max(1, run.measured.appends) for run in own if run.measured is not None
                ),
            )
        )
    return rows, unsound


def _ratios(own: Sequence[Run], base: str, rate_of: Mapping[tuple[str, int], float | None]) -> list[float]:
    pairs = [(run.rate, rate_of.get((base, run.repeat))) for run in own]
    return [rate / reference for rate, reference in pairs if rate is not None and reference is not None]


def table(rows: Sequence[Row], mix: str) -> Table:
    """The rows as they are shown, the fastest first."""
    shown = Table(title=f"mix `{mix}`", title_justify="left")
    shown.add_column("contender")
    for name in ("events/CPU-s", "us/event", "of raw", "low - high", "of its like", "design", "slice"):
        shown.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row.rate):
        floor = FLOOR.get((mix, row.contender))
        shown.add_row(
            TITLES[row.contender],
            f"{row.rate:,.0f}",
            f"{1e6 / row.rate:,.0f}",
            f"{row.ratio:.2f}",
            f"{row.ratio_low:.2f} - {row.ratio_high:.2f}",
            "" if row.like is None else f"{row.like:.2f}",
            "" if floor is None else f"{floor:.2f}",
            f"{row.slice_events:,.0f}",
        )
    return shown


def machine() -> dict[str, str | int]:
    """What the figures were taken on: processor, cores, Python and kernel; nothing that tells one host from another."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or "unknown",
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "kernel": platform.release().split("-")[0],
    }


def save(path: Path, runs: Sequence[Run], *, broker: str, events: int, warm_up: int, load: Sequence[float]) -> None:
    """Writes every run as it was measured, and each mix's medians."""
    document = {
        "machine": machine(),
        "load_average": [round(each, 1) for each in load],
        "broker": broker,
        "events": events,
        "warm_up": warm_up,
        "medians": {
            mix: {row.contender: _rounded(row) for row in summarize(runs, mix)[0]}
            for mix in dict.fromkeys(run.mix for run in runs)
        },
        "runs": [
            {
                "mix": run.mix,
                "contender": run.contender,
                "repeat": run.repeat,
                **({} if run.measured is None else {k: round(v, 4) for k, v in asdict(run.measured).items()}),
                **({"faults": list(run.faults)} if run.faults else {}),
            }
            for run in runs
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = json.dumps(document, indent=1)
    path.write_text(lines + "\n", encoding="utf-8")


def _rounded(row: Row) -> dict[str, float | None]:
    figures = {name: value for name, value in asdict(row).items() if name != "contender"}
    return {name: None if value is None else round(value, 3) for name, value in figures.items()}
