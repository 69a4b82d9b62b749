"""What a worker prints: drained always, kept and passed on within bounds."""

from __future__ import annotations

import codecs
import os
import select
import threading
import time
from collections.abc import Callable

from sandbox.limits import Limits

CHUNK_BYTES = 64 * 1024
TAIL_BYTES = 8 * 1024
# The start of a line waits so long, and up to this size, for its end.
LINE_WAIT_MS = 200
LINE_BYTES = 8 * 1024


class OutputDrain:
    """Reads a pipe on a thread of its own until its end: a worker never waits for somebody to read what it prints.

    `on_text` is called on that thread with decoded text, at most `output_bytes_per_s` of it a second; a gap is marked
    by a line of its own. `on_flood` is called once when more than `output_bytes` came.
    """

    def __init__(
        self, fd: int, limits: Limits, on_text: Callable[[str], None] | None, on_flood: Callable[[], None]
    ) -> None:
        self._fd, self._limits, self._on_text, self._on_flood = fd, limits, on_text, on_flood
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._kept = bytearray()
        self._tail = b""
        self._total_bytes = 0
        self._line = ""
        self._second, self._second_bytes, self._left_out_bytes = 0.0, 0, 0
        self._stop_fd, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._run, name="worker-output", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """The first `output_kept_bytes` of what was printed, and a last line that says so if there was more."""
        kept = bytes(self._kept)
        left_out = self._total_bytes - len(kept)
        text = kept.decode("utf-8", "replace")
        return text if left_out <= 0 else f"{text}\n… {left_out} more bytes left out\n"

    @property
    def tail(self) -> str:
        """The last of what was printed: where a crash leaves its trace."""
        return self._tail.decode("utf-8", "replace")

    def finish(self, timeout_s: float = 2.0) -> None:
        """Takes in what is left; gives up on a pipe that somebody still holds open. Closes the pipe."""
        self._thread.join(timeout_s)
        os.close(self._stopper)
        self._thread.join()
        os.close(self._fd)
        os.close(self._stop_fd)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._stop_fd, select.POLLHUP)
        while True:
            ready = {fd for fd, _ in poller.poll(LINE_WAIT_MS if self._line else None)}
            if not ready:
                self._end_line()
            data = os.read(self._fd, CHUNK_BYTES) if self._fd in ready else b""
            self._take(data)
            if ready and (not data or self._stop_fd in ready):
                break
        self._pass_on(self._decoder.decode(b"", final=True))
        self._end_line()
        self._mark_gap()

    def _take(self, data: bytes) -> None:
        flooded_before = self._flooded
        self._total_bytes += len(data)
        if self._flooded and not flooded_before:
            self._on_flood()
        self._keep(data)
        self._pass_on(self._decoder.decode(self._rationed(data)))

    @property
    def _flooded(self) -> bool:
        limit = self._limits.output_bytes
        return bool(limit) and self._total_bytes > (limit or 0)

    def _keep(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        self._kept += data[: max(0, self._limits.output_kept_bytes - len(self._kept))]

    def _rationed(self, data: bytes) -> bytes:
        """As much of it as may still be passed on this second."""
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._mark_gap()
            self._second, self._second_bytes = now, 0
        allowed = data[: max(0, self._limits.output_bytes_per_s - self._second_bytes)]
        self._second_bytes += len(allowed)
        self._left_out_bytes += len(data) - len(allowed)
        return allowed

    def _mark_gap(self) -> None:
        if self._left_out_bytes:
            self._pass_on(f"\n… {self._left_out_bytes} bytes of output left out\n")
            self._left_out_bytes = 0

    def _pass_on(self, text: str) -> None:
        """Whole lines, as far as lines come whole: whoever takes them may put something before each."""
        lines, newline, rest = text.rpartition("\n")
        if newline or len(self._line) > LINE_BYTES:
            self._line += lines + newline
            self._end_line()
        self._line += rest

    def _end_line(self) -> None:
        text, self._line = self._line, ""
        if self._on_text is not None and text:
            self._on_text(text)
