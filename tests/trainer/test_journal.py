import subprocess
import sys
from pathlib import Path

from headrace.v1.result_collector_pb2 import ReportRequest
from trainer.journal import Journal, read_journal


def append(journal: Journal, numbers: range) -> None:
    for seq in numbers:
        journal.append(ReportRequest(seq=seq))


def test_events_are_read_in_order_from_anywhere(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.journal") as journal:
        append(journal, range(5, 10))
        offset, seqs = journal.find(7), []
        while (found := journal.read(offset)) is not None:
            request, offset = found
            seqs.append(request.seq)
        assert seqs == [7, 8, 9]
        append(journal, range(10, 11))
        found = journal.read(offset)
        assert found is not None
        assert found[0].seq == 10


def test_what_another_process_left_can_be_read(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.journal") as journal:
        append(journal, range(1, 4))
        assert [event.seq for event in read_journal(journal.path)] == [1, 2, 3]


def test_an_end_that_is_not_whole_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    with Journal(path) as journal:
        append(journal, range(1, 3))
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[:-1] + b"\xff")
    assert [event.seq for event in read_journal(path)] == [1]


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "none.journal")) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from headrace.errors import ResourceExhausted
from headrace.v1.result_collector_pb2 import ReportRequest, StateChange
from trainer.journal import AHEAD_BYTES, Journal

resource.setrlimit(resource.RLIMIT_FSIZE, (AHEAD_BYTES, AHEAD_BYTES))
with Journal(Path(sys.argv[1])) as journal:
    seq = 1
    try:
        while True:
            journal.append(ReportRequest(seq=seq))
            seq += 1
    except ResourceExhausted as error:
        assert error.reason_name == "DISK_FULL"
    journal.append(ReportRequest(seq=seq, state_change=StateChange()), final=True)
print(seq)
"""


def test_a_full_disk_still_takes_the_final_event(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    *others, last = read_journal(path)
    assert last.HasField("state_change")
    assert len(others) + 1 == last.seq == int(done.stdout)
