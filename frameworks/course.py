"""The course of one training: where it is, whom it tells, and when it is written down. The same for every framework."""

from __future__ import annotations

import time
from collections.abc import Callable

from frameworks.checkpoints import START, Checkpoint, Checkpoints, Metrics, Position
from frameworks.framework import Events, Plan
from frameworks.tree import Tree, UnsavableError

# The state of a training at this moment; None: it is not worth keeping, because weights are no numbers any more.
TakeState = Callable[[], Tree | None]


class Course:
    """Begins where the newest checkpoint is, which is `resumed`, or at the start.

    A framework calls `step` after each of its steps and `epoch` after each epoch with its validation.
    """

    def __init__(self, plan: Plan, begin: Callable[[Plan], Events], checkpoints: Checkpoints | None) -> None:
        self._plan, self._checkpoints = plan, checkpoints
        self.resumed: Checkpoint | None = None if checkpoints is None else checkpoints.load()
        self.position = START if self.resumed is None else self.resumed.position
        self._trained_s = 0.0 if self.resumed is None else self.resumed.seconds
        self._began = time.monotonic()
        self._within_epochs = True
        self._events = begin(plan)
        self._events.begun(self.resumed)

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        return self.position.epoch >= self._plan.epochs

    def step(self, loss: float, count: int, take: TakeState) -> None:
        """`count` steps are done. Raises NAN_LOSS, DISK_FULL, and CANCELLED after a last checkpoint."""
        self.position = Position(self.position.epoch, self.position.step + count)
        self._events.step(loss, count)
        stops = self._events.stop_requested
        # The last step of an epoch belongs to its end, which comes after the validation.
        if self.position.step < self._plan.steps and self._within_epochs:
            self._write(take, stops=stops)
        if stops:
            self._events.stop()

    def epoch(self, metrics: Metrics, take: TakeState) -> None:
        """The epoch is over; its metrics by split."""
        self.position = Position(self.position.epoch + 1)
        if self._checkpoints is not None:
            self._checkpoints.remember(metrics)
        self._events.epoch(metrics)
        stops = self._events.stop_requested
        self._write(take, stops=stops)
        if stops:
            self._events.stop()

    def _write(self, take: TakeState, *, stops: bool) -> None:
        epoch_ended = self.position.step == 0
        if self._checkpoints is None or not (stops or self._checkpoints.due(epoch_ended=epoch_ended)):
            return
        try:
            state = take()
            if state is None:
                return
            self._checkpoints.write(self.position, self._trained_s + time.monotonic() - self._began, state)
        except UnsavableError as error:
            self._do_without(error, epoch_ended)
            return
        self._events.kept(self.position)

    def _do_without(self, error: UnsavableError, epoch_ended: bool) -> None:
        """A state that cannot be written down costs a resumed training more steps, never a wrong weight."""
        self._within_epochs = False
        if epoch_ended:
            self._checkpoints = None
        when = "no checkpoints are" if epoch_ended else "checkpoints are only at the ends of epochs"
        print(f"{when} written: the state of the training holds {error}")
