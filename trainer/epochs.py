"""Epochs are told once: an attempt that goes on, or trains again, meets those that earlier attempts have told of."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.patience import Patience
from headrace.v1.result_collector_pb2 import ListEpochsRequest, ListEpochsResponse
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from headrace.v1.result_pb2 import Epoch
from trainer.report import Reporter
from trainer.settings import TrainerSettings

PAGE = 1000


class EpochReports:
    """Tells the collector of epochs, which come by number, but not of what it has got already."""

    def __init__(
        self, collector: ResultCollectorStub, reporter: Reporter, patience: Patience, settings: TrainerSettings
    ) -> None:
        self._collector, self._reporter, self._patience = collector, reporter, patience
        self._result_id = settings.result_id
        # The first attempt has none before it.
        self._stored = self._pages() if settings.attempt > 1 else iter(())

    def tell(self, epoch: Epoch) -> None:
        """Reports it, unless an earlier attempt has, with the same numbers.

        From the first that is new or differs on, everything is reported: the collector then drops what older attempts
        said from that number on.
        """
        stored = next(self._stored, None)
        if stored is None or not _are_equal(stored, epoch):
            self._stored = iter(())
            self._reporter.epoch(epoch)

    def _pages(self) -> Iterator[Epoch]:
        """What is stored, by number; asked for when it is needed."""
        request = ListEpochsRequest(result_id=self._result_id, page_size=PAGE)
        while True:
            page: ListEpochsResponse = self._patience.call(lambda: self._collector.ListEpochs(request))
            yield from page.epochs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def _are_equal(stored: Epoch, epoch: Epoch) -> bool:
    """By what was computed; bytes, because a NaN differs from itself."""
    return (stored.number, stored.step) == (epoch.number, epoch.step) and stored.metrics.SerializeToString(
        deterministic=True
    ) == epoch.metrics.SerializeToString(deterministic=True)
