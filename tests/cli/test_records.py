"""Files of numbers become samples and labels; what is wrong with a file is said by line and column."""

from pathlib import Path

import numpy as np
import pytest

from cli.records import read_records
from headrace.errors import InvalidArgument, Unimplemented


def _csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def test_a_csv_file_has_its_label_column_apart(tmp_path: Path) -> None:
    records = read_records(_csv(tmp_path, "a,class,b\n1,0,2.5\n3,2,4\n"), label="class")
    assert records.samples.dtype == np.float32
    np.testing.assert_array_equal(records.samples, [[1, 2.5], [3, 4]])
    assert records.labels is not None
    assert records.labels.dtype == np.int32
    assert records.labels.tolist() == [0, 2]


def test_labels_that_are_no_classes_stay_numbers(tmp_path: Path) -> None:
    records = read_records(_csv(tmp_path, "a,price\n1,0.5\n3,2\n"), label="price")
    assert records.labels is not None
    assert records.labels.dtype == np.float32


def test_without_a_label_every_column_is_a_sample(tmp_path: Path) -> None:
    records = read_records(_csv(tmp_path, "a,b\n1,2\n"))
    assert records.labels is None
    assert records.samples.shape == (1, 2)


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("a,b\n1,x\n", "", "line 2, column 'b': 'x' is no number"),
        ("a,b\n1,2\n3\n", "", "line 3: 1 values under a header of 2 columns"),
        ("a,b\n1,2\n", "c", "no column 'c'; it has: a, b"),
        ("a,b\n", "", "no rows"),
        ("", "c", "no header at all"),
    ],
)
def test_a_bad_csv_file_is_told_where(tmp_path: Path, text: str, label: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        read_records(_csv(tmp_path, text), label=label)
    assert said in error.value.message


def test_an_npz_file_keeps_types_and_shapes(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "digits.npz", x=images, y=np.array([1, 2], np.int32))
    records = read_records(tmp_path / "digits.npz")
    np.testing.assert_array_equal(records.samples, images)
    assert records.samples.dtype == np.uint8
    assert records.labels is not None
    assert records.labels.tolist() == [1, 2]


def test_an_npz_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidArgument):
        read_records(tmp_path / "objects.npz")


def test_as_many_labels_as_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", x=np.zeros((3, 2)), y=np.zeros(2))
    with pytest.raises(InvalidArgument, match="3 samples and 2 labels"):
        read_records(tmp_path / "odd.npz")


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="there is no file"):
        read_records(tmp_path / "nothing.csv")
    (tmp_path / "records.avro").write_bytes(b"Obj")
    with pytest.raises(Unimplemented):
        read_records(tmp_path / "records.avro")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InvalidArgument):
        read_records(tmp_path / "broken.npz")
