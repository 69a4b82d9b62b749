"""Everything that is wrong with a request at once: what its JSON shows, and what the service finds in the rest."""

from collections.abc import Iterator, Sequence

from gateway import messages
from gateway.backend import Backend
from gateway.routes import Route
from gateway.transcode import WrongFields
from headrace.errors import FieldViolation, HeadraceError, InvalidArgument

# Methods that can check a request without acting on it have this field.
_ONLY_CHECK = "validate_only"
# The service looks at fields in milliseconds; what it would try after that (code, Kafka) can wait for a better request.
CHECK_S = 1.0


async def whole(wrong: WrongFields, backend: Backend, route: Route) -> InvalidArgument:
    """`wrong` with the wrong fields that the service finds; as it is where the method cannot only check."""
    if _ONLY_CHECK not in messages.type_of(wrong.rest).fields_by_name:
        return wrong
    setattr(wrong.rest, _ONLY_CHECK, True)
    try:
        await backend.call(route, wrong.rest, CHECK_S)
    except InvalidArgument as found:
        return WrongFields([*wrong.fields, *_others(found.fields, wrong.fields)], wrong.rest)
    except HeadraceError:
        pass
    return wrong


def _others(found: Sequence[FieldViolation], told: Sequence[FieldViolation]) -> Iterator[FieldViolation]:
    """Those of fields that were not told of: one that could not be read looks to the service as if it were missing."""
    names = [_plain(one.field) for one in told]
    for one in found:
        name = _plain(one.field)
        if not any(_is_within(name, known) or _is_within(known, name) for known in names):
            yield one


def _plain(field: str) -> str:
    """The same for batchSize and batch_size."""
    return field.replace("_", "").lower()


def _is_within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))
