"""The runner's window: which decision offsets may be started, which have an output, and how that is restored after a
crash.

A source s may be admitted only while s < first + size, where `first` is the first source without an acknowledged
output.
Every output is sealed with the window at its append; a crashed runner's last 2*size-1 effective outputs restore it
exactly.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What an effective output of the runner says of the window: the sources it covers, and `first` when it was
    appended.
    """

    source: int
    count: int
    first: int


class Window:
    """`first` and the set of finished sources at or above it. Sources are covered once: a second output is a bug."""

    def __init__(self, *, size: int, first: int = 0) -> None:
        if size < 1:
            raise ValueError(f"a window holds at least 1 source, not {size}")
        self.size = size
        self.first = first
        self._done: set[int] = set()

    @property
    def limit(self) -> int:
        """The first source that may not be admitted yet."""
        return self.first + self.size

    def is_done(self, source: int) -> bool:
        """Whether the source has an acknowledged output."""
        return source < self.first or source in self._done

    def may_admit(self, source: int) -> bool:
        """Whether work on the source may start."""
        return source < self.limit and not self.is_done(source)

    def finish(self, source: int, count: int = 1) -> None:
        """Marks sources whose output is acknowledged, and moves `first` past every leading one.

        Raises:
            ValueError: a source has an output already, or stands outside the window.
        """
        for each in range(source, source + count):
            if not self.may_admit(each):
                raise ValueError(f"source {each} is finished or outside [{self.first}, {self.limit})")
        self._done.update(range(source, source + count))
        while self.first in self._done:
            self._done.remove(self.first)
            self.first += 1

    def state(self) -> tuple[int, frozenset[int]]:
        """`first` and the finished sources at or above it."""
        return self.first, frozenset(self._done)


def outputs_needed(size: int) -> int:
    """How many of a runner's last effective outputs restore a window of `size` exactly."""
    return 2 * size - 1


def restore(outputs: Iterable[Output], *, size: int, log_start_known: bool, start: int = 0) -> Window:
    """The window after `outputs`, a runner's last effective outputs in log order.

    `log_start_known`: the outputs are all there ever were, so the window starts at source `start`; otherwise there must
    be at least `outputs_needed(size)` of them.

    Raises:
        ValueError: too few outputs.
    """
    kept = list(outputs)
    if log_start_known:
        window = Window(size=size, first=start)
        for output in kept:
            window.finish(output.source, output.count)
        return window
    if len(kept) < outputs_needed(size):
        raise ValueError(f"{len(kept)} outputs do not restore a window of {size}; read back {outputs_needed(size)}")
    first = max(output.first for output in kept)
    done = {each for output in kept for each in range(output.source, output.source + output.count) if each >= first}
    window = Window(size=size, first=first)
    for source in sorted(done):
        window.finish(source)
    return window
