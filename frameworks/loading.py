"""Importing a framework quickly: every worker waits for it, and it takes seconds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Keras imports these where they are installed, for its wrappers and its drawings, which a worker has no use for. With
# what they import themselves that is a quarter of the time.
NOT_NEEDED = ("sklearn", "matplotlib")


@contextmanager
def quickly() -> Iterator[None]:
    """Imports within it do without NOT_NEEDED, and the garbage collector leaves in peace what they make.

    Millions of objects come, and hardly one goes: looking for garbage among them takes another quarter of the time,
    now and in every later collection. Code of the person may import all of NOT_NEEDED afterwards.
    """
    left_out = [name for name in NOT_NEEDED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None there makes an import fail
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in left_out:
            del sys.modules[name]
