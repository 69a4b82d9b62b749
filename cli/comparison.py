"""Results side by side, as a table."""

from __future__ import annotations

from rich.text import Text

from cli import output
from headrace.v1 import result_collector_pb2

DIGEST_LENGTH = 12
DIFFERS = "≠"


def print_comparison(found: result_collector_pb2.CompareResultsResponse, *, only_differences: bool) -> None:
    """A row per property, a column per result; rows that differ are marked."""
    columns = ["", "", *(f"result {each.id}" for each in found.results)]
    rows = [_row(value) for value in found.values if value.differs or not only_differences]
    if rows:
        output.console.print(output.table(columns, rows))
    else:
        output.console.print("They differ in nothing.")


def _row(value: result_collector_pb2.ComparedValue) -> list[Text]:
    style = "bold yellow" if value.differs else ""
    cells = [DIFFERS if value.differs else "", value.name, *(_shown(value.name, each) for each in value.values)]
    return [Text(cell, style=style) for cell in cells]


def _shown(name: str, value: str) -> str:
    if name.startswith("metrics.") and value:
        return output.number(float(value))
    if name == "code_sha256":
        return value[:DIGEST_LENGTH]
    return value.replace(",", "\n") if name == "stream.ranges" else value
