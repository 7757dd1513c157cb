"""A stage that is ready tells whoever started it: one line on an inherited pipe, the only place that knows its form.

The line is `ready`, or `ready DETAIL` with what the status line shall say of the stage (`SmolLM2-135M cpu`).
"""

import logging
import os

DETAIL_LENGTH_MAX = 80
WORD = "ready"

logger = logging.getLogger(__name__)


def report_ready(ready_fd: int, detail: str = "") -> None:
    """Write the line to `ready_fd` and close it; -1: nobody waits (a stage started by hand), only the log says so.

    Call it once, when the stage takes work: its read-back is done and its position is known.
    """
    line = f"{WORD} {' '.join(detail.split())[:DETAIL_LENGTH_MAX]}".strip()
    logger.info("stage is ready", extra={"detail": detail[:DETAIL_LENGTH_MAX]})
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, line.encode() + b"\n")
    except BrokenPipeError:
        logger.warning("nobody waits for this stage to be ready")
    finally:
        os.close(ready_fd)


def parse_ready(line: str) -> str | None:
    """Return the detail of a line that says ready, None for any other line."""
    word, _, detail = line.strip().partition(" ")
    return detail.strip() if word == WORD else None
