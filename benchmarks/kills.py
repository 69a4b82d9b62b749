"""What the long kill tests of trainings went through: `HEADRACE_CHAOS_SEED=7 make chaos` adds that part."""

from dataclasses import dataclass

from benchmarks import parts

INTRODUCTION = """\
Trainings of both frameworks with dropout, a checkpoint after every step, under a real control plane that starts them
again. Kills are SIGKILL: of trainers and of their workers at random moments, and of trainers at failpoints. What each
comes to is compared with an undisturbed training of the same seed: its weights to the last bit, and its epochs as a
watcher is told of them. Other is anything else that is not as promised: an epoch with other numbers, an attempt that
ended though nobody killed it. Since seed 11 the workers that are killed are forked from a process that has imported
the framework, which is most of what an attempt costs. A part may have been broken off for want of time.
"""


@dataclass
class Sums(parts.Sums):
    """What a run consisted of, and what was wrong."""

    trainings: int = 0
    trainer_kills: int = 0
    worker_kills: int = 0
    failpoint_kills: int = 0
    not_finished: int = 0
    other_weights: int = 0
    epochs_lost: int = 0
    epochs_doubled: int = 0
    other: int = 0

    @property
    def kills(self) -> int:
        """Processes that were killed."""
        return self.trainer_kills + self.worker_kills + self.failpoint_kills

    @property
    def wrong(self) -> int:
        """How much is not as promised."""
        return self.not_finished + self.other_weights + self.epochs_lost + self.epochs_doubled + self.other


PARTS = parts.Parts("trainings under kills", INTRODUCTION, Sums)
