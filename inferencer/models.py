"""The model that answers and its successor, which is loaded and warmed beside it on a thread of its own."""

import logging
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from headrace import logs
from headrace.errors import Cancelled, HeadraceError
from headrace.v1.inference_pb2 import Inference
from inferencer.loop import Model, is_permanent
from inferencer.status import Status

log = logging.getLogger(__name__)

# A model that could not be loaded for a reason that may pass is tried again so late.
RETRY_S = 60.0
CLOSE_TIMEOUT_S = 5.0
# How often the thread looks without having been told of anything.
IDLE_S = 5.0


class Loader(Protocol):
    """Makes a model of a result, and ends it."""

    def load(self, result_id: int, stop: threading.Event, *, strict: bool) -> Model:
        """Fetched, loaded and warmed. `strict`: a model that cannot answer rows of zeros is refused (SCHEMA_MISMATCH,
        CODE_ERROR, …). Raises what is wrong with it otherwise, such as RowsMismatch; Cancelled when `stop` is set.
        """

    def end(self, model: Model) -> None:
        """Lets its worker go."""


@dataclass(frozen=True)
class Refused:
    """A result that could not be loaded."""

    result_id: int
    retry_at: float


class Following:
    """Follows the wish: another result than the one that answers is loaded, and waits for the loop to switch to it.

    One that cannot be loaded leaves the one that answers as it is, and the status says why. A context manager: entering
    it loads the first model. `wish` may be called from any thread, `has_successor` and `switch` from the loop's.
    """

    def __init__(self, loader: Loader, status: Status) -> None:
        self._loader, self._status = loader, status
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._wanted, self._etag = 0, ""
        self._current: Model | None = None
        self._successor: Model | None = None
        self._before: list[Model] = []  # answered once, and still have workers
        self._refused: Refused | None = None
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self, inference: Inference, stop: threading.Event) -> "Following":
        """Loads what is wanted; where that fails, what answered before, if anything did."""
        self._wanted, self._etag = inference.result_id, inference.etag
        self._status.wants(self._wanted, self._etag)
        self._current = self._load_first(inference, stop)
        self._status.answers_with(self._current.result_id, self._current.version)
        return self

    def __enter__(self) -> "Following":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Its workers end with whoever gave them."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(CLOSE_TIMEOUT_S)

    @property
    def current(self) -> Model:
        """Answers now."""
        assert self._current is not None, "call start before"
        return self._current

    @property
    def has_successor(self) -> bool:
        """Whether another one is loaded and waits for `switch`."""
        return self._successor is not None

    def wish(self, inference: Inference) -> None:
        """What is wanted now. Whoever edits the inference wants what could not be loaded to be tried again."""
        with self._changed:
            if (self._wanted, self._etag) != (inference.result_id, inference.etag):
                self._wanted, self._etag = inference.result_id, inference.etag
                self._refused = None
                self._status.wants(self._wanted, self._etag)
                self._changed.notify_all()

    def switch(self) -> Model:
        """The successor answers from now on, unless it is no longer wanted; returns what answers."""
        with self._changed:
            if self._successor is not None:
                self._before.append(self.current)
                self._current, self._successor = self._successor, None
                self._changed.notify_all()
            return self.current

    def step(self) -> None:
        """One turn of the thread: lets go what no longer answers, and loads what is wanted."""
        self._end_unwanted()
        if (wanted := self._to_load()) == 0:
            return
        log.info("loading another model", extra={"result": wanted, "answering": self.current.result_id})
        self._status.cannot_load(None)
        etag = self._etag
        try:
            loaded = self._loader.load(wanted, self._ended, strict=True)
        except Cancelled:
            return
        except HeadraceError as error:
            if etag == self._etag:
                self._refuse(wanted, error)
            return
        with self._changed:
            self._successor = loaded

    def _run(self) -> None:
        while not self._ended.is_set():
            self.step()
            with self._changed:
                if not self._before and not self._to_load() and not self._ended.is_set():
                    self._changed.wait(IDLE_S)

    def _load_first(self, inference: Inference, stop: threading.Event) -> Model:
        before = inference.answering_result_id
        has_other = before not in (0, inference.result_id)
        try:
            return self._loader.load(inference.result_id, stop, strict=has_other)
        except Cancelled:
            raise
        except HeadraceError as error:
            if not has_other:
                raise
            self._refuse(inference.result_id, error)
        return self._loader.load(before, stop, strict=False)

    def _end_unwanted(self) -> None:
        with self._changed:
            unwanted, self._before = self._before, []
            if self._successor is not None and self._successor.result_id != self._wanted:
                unwanted.append(self._successor)
                self._successor = None
            if self._wanted == self.current.result_id:
                self._refused = None
                self._status.cannot_load(None)
        for model in unwanted:
            self._loader.end(model)

    def _to_load(self) -> int:
        """The result that is to be loaded now; 0: none."""
        present = self._successor or self.current
        refused = self._refused
        if self._wanted == present.result_id:
            return 0
        if refused is not None and refused.result_id == self._wanted and time.monotonic() < refused.retry_at:
            return 0
        return self._wanted

    def _refuse(self, result_id: int, error: HeadraceError) -> None:
        log.error("a model cannot be loaded", extra={"result": result_id, **logs.error_fields(error)})
        retry_at = float("inf") if is_permanent(error) else time.monotonic() + RETRY_S
        self._refused = Refused(result_id, retry_at)
        self._status.cannot_load(error)
