"""A schema registry with Confluent's REST API."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from headrace.errors import Unavailable
from headrace.v1 import error_pb2

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 4 * 2**20
# An id that is unknown now may be registered later; but not every record that has it may ask again.
UNKNOWN_FOR_S = 60.0
MAX_UNKNOWN = 10_000
_UNKNOWN = {404}
_MEDIA = "application/vnd.schemaregistry.v1+json, application/json"


class UnknownSchema(LookupError):
    """The registry has no such schema, or none in Avro."""


@dataclass(frozen=True)
class Registered:
    """A schema and its id."""

    id: int
    text: str


class Registry:
    """Schemas by their id and by their subject. An id means the same schema for ever, so it is asked for once."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError where the URL is none of http or https."""
        self.url = checked_url(url)
        self._timeout_s = timeout_s
        self._known: dict[int, str] = {}
        self._unknown: dict[int, float] = {}
        self._lock = threading.Lock()

    def schema(self, id: int) -> str:
        """Raises UnknownSchema; Unavailable (SCHEMA_REGISTRY) where the registry does not answer as it should."""
        with self._lock:
            if id in self._known:
                return self._known[id]
            if self._unknown.get(id, 0.0) > time.monotonic():
                raise UnknownSchema(f"unknown schema id {id}")
            try:
                text = _schema_text(self._get(f"/schemas/ids/{id}", f"unknown schema id {id}"), f"schema id {id}")
            except UnknownSchema:
                self._remember_unknown(id)
                raise
            self._known[id] = text
            return text

    def latest(self, subject: str) -> Registered:
        """The newest version of the subject. Raises what `schema` raises."""
        path = f"/subjects/{urllib.parse.quote(subject, safe='')}/versions/latest"
        answer = self._get(path, f"unknown subject {subject}")
        schema_id = answer.get("id")
        if not isinstance(schema_id, int) or isinstance(schema_id, bool) or not 0 <= schema_id < 2**32:
            raise self._failure("it answers without an id")
        return Registered(schema_id, _schema_text(answer, f"subject {subject}"))

    def _remember_unknown(self, id: int) -> None:
        if len(self._unknown) >= MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[id] = time.monotonic() + UNKNOWN_FOR_S

    def _get(self, path: str, unknown: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, headers={"Accept": _MEDIA})  # noqa: S310  # checked_url
        try:
            with _OPENER.open(request, timeout=self._timeout_s) as response:
                body = _read(response, time.monotonic() + self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _UNKNOWN:
                    raise UnknownSchema(unknown) from None
                raise self._failure(f"it answers with the status {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failure(f"it does not answer ({error})") from error
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._failure("it answers with what is no JSON") from error
        if not isinstance(answer, dict):
            raise self._failure("it answers with what is no JSON object")
        return answer

    def _failure(self, what: str) -> Unavailable:
        return Unavailable(
            error_pb2.REASON_SCHEMA_REGISTRY, f"the schema registry {self.url} is of no use: {what}", url=self.url
        )


def checked_url(url: str) -> str:
    """Without the slash at its end. Raises ValueError."""
    url = url.strip().rstrip("/")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url[:200]!r} is no URL of http or https")
    if parts.username is not None or parts.password is not None:
        # A configuration is announced on a topic and shown to everybody.
        raise ValueError("a name or password does not belong in it")
    if parts.query or parts.fragment or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError(f"{url[:200]!r} has more than a host and a path")
    return url


def _schema_text(answer: dict[str, Any], what: str) -> str:
    if answer.get("schemaType", "AVRO") != "AVRO":
        raise UnknownSchema(f"{what} is a schema of {str(answer['schemaType'])[:40]}, not of Avro")
    if answer.get("references"):
        raise UnknownSchema(f"{what} refers to other schemas, which is not supported")
    text = answer.get("schema")
    if not isinstance(text, str):
        raise UnknownSchema(f"{what} has no text")
    return text


def _read(response: Any, deadline: float) -> bytes:
    """All of it, within the time as a whole: a timeout of a socket begins anew with every byte."""
    body = bytearray()
    while chunk := response.read1(2**16):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError(f"more than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    return bytes(body)


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to the same scheme only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme != urllib.parse.urlsplit(req.full_url).scheme:
            raise urllib.error.URLError(f"it redirects to {newurl[:200]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """With what http takes and nothing else: no files, no proxies of the environment."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _SameScheme,
    ):
        opener.add_handler(handler())
    return opener


_OPENER = _opener()
