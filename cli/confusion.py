"""A confusion matrix in the terminal."""

from __future__ import annotations

from rich.text import Text

from cli import output
from headrace.v1 import result_pb2

# More columns than this fit no terminal.
MOST_COLUMNS = 20
MOST_PAIRS = 20
LONGEST_LABEL = 16


def print_confusion(matrix: result_pb2.ConfusionMatrix) -> None:
    """The counts, a row per true class; of many classes those that were taken for each other most often."""
    if len(matrix.labels) <= MOST_COLUMNS:
        _print_matrix(matrix)
    else:
        _print_pairs(matrix)


def _print_matrix(matrix: result_pb2.ConfusionMatrix) -> None:
    labels = [label[:LONGEST_LABEL] for label in matrix.labels]
    rows = [
        [Text(label, style="bold"), *(_cell(count, is_right=row == column) for column, count in enumerate(counts))]
        for row, (label, counts) in enumerate(zip(labels, _rows(matrix), strict=True))
    ]
    output.console.print(output.table(["true \\ answered", *(f"#{label}" for label in labels)], rows))


def _cell(count: int, *, is_right: bool) -> Text:
    return Text(str(count), style="green" if is_right else "red" if count else "dim")


def _print_pairs(matrix: result_pb2.ConfusionMatrix) -> None:
    rows = _rows(matrix)
    pairs = [
        (count, matrix.labels[true], matrix.labels[answered], f"{count / sum(counts):.1%}")
        for true, counts in enumerate(rows)
        for answered, count in enumerate(counts)
        if count and true != answered
    ]
    right, total = sum(counts[true] for true, counts in enumerate(rows)), sum(map(sum, rows))
    output.console.print(
        f"{output.count(right)} of {output.count(total)} are right; taken for another class most often:"
    )
    output.print_table(
        ["#count", "true", "answered", "#of the true class"],
        sorted(pairs, key=lambda pair: -pair[0])[:MOST_PAIRS],
        empty="None was taken for another.",
    )


def _rows(matrix: result_pb2.ConfusionMatrix) -> list[list[int]]:
    size = len(matrix.labels)
    return [list(matrix.counts[row * size : (row + 1) * size]) for row in range(size)]
