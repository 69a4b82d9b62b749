"""The board of a training: its models side by side, live on a terminal, line by line elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli import output
from cli.following import ENDED
from headrace.v1 import deployment_pb2, result_pb2

CURVE_HEIGHT = 6
MIN_PANEL_WIDTH = 50
LINES_A_SECOND = 4
WITHOUT_STREAM = (deployment_pb2.STATE_CREATED, deployment_pb2.STATE_STARTING, deployment_pb2.STATE_WAITING)


@dataclass
class Card:
    """What is known of one result."""

    result: result_pb2.Result
    progress: result_pb2.Progress = field(default_factory=result_pb2.Progress)
    epochs: dict[int, result_pb2.SplitMetrics] = field(default_factory=dict)
    # Why it waits for a processor; empty when it does not.
    queue: str = ""
    # Of the last announcement for it, while it has no stream.
    refused: str = ""

    @property
    def name(self) -> str:
        return self.result.model_name or f"result {self.result.id}"


class Board:
    """Shows the results of a training while it runs. Feed it with `update`; leave the `with` block to end it."""

    def __init__(self, results: Iterable[result_pb2.Result] = ()) -> None:
        self.cards = {result.id: Card(result) for result in results}
        self._live: Live | None = None
        self._said: dict[int, int] = {}

    def __enter__(self) -> Board:
        if output.console.is_terminal:
            self._live = Live(self, console=output.console, refresh_per_second=LINES_A_SECOND, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, event: result_pb2.ResultEvent) -> None:
        """Take one event in; where there is no terminal, say it in a line."""
        card = self.cards.setdefault(event.result_id, Card(result_pb2.Result(id=event.result_id)))
        match event.WhichOneof("kind"):
            case "result":
                self._take_result(card, event.result)
            case "epoch":
                card.epochs[event.epoch.number] = event.epoch.metrics
                self._say(card, f"epoch {event.epoch.number} · {output.metrics_line(event.epoch.metrics)}")
            case "progress":
                if event.progress.waits_for not in ("", card.progress.waits_for):
                    self._say(card, f"waits: {event.progress.waits_for}")
                card.progress = event.progress
            case "queue":
                card.queue = event.queue.message
                self._say(card, card.queue)
            case "refused_announcement":
                card.refused = f"an announcement was refused: {output.refused_line(event.refused_announcement)}"
                self._say(card, card.refused)

    def results(self) -> list[result_pb2.Result]:
        return [card.result for card in self.cards.values()]

    def has_ended(self) -> bool:
        return bool(self.cards) and all(card.result.state in ENDED for card in self.cards.values())

    def __rich__(self) -> RenderableType:
        width = output.console.width // max(1, len(self.cards))
        panels = [_panel(card, width - 4) for card in self.cards.values()]
        if width < MIN_PANEL_WIDTH:
            return Group(*panels)
        grid = Table.grid(expand=True)
        for _ in panels:
            grid.add_column(ratio=1)
        grid.add_row(*panels)
        return grid

    def _take_result(self, card: Card, result: result_pb2.Result) -> None:
        changed = self._said.get(result.id) != result.state
        card.result = result
        card.queue = ""
        card.refused = card.refused if result.state in WITHOUT_STREAM else ""
        self._said[result.id] = result.state
        if result.HasField("progress"):
            card.progress = result.progress
        if changed:
            error = output.error_line(result.error)
            self._say(card, output.state_name(result.state) + (f": {error}" if error else ""))

    def _say(self, card: Card, text: str) -> None:
        if self._live is None:
            output.console.print(f"{card.name}: {text}", markup=False, soft_wrap=True)


def metric_curves(epochs: Mapping[int, result_pb2.SplitMetrics], metric: str) -> dict[str, list[float]]:
    """The metric's values epoch by epoch, for each split that has it."""
    splits: dict[str, list[float]] = {}
    for number in sorted(epochs):
        for split, metrics in epochs[number].splits.items():
            if metric in metrics.values:
                splits.setdefault(split, []).append(metrics.values[metric])
    return dict(sorted(splits.items()))


def _panel(card: Card, width: int) -> Panel:
    result = card.result
    title = Text.assemble((card.name, "bold"), " ", output.styled_state(output.state_name(result.state)))
    parts: list[RenderableType] = [Text(card.queue) if card.queue else _progress(card, width)]
    if card.epochs:
        last = card.epochs[max(card.epochs)]
        parts += [Text(f"{split}: {output.values_line(last.splits[split].values)}") for split in sorted(last.splits)]
        parts.append(output.curve(metric_curves(card.epochs, "loss"), width=max(20, width - 12), height=CURVE_HEIGHT))
    if card.refused:
        parts.append(Text(card.refused, style="yellow"))
    if error := output.error_line(result.error):
        parts.append(Text(error, style="bold red"))
    return Panel(Group(*parts), title=title, title_align="left")


def _progress(card: Card, width: int) -> RenderableType:
    done, total, text = _how_far(card)
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=max(1, total), completed=done, width=max(10, width - len(text) - 3)), Text(text))
    return grid


def _how_far(card: Card) -> tuple[float, float, str]:
    """(done, of, in words) of the phase that the result is in."""
    progress, state = card.progress, card.result.state
    if state == deployment_pb2.STATE_FINISHED:
        return 1, 1, f"version {card.result.version}"
    if state == deployment_pb2.STATE_READING and progress.waits_for:
        return 0, 1, f"waits: {progress.waits_for}"
    if state == deployment_pb2.STATE_READING and progress.records_total:
        text = (
            f"{output.count(progress.records_read)} of {output.count(progress.records_total)} records{_left(progress)}"
        )
        return progress.records_read, progress.records_total, text
    if progress.epochs and state >= deployment_pb2.STATE_TRAINING:
        within = progress.step / progress.steps if progress.steps else 0.0
        done = max(progress.epoch, max(card.epochs, default=0))
        rate = f", {output.count(progress.rows_per_second)} rows/s" if progress.rows_per_second else ""
        return (
            min(done + within, progress.epochs),
            progress.epochs,
            f"epoch {done} of {progress.epochs}{rate}{_left(progress)}",
        )
    return 0, 1, output.state_name(state)


def _left(progress: result_pb2.Progress) -> str:
    left = output.duration(progress.time_left)
    return f", {left} left" if left else ""
