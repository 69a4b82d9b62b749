"""The feeder's end of the pipes to a worker: never blocks longer than its deadline, in either direction."""

from __future__ import annotations

import os
import select
import time
from collections import deque

from sandbox.frames import Frame, FrameDecoder, encode_frame

# Answers that arrive while a request is still being written; more than this is no conversation.
INBOX_LIMIT = 256
# Linux takes this much of a buffer at a time at most; smaller pieces only cost calls.
WRITE_BYTES = 1024 * 1024
# poll() takes its time as a C int of milliseconds.
POLL_LIMIT_S = 86400.0


class ChannelClosedError(Exception):
    """The worker has ended or closed its pipes."""


class Channel:
    """Frames over two non-blocking pipes.

    While a request is written, arriving answers are taken in: otherwise a feeder that sends its next batch and a worker
    that sends the answer to the last one would wait for each other for ever.
    """

    def __init__(self, send_fd: int, receive_fd: int, *, limit_bytes: int) -> None:
        self._send_fd, self._receive_fd = send_fd, receive_fd
        self._decoder = FrameDecoder(limit_bytes)
        self._inbox: deque[Frame] = deque()
        self._poller = select.poll()
        self._poller.register(receive_fd, select.POLLIN)
        for fd in (send_fd, receive_fd):
            os.set_blocking(fd, False)

    def send(self, frame: Frame, deadline: float) -> None:
        """Writes one frame. `deadline` is a time of time.monotonic(); after it TimeoutError, mid-frame or not."""
        self._poller.register(self._send_fd, select.POLLOUT)
        try:
            for buffer in encode_frame(frame):
                self._send_buffer(buffer, deadline)
        finally:
            self._poller.unregister(self._send_fd)

    def receive(self, deadline: float) -> Frame:
        """The next frame. Raises TimeoutError, ChannelClosedError, and FrameError for what is no frame."""
        while not self._inbox:
            self._wait(deadline)
            self._take_in()
        return self._inbox.popleft()

    def ready(self, deadline: float) -> bool:
        """Whether there is something to receive; waits for it until the deadline."""
        if self._inbox:
            return True
        try:
            return bool(self._wait(deadline))
        except TimeoutError:
            return False

    def close(self) -> None:
        """Closes both pipes."""
        os.close(self._send_fd)
        os.close(self._receive_fd)

    def _send_buffer(self, buffer: memoryview, deadline: float) -> None:
        while buffer:
            try:
                buffer = buffer[os.write(self._send_fd, buffer[:WRITE_BYTES]) :]
            except BlockingIOError:
                ready = self._wait(deadline)
                if self._receive_fd in ready:
                    self._take_in()
            except BrokenPipeError as error:
                raise ChannelClosedError from error

    def _wait(self, deadline: float) -> set[int]:
        left = max(0.0, deadline - time.monotonic())
        ready = {fd for fd, _ in self._poller.poll(min(left, POLL_LIMIT_S) * 1000)}
        if not ready and time.monotonic() >= deadline:
            raise TimeoutError
        return ready

    def _take_in(self) -> None:
        if len(self._inbox) >= INBOX_LIMIT:
            raise ChannelClosedError("the worker sends without being asked")
        try:
            count = os.readv(self._receive_fd, [self._decoder.wanted()])
        except BlockingIOError:
            return
        if count == 0:
            raise ChannelClosedError
        frame = self._decoder.filled(count)
        if frame is not None:
            self._inbox.append(frame)
