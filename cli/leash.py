"""Turns into another program that ends with its parent: `python -IS leash.py PARENT_PID PROGRAM ARGUMENT…`.

A file of its own, without imports of ours, because the alternative is code between fork and exec in a parent with
threads. The kernel keeps the wish over exec (Linux; elsewhere the program simply starts).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before the call
            sys.exit(0)
    os.execv(program[0], program)  # noqa: S606


main()
