"""A line that says how far several things are that happen at once: how much, how fast, how long still."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

__all__ = ["Progress", "in_bytes"]

WINDOW = 10.0  # seconds over which the rate is taken
WIDTH = 24


class Progress:
    r"""Bytes of a total, drawn anew on one line of a terminal, or now and then as a line of a log.

    Args:
        what: What is going on, such as ``"downloading"``.
        total: Bytes in all.
        stream: Where to write; standard error if None.

    Example:
        >>> import io
        >>> stream = io.StringIO()
        >>> with Progress("downloading", 2_000_000, stream) as progress:
        ...     progress.follow("a.tar")(2_000_000)
        >>> stream.getvalue()
        'downloading: 2.0 MB of 2.0 MB, 100 %\n'
    """

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self.what, self.total = what, max(total, 1)
        self.stream = sys.stderr if stream is None else stream
        self.is_terminal = self.stream.isatty()
        self.pause = 0.2 if self.is_terminal else 30.0
        self.parts: dict[str, int] = {}
        self.past: deque[tuple[float, int]] = deque()
        self.drawn = time.monotonic()
        self.lock = threading.Lock()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            if self.parts:
                self._write(self._line(), last=True)

    def follow(self, part: str) -> Callable[[int], None]:
        """Return what to call with the number of bytes of a part that are done."""

        def done(count: int) -> None:
            with self.lock:
                self.parts[part] = count
                now = time.monotonic()
                if now - self.drawn >= self.pause:
                    self.drawn = now
                    self._write(self._line())

        return done

    def _line(self) -> str:
        done, now = sum(self.parts.values()), time.monotonic()
        self.past.append((now, done))
        while len(self.past) > 2 and now - self.past[0][0] > WINDOW:
            self.past.popleft()
        share = min(done / self.total, 1.0)
        bar = f"[{'#' * int(share * WIDTH):{WIDTH}}] " if self.is_terminal else ""
        line = f"{self.what}: {bar}{in_bytes(done)} of {in_bytes(self.total)}, {share:.0%}".replace("%", " %")
        seconds, count = now - self.past[0][0], done - self.past[0][1]
        if count > 0 and seconds > 0.5 and share < 1.0:
            line += f", {in_bytes(count / seconds)}/s, {_in_time((self.total - done) * seconds / count)} left"
        return line

    def _write(self, line: str, last: bool = False) -> None:
        if self.is_terminal:
            self.stream.write(f"\r\033[K{line}" + ("\n" if last else ""))
        else:
            self.stream.write(f"{line}\n")
        self.stream.flush()


def in_bytes(count: float) -> str:
    """Return a number of bytes in words.

    >>> [in_bytes(count) for count in (0, 999, 1_500, 460_032_000, 19_336_861_798)]
    ['0 bytes', '999 bytes', '1.5 kB', '460 MB', '19.3 GB']
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.{0 if count / limit >= 100 else 1}f} {unit}"
    return f"{count:.0f} bytes"


def _in_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
