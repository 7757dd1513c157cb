"""What asks for the model and what fits goes in, what the next model call works on comes out: the only place that says
who goes first.

Pure: no clock, no thread, no model. Rows are compact: those that decode come first, and behind them stands at most one
whose prompt is only partly read. Principals take turns by start-time fair queuing (Goyal, Vin and Cheng, SIGCOMM 1996)
over the tokens they may use; nobody overtakes the one whose turn it is, so what fits alone is never starved.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

CHUNK_TOKENS = 256
"""How much of one prompt a call reads at most. Fixed: where a prompt is cut may depend on nothing but its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One job as the schedule sees it: `tokens_max` bounds prompt and answer together."""

    number: int
    principal: str
    prompt_tokens: int
    tokens_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Prompts to read in one call: tokens `start` to `end` of each ask's prompt, at rows `row` and on.

    More than one only where all of them are read whole, from `start` 0.
    """

    row: int
    asks: tuple[Ask, ...]
    start: int
    end: int

    @property
    def is_last(self) -> bool:
        """Whether the prompts are read to their end."""
        return all(ask.prompt_tokens <= self.end for ask in self.asks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Row `source` becomes row `target`, which is free."""

    source: int
    target: int


@dataclass(slots=True)
class _Row:
    ask: Ask
    held: int


@dataclass(slots=True)
class _Turn:
    """A principal with asks waiting; `start` is the virtual time at which its next one is due."""

    asks: deque[tuple[int, Ask]]
    start: int


class Schedule:
    """Bounded queues, compact rows and the memory that they hold. Not safe to use from several threads."""

    def __init__(self, *, slots: int, memory_tokens: int, waiting_max: int, fill_tokens_max: int = 2 * CHUNK_TOKENS):
        """`memory_tokens` bounds the sum over all rows of what they may come to hold; `fill_tokens_max` bounds one
        call that reads several prompts, padding included.
        """
        if slots < 1 or waiting_max < 1 or fill_tokens_max < CHUNK_TOKENS:
            raise ValueError("at least 1 slot, 1 waiting and one chunk a call are needed")
        self._slots = slots
        self._memory_tokens = memory_tokens
        self._waiting_max = waiting_max
        self._fill_tokens_max = fill_tokens_max
        self._rows: list[_Row] = []
        self._read = 0
        self._turns: dict[str, _Turn] = {}
        self._owed: dict[str, int] = {}
        self._time = 0
        self._arrivals = 0
        self.decoding = 0
        self.waiting = 0

    @property
    def rows(self) -> list[Ask]:
        """The asks that hold a row, in the order of rows; the first `decoding` have read their prompt."""
        return [row.ask for row in self._rows]

    @property
    def held_tokens(self) -> int:
        """What all rows together may come to hold."""
        return sum(row.held for row in self._rows)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self._rows and not self.waiting

    def add(self, ask: Ask) -> bool:
        """Queue `ask` behind what its principal asked before; False, and nothing is queued, where the queue is full.

        Raises:
            ValueError: it could never be admitted, or its prompt is one that chunks cannot read.
        """
        if not 2 <= ask.prompt_tokens < ask.tokens_max <= self._memory_tokens:
            raise ValueError("a prompt of at least 2 tokens, room for one more, and memory for all are needed")
        if self.waiting >= self._waiting_max:
            return False
        turn = self._turns.get(ask.principal)
        if turn is None:
            start = max(self._time, self._owed.pop(ask.principal, 0))
            turn = self._turns[ask.principal] = _Turn(asks=deque(), start=start)
        turn.asks.append((self._arrivals, ask))
        self._arrivals += 1
        self.waiting += 1
        return True

    def next_fill(self) -> Fill | None:
        """Say what the next call reads, admitting whoever's turn it is; None where nothing can be read now.

        The fill counts as done: what follows is its `release` or the next call.
        """
        if self.decoding == len(self._rows):
            admitted = self._admit()
            if not admitted:
                return None
            self._read = 0
        else:
            admitted = [self._rows[-1].ask]
        row, start = self.decoding, self._read
        end = max(chunk_end(ask.prompt_tokens, start) for ask in admitted)
        fill = Fill(row=row, asks=tuple(admitted), start=start, end=end)
        self._read = end
        if fill.is_last:
            self.decoding = len(self._rows)
        return fill

    def release(self, number: int) -> list[Move]:
        """Forget an ask, waiting or running, and say which rows move so that none is left empty in between.

        Carry the moves out in their order, before the next call. Raises: KeyError: there is no such ask.
        """
        for row, each in enumerate(self._rows):
            if each.ask.number == number:
                return self._close(row)
        for principal, turn in self._turns.items():
            for waiting in turn.asks:
                if waiting[1].number == number:
                    turn.asks.remove(waiting)
                    self.waiting -= 1
                    if not turn.asks:
                        self._leave(principal, turn.start)
                    return []
        raise KeyError(number)

    def _close(self, row: int) -> list[Move]:
        moves: list[Move] = []
        hole = row
        if row < self.decoding:
            self.decoding -= 1
            hole = self._shift(moves, self.decoding, hole)
        # the one that is being read, if there is one, stands last
        self._shift(moves, len(self._rows) - 1, hole)
        self._rows.pop()
        return moves

    def _shift(self, moves: list[Move], source: int, target: int) -> int:
        if source != target:
            self._rows[target] = self._rows[source]
            moves.append(Move(source=source, target=target))
        return source

    def _admit(self) -> list[Ask]:
        """Give rows to whoever is next, and to those behind while one call can read all of them whole."""
        admitted: list[Ask] = []
        longest = 0
        while self.waiting and len(self._rows) < self._slots:
            principal = min(self._turns, key=lambda name: (self._turns[name].start, self._turns[name].asks[0][0]))
            ask = self._turns[principal].asks[0][1]
            padded = max(longest, ask.prompt_tokens)
            if admitted and (padded > CHUNK_TOKENS or padded * (len(admitted) + 1) > self._fill_tokens_max):
                break
            # A shorter prompt is padded in the call, and its padding is written to its row.
            others = self._rows[len(self._rows) - len(admitted) :]
            grown = sum(max(0, padded - row.held) for row in others)
            held = max(ask.tokens_max, padded)
            if self.held_tokens + grown + held > self._memory_tokens:
                break
            for row in others:
                row.held = max(row.held, padded)
            self._rows.append(_Row(ask=ask, held=held))
            self._take_turn(principal, ask)
            admitted.append(ask)
            longest = padded
            if longest > CHUNK_TOKENS:
                break
        return admitted

    def _take_turn(self, principal: str, ask: Ask) -> None:
        turn = self._turns[principal]
        turn.asks.popleft()
        self.waiting -= 1
        # It goes on with every admission: else newcomers, due at once, could keep an older one waiting for ever.
        self._time = max(self._time, turn.start) + max(1, ask.tokens_max // len(self._turns))
        turn.start += ask.tokens_max
        if not turn.asks:
            self._leave(principal, turn.start)
        for name in [name for name, until in self._owed.items() if until <= self._time]:
            del self._owed[name]

    def _leave(self, principal: str, start: int) -> None:
        del self._turns[principal]
        if start > self._time:
            self._owed[principal] = start


def chunk_end(prompt_tokens: int, start: int) -> int:
    """Return where the chunk that begins at `start` ends. It never leaves one token, and takes never one: a call of
    one token computes in another order, and its bits would differ from those of the whole prompt read at once.
    """
    end = min(prompt_tokens, start + CHUNK_TOKENS)
    return end - 1 if prompt_tokens - end == 1 else end
