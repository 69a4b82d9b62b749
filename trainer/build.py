"""The model is built in the worker while the records are read."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from headrace.errors import FieldViolation, HeadraceError, InvalidArgument
from headrace.v1 import error_pb2
from sandbox.session import Arguments, BuiltModel, WorkerSession
from trainer.ending import Ending
from trainer.wish import Wish

IMPORT_TIMEOUT_S = 600.0
BUILD_TIMEOUT_S = 300.0


@contextmanager
def building(session: WorkerSession, wish: Wish, ending: Ending) -> Iterator[Future[BuiltModel]]:
    """Builds the model on a thread of its own, inside the block; a failure ends the run wherever it is."""
    with ThreadPoolExecutor(1, thread_name_prefix="build") as pool:
        built = pool.submit(_build, session, wish)
        built.add_done_callback(partial(_end_on_failure, ending))
        try:
            yield built
        except BaseException:
            session.kill()
            raise


def _build(session: WorkerSession, wish: Wish) -> BuiltModel:
    session.wait_ready(IMPORT_TIMEOUT_S)
    arguments = session.check_arguments(wish.arguments.fit_args, wish.arguments.evaluate_args)
    if arguments.diagnostics:
        raise _wrong(arguments)
    return session.build(
        wish.result.imports,
        wish.result.code,
        seed=wish.settings.seed,
        trainable=True,
        timeout_s=BUILD_TIMEOUT_S,
    )


def _wrong(arguments: Arguments) -> InvalidArgument:
    """What is wrong with the arguments of `fit` and `evaluate`, and what would be right."""
    unknown = any(each.reason == "UNKNOWN_ARGUMENT" for each in arguments.diagnostics)
    return InvalidArgument(
        error_pb2.REASON_UNKNOWN_ARGUMENT if unknown else error_pb2.REASON_INVALID_FIELD,
        "; ".join(f"{each.file}: {each.message}" for each in arguments.diagnostics),
        fields=[FieldViolation(each.file, each.message) for each in arguments.diagnostics],
        known_fit_args=", ".join(arguments.known_fit_args),
        known_evaluate_args=", ".join(arguments.known_evaluate_args),
    )


def _end_on_failure(ending: Ending, built: Future[BuiltModel]) -> None:
    error = built.exception()
    # CANCELLED: the worker was killed, because the run has ended for another reason already.
    if isinstance(error, HeadraceError) and error.reason != error_pb2.REASON_CANCELLED:
        ending.end(error)
