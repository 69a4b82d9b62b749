"""JSON text, by orjson where it is installed: a producer has the base install only."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def refuse_constant(constant: str) -> Any:
    """For NaN and the infinities, which Python's parser takes."""
    raise ValueError(f"{constant} is no JSON")


def _loads(text: bytes) -> Any:
    return _DECODE(text.decode())


def _dumps(value: Any) -> bytes:
    return _ENCODE(value).encode()


_DECODE = json.JSONDecoder(parse_constant=refuse_constant).decode
_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

loads: Callable[[Any], Any]
dumps: Callable[[Any], bytes]
try:
    import orjson
except ImportError:
    loads, dumps = _loads, _dumps
else:
    loads, dumps = orjson.loads, orjson.dumps
