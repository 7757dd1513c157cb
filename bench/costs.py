"""A profile of the enforcer goes in, a table of what its functions cost comes out."""

import pstats
from pathlib import Path
from typing import Final

from rich.table import Table

SHOWN_MAX: Final = 24


def costs_of(path: Path, *, title: str) -> Table:
    """The costliest functions of this project, callees included, and what they took of the run's busy time."""
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = vars(pstats.Stats(str(path)))["stats"]
    asleep = sum(own for (_, _, name), (_, _, own, _, _) in stats.items() if "poll" in name and "select" in name)
    busy = sum(own for _, _, own, _, _ in stats.values()) - asleep
    ours = {
        place: found
        for place, found in stats.items()
        if any(f"/{part}/" in place[0] for part in ("enforcer", "schemas", "streams"))
        and "site-packages" not in place[0]
    }
    shown = Table(title=title, title_justify="left")
    for name in ("function", "calls", "with callees", "own"):
        shown.add_column(name, justify="left" if name == "function" else "right")
    for (file, line, name), (_, calls, own, whole, _) in sorted(ours.items(), key=lambda item: -item[1][3])[:SHOWN_MAX]:
        shown.add_row(
            f"{Path(file).parent.name}/{Path(file).name}:{line} {name}",
            f"{calls:,}",
            f"{whole / busy:.1%}",
            f"{own / busy:.1%}",
        )
    return shown
