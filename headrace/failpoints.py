"""Named places where tests make a process fail.

`HEADRACE_FAIL="after_produce:exit@3,before_commit:hang@1"` ends the process at the third pass of `after_produce`
and stops it for ever at the first pass of `before_commit`. Actions: `exit` (SIGKILL), `hang`, `stop` (SIGSTOP, until
somebody sends SIGCONT), `raise`, and `delay@N=SECONDS`. With `HEADRACE_FAIL_FOLDER` each entry fires once per folder,
so that a process that was started again goes on. Unset, a failpoint costs one look into an empty dictionary.
"""

import itertools
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.errors import Internal
from headrace.v1 import error_pb2


class _Failpoint:
    def __init__(self, name: str, action: str, at: int, argument: str) -> None:
        self._name, self._action, self._at, self._argument = name, action, at, argument
        self._passes = itertools.count(1)  # one step, also when threads pass at once

    def is_due(self) -> bool:
        """Counts a pass; true on the one that was asked for."""
        return next(self._passes) == self._at and self._first_time()

    def _first_time(self) -> bool:
        folder = os.environ.get("HEADRACE_FAIL_FOLDER")
        if not folder:
            return True
        try:
            (Path(folder) / f"{self._name}.{self._action}.{self._at}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def fire(self) -> None:
        """Does what was asked for."""
        if self._action == "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self._action == "hang":
            while True:  # a signal ends one sleep
                time.sleep(3600)
        elif self._action == "raise":
            raise Internal(error_pb2.REASON_INTERNAL_ERROR, f"failpoint {self._name}", failpoint=self._name)
        else:
            time.sleep(float(self._argument or "0.1"))


def _parse(text: str) -> Mapping[str, list[_Failpoint]]:
    points: dict[str, list[_Failpoint]] = {}
    for entry in filter(None, text.split(",")):
        name, _, rest = entry.partition(":")
        rest, _, argument = rest.partition("=")
        action, _, at = rest.partition("@")
        points.setdefault(name, []).append(_Failpoint(name, action, int(at or "1"), argument))
    return points


_points = _parse(os.environ.get("HEADRACE_FAIL", ""))


def fail_at(name: str) -> None:
    """A place where a test may have this process fail."""
    if points := _points.get(name):
        for point in [point for point in points if point.is_due()]:
            point.fire()
