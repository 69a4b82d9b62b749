"""Code files as nobody should write them, and somebody does: by name the code and its verdict.

A verdict is the reason of the diagnostic; empty for code that builds its model after all.
"""

from __future__ import annotations

GOOD = "model = lambda x: x"
SPOIL = "import sys\n"

ODD: dict[str, tuple[str, str]] = {
    # What Python does not read.
    "a null byte": ("model = 1\0", "CODE_ERROR"),
    "tabs and blanks": ("if True:\n\tx = 1\n        y = 2\n" + GOOD, "CODE_ERROR"),
    "an open string": ("model = '''", "CODE_ERROR"),
    "brackets without an end": ("(" * 100_000, "CODE_ERROR"),
    "a sum without an end": ("x = " + "1 + " * 100_000 + "1", "CODE_ERROR"),
    "a number of a million digits": ("x = " + "9" * 1_000_000, "CODE_ERROR"),
    "a late import from the future": (GOOD + "\nfrom __future__ import annotations", "CODE_ERROR"),
    "a return": ("return 1", "CODE_ERROR"),
    "a name that only looks right": ("mоdel = 5", "NO_MODEL"),
    "a text that runs backwards": ("x = '\u202e'\n" + GOOD, ""),
    "a byte order mark": ("\ufeff" + GOOD, "CODE_ERROR"),
    "the lines of Windows": ("x = 1\r\n" + GOOD + "\r\n", ""),
    "an encoding that it does not have": ("# coding: utf-7\n" + GOOD, ""),
    "nothing but comments": ("# nothing", "NO_MODEL"),
    "a line of a million characters": ("x = '" + "y" * 1_000_000 + "'\n" + GOOD, ""),
    "very many lines": ("x = 1\n" * 20_000 + GOOD, ""),
    # What raises something odd.
    "an exit": ("import sys; sys.exit(0)", "CODE_ERROR"),
    "an interrupt": ("raise KeyboardInterrupt", "CODE_ERROR"),
    "an error of its own kind": ("class Own(BaseException): pass\nraise Own('x')", "CODE_ERROR"),
    "an error that has no text": (
        "class Own(Exception):\n  def __str__(self): raise ValueError\nraise Own",
        "CODE_ERROR",
    ),
    "an error whose kind has no name": (
        "class Meta(type):\n  __name__ = property(lambda kind: 1 / 0)\nclass Own(Exception, metaclass=Meta): pass\n"
        "raise Own",
        "CODE_ERROR",
    ),
    "an error of ten million characters": ("raise ValueError('x' * 10_000_000)", "CODE_ERROR"),
    "an error that is no text": ("raise ValueError('\\ud800\\0\\x1b[2J')", "CODE_ERROR"),
    "errors in a circle": ("a, b = ValueError(), ValueError()\na.__cause__, b.__cause__ = b, a\nraise a", "CODE_ERROR"),
    "a thousand errors": ("raise ExceptionGroup('all', [ValueError()] * 1000)", "CODE_ERROR"),
    "no end of recursion": ("def f(): f()\nf()", "CODE_ERROR"),
    "a question": ("input('are you there?')", "CODE_ERROR"),
    "a debugger": ("breakpoint()", "CODE_ERROR"),
    "a print of what is no text": ("print('\\ud800')", "CODE_ERROR"),
    # What is no model, or a strange one.
    "a model that is gone": (GOOD + "\ndel model", "NO_MODEL"),
    "a model that cannot be looked at": (
        "class Odd:\n  def __getattribute__(self, name): raise OSError(name)\nmodel = Odd()",
        "CODE_ERROR",
    ),
    "a model with another class": (
        "class Odd:\n  __class__ = property(lambda self: 1 / 0)\nmodel = Odd()",
        "CODE_ERROR",
    ),
    # What spoils its process.
    "no print": ("import builtins; builtins.print = None\n" + GOOD, ""),
    "no import": ("import builtins; builtins.__import__ = None\n" + GOOD, ""),
    "no modules": (SPOIL + "sys.modules.clear()\n" + GOOD, ""),
    "no output": (SPOIL + "sys.stdout.close(); sys.stderr = None\n" + GOOD, ""),
    "no folder": ("import os, shutil; shutil.rmtree(os.getcwd())\n" + GOOD, ""),
    "no files": ("import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (0, 0))\n" + GOOD, ""),
    "a thread that goes on": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=[99]).start()\n" + GOOD,
        "",
    ),
    "an end that never comes": ("import atexit, time; atexit.register(time.sleep, 99)\n" + GOOD, ""),
    "an alarm": ("import signal, time; signal.alarm(1); time.sleep(99)", "WORKER_CRASHED"),
    "a pickle that runs something": (
        "import pickle; pickle.loads(b\"cposix\\nsystem\\n(S'kill -9 $PPID'\\ntR.\")",
        "WORKER_CRASHED",
    ),
    "an archive that grows": (
        "import io, zipfile\nfile = io.BytesIO()\nwith zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as z:\n"
        "  z.writestr('a', bytes(2**26))\nz = zipfile.ZipFile(file)\nkept = [z.read('a') for _ in range(100)]",
        "OUT_OF_MEMORY",
    ),
    "a file of a terabyte": ("open('x', 'wb').truncate(2**40)\n" + GOOD, "CODE_ERROR"),
    "an array of a terabyte": ("x = np.ones(2**37)", "OUT_OF_MEMORY"),
    "a text that takes for ever to match": ("import re; re.match('(a+)+b', 'a' * 40)", "DEADLINE"),
    "a lock that is held": ("import threading; lock = threading.Lock()\nwith lock: lock.acquire()", "DEADLINE"),
    "a trace of every line": (SPOIL + "sys.settrace(lambda *_: 1 / 0)\n" + GOOD, "CODE_ERROR"),
}
