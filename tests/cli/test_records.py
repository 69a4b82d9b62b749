"""Files of numbers become samples and labels; what is wrong with a file is said by its place."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pytest

from cli.files import Layout
from cli.records import FileRecords, Wishes, look_at, read_records
from headrace.errors import InvalidArgument

FIELDS = Wishes(by_name=True)


def _csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text)
    return path


def _json_lines(folder: Path, *lines: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def _avro(folder: Path, fields: dict[str, Any], *records: tuple[Any, ...]) -> Path:
    schema = {
        "type": "record",
        "name": "Row",
        "fields": [{"name": name, "type": kind} for name, kind in fields.items()],
    }
    path = folder / "rows.avro"
    with path.open("wb") as file:
        fastavro.writer(file, schema, [dict(zip(fields, values, strict=True)) for values in records])
    return path


def _fields(records: FileRecords) -> dict[str, Any]:
    (batch,) = records.batches()
    assert isinstance(batch.samples, dict)
    return batch.samples


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
    records = read_records(_csv(tmp_path, '"a","b"\n1,2\n\n 3 ,"4"\n'))
    assert records.labels is None
    np.testing.assert_array_equal(records.samples, [[1, 2], [3, 4]])


def test_the_type_of_a_column_is_that_of_all_its_values(tmp_path: Path) -> None:
    rows = [f"{number},{number}" for number in range(9000)] + ["0.25,7.5"]
    records = look_at(_csv(tmp_path, "\n".join(["a,class", *rows])), FIELDS, Wishes(["class"]))
    batches = list(records.batches())
    assert len(records) == sum(len(batch) for batch in batches) == 9001
    assert len(batches) > 1
    for batch in batches:
        assert isinstance(batch.samples, dict)
        assert isinstance(batch.labels, np.ndarray)
        assert batch.samples["a"].dtype == np.float64
        assert batch.labels.dtype == np.float32
    assert isinstance(batches[-1].samples, dict)
    assert batches[-1].samples["a"][-1] == 0.25


def test_columns_stay_apart_by_name_each_in_its_own_type(tmp_path: Path) -> None:
    path = _csv(tmp_path, "age,price,kind,grade\n7,1.5,2,0.5\n5000000000,2,3,1\n")
    records = look_at(path, FIELDS, Wishes(["kind", "grade"], by_name=True))
    (batch,) = records.batches()
    assert isinstance(batch.samples, dict)
    assert isinstance(batch.labels, dict)
    assert {name: array.dtype.name for name, array in batch.samples.items()} == {"age": "int64", "price": "float64"}
    assert {name: array.dtype.name for name, array in batch.labels.items()} == {"kind": "int32", "grade": "float64"}


def test_several_labels_of_raw_records_are_one_row(tmp_path: Path) -> None:
    records = look_at(_csv(tmp_path, "a,x,y\n1,2,3\n"), Wishes(), Wishes(["y", "x"]))
    (batch,) = records.batches()
    assert isinstance(batch.labels, np.ndarray)
    assert batch.labels.tolist() == [[3, 2]]


def test_whole_numbers_that_float32_would_change_are_kept(tmp_path: Path) -> None:
    records = read_records(_csv(tmp_path, "a\n16777217\n1\n"))
    assert records.samples.dtype == np.float64
    assert records.samples.tolist() == [[16777217], [1]]


def test_whole_numbers_that_no_integer_holds_are_floats(tmp_path: Path) -> None:
    samples = _fields(look_at(_csv(tmp_path, "a,b\n1e300,1e19\n1,2\n"), FIELDS, Wishes()))
    assert {name: array.dtype.name for name, array in samples.items()} == {"a": "float64", "b": "uint64"}
    assert samples["a"].tolist() == [1e300, 1]


def test_numbers_that_float32_would_make_infinite_stay_finite(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b,label\n0.5,2,0.5\n1e300,3,-1e39\n")
    records = read_records(path, label="label")
    assert records.samples.tolist() == [[0.5, 2], [1e300, 3]]
    assert records.labels is not None
    assert records.labels.tolist() == [0.5, -1e39]
    with pytest.raises(InvalidArgument, match=r"line 3, column 'a': 1e\+300 does not fit float32"):
        look_at(path, Wishes(data_type="float32"), Wishes(["label"]))
    np.savez(tmp_path / "large.npz", x=np.array([[1.0, 2.0], [3.0, 100_000.0]]))
    with pytest.raises(InvalidArgument, match=r"row 2, array 'x': 100000\.0 does not fit float16"):
        look_at(tmp_path / "large.npz", Wishes(data_type="float16"), Wishes())


def test_a_column_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    path = _csv(tmp_path, ",a,class\n0,5,1\n1,6,0\n")
    records = look_at(path, FIELDS, Wishes(["class"]), without=["column_1"])
    assert {name: array.tolist() for name, array in _fields(records).items()} == {"a": [5, 6]}


def test_columns_are_chosen_and_left_out(tmp_path: Path) -> None:
    path = _csv(tmp_path, "name,a,b,class\nSmith,1,2,0\nMiller,3,4,1\n")
    records = look_at(path, Wishes(["b", "a"]), Wishes(["class"]))
    assert next(records.batches()).samples.tolist() == [[2, 1], [4, 3]]  # type: ignore[union-attr]
    records = look_at(path, Wishes(), Wishes(["class"]), without=["name"])
    assert next(records.batches()).samples.tolist() == [[1, 2], [3, 4]]  # type: ignore[union-attr]


def test_type_and_shape_are_options(tmp_path: Path) -> None:
    wishes = Wishes(data_type="uint8", reshape="2 -1")
    records = look_at(_csv(tmp_path, "a,b,c,d,class\n1,2,3,255,1\n"), wishes, Wishes(["class"], data_type="int64"))
    (batch,) = records.batches()
    assert isinstance(batch.samples, np.ndarray)
    assert isinstance(batch.labels, np.ndarray)
    assert batch.samples.dtype == np.uint8
    assert batch.samples.tolist() == [[[1, 2], [3, 255]]]
    assert batch.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("samples", "labels", "said"),
    [
        (
            Wishes(["b"], data_type="uint8"),
            Wishes(),
            "line 5002, column 'b': 300.0 does not fit uint8, which takes whole numbers from 0 to 255",
        ),
        (Wishes(data_type="int32"), Wishes(), "line 5002, column 'a': 0.5 does not fit int32"),
        (Wishes(["b"], data_type="float16", by_name=True), Wishes(["a"], data_type="int8"), "line 5002, column 'a'"),
        (Wishes(data_type="bytes"), Wishes(), "unknown"),
        (Wishes(data_type="string"), Wishes(), "string is for texts; choose another --data-type"),
        (FIELDS, Wishes(["a"], data_type="string"), "string is for texts; choose another --label-type"),
        (Wishes(), Wishes(["a"], data_type="int32"), "choose another --label-type"),
        (Wishes(reshape="3"), Wishes(), "a sample has 2 numbers, which do not make the shape '3'"),
        (Wishes(reshape="2 two"), Wishes(), "'2 two' is no shape"),
        (Wishes(), Wishes(["a", "b"]), "say with --samples"),
    ],
)
def test_types_and_shapes_that_do_not_fit_are_told_before_anything_is_sent(
    tmp_path: Path, samples: Wishes, labels: Wishes, said: str
) -> None:
    rows = ["1,2"] * 5000 + ["0.5,300"]
    with pytest.raises(InvalidArgument) as error:
        look_at(_csv(tmp_path, "\n".join(["a,b", *rows])), samples, labels)
    assert said in error.value.message


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("a,b\n1,x\n", "", "line 2, column 'b': 'x' is no number"),
        ("a,b\n1,2\n3\n", "", "line 3: 1 values under a header of 2 columns"),
        ("a,b\n1,2,3\n4,5,6\n", "", "line 2: 3 values under a header of 2 columns"),
        ("a,b\n\n1,\n", "", "line 3, column 'b': '' is no number"),
        ("a,b\n" + "1,2\n" * 9000 + "1,red\n", "", "line 9002, column 'b': 'red' is no number"),
        ("a,b\n1,9007199254740993\n", "", "line 2, column 'b': '9007199254740993' has more digits"),
        ("a,b\n1,2\n\n1,-1e400\n", "", "line 4, column 'b': '-1e400' is too large for 64 bits"),
        ("a,b\n1,0\n2,nan\n", "b", "line 3, column 'b': nan is no label"),
        ("a,b\n1,1_000\n", "", "line 2, column 'b': '1_000' is no number"),
        ("a,b\n1,١٢\n", "", "line 2, column 'b': '١٢' is no number"),
        ("1,2\n3,4\n", "", "--no-header names the columns c1, c2"),
        ("a;b\n1;2\n", "", "'a;b'; try --delimiter ';'"),
        ("a\tb\n1\t2\n", "", "try --delimiter tab"),
        ("a,b\n1,2\n", "c", "no column 'c'; it has: a, b"),
        ("a,a\n1,2\n", "", "several columns 'a'"),
        ("a,b\n", "", "no rows"),
        ("", "c", "is empty"),
        ("", "", "is empty"),
    ],
)
def test_a_bad_csv_file_is_told_where(tmp_path: Path, text: str, label: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        read_records(_csv(tmp_path, text), label=label)
    assert said in error.value.message


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_without_a_header_has_numbered_columns(tmp_path: Path, delimiter: str) -> None:
    path = _csv(tmp_path, "1,2,0\n\n3,1e3,1\n".replace(",", delimiter))
    records = read_records(path, label="c3", layout=Layout(delimiter, header=False))
    assert records.samples.tolist() == [[1, 2], [3, 1000]]
    assert records.labels is not None
    assert records.labels.tolist() == [0, 1]


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "is UTF-16; save it as UTF-8"), ("latin-1", "Latin-1")])
def test_a_csv_file_of_another_encoding_is_told(tmp_path: Path, encoding: str, said: str) -> None:
    for text in ("größe,b\n1,2\n", "a,b\n" + "1,2\n" * 9000 + "1,größe\n"):
        (tmp_path / "rows.csv").write_bytes(text.encode(encoding))
        with pytest.raises(InvalidArgument, match=said):
            read_records(tmp_path / "rows.csv")


def test_json_objects_are_columns_and_arrays_are_rows(tmp_path: Path) -> None:
    lines = [{"a": 1, "pair": [0.5, 2], "ok": True, "class": 3}, {"class": 4, "a": 2, "pair": [3, 4], "ok": False}]
    path = _json_lines(tmp_path, lines[0], "", lines[1])
    samples = _fields(look_at(path, FIELDS, Wishes(["class"])))
    assert {name: array.tolist() for name, array in samples.items()} == {
        "a": [1, 2], "pair": [[0.5, 2], [3, 4]], "ok": [True, False],
    }  # fmt: skip
    assert samples["ok"].dtype == np.bool_
    records = read_records(path, label="class")
    assert records.samples.tolist() == [[1, 0.5, 2, 1], [2, 3, 4, 0]]
    assert read_records(_json_lines(tmp_path, [[1, 2], [3, 4]])).samples.tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"a": 1}', "{a: 1}"], "line 2: no JSON"),
        (['{"a": NaN}'], "NaN is no JSON number"),
        (['{"a": 1}', '{"b": 1}'], "line 2: it has no field 'a'"),
        (['{"a": 1}', '{"a": 1, "b": 2}'], "line 2: the first line has no field 'b'; choose with --samples"),
        (['{"a": 1}', "[1]"], "line 2: no object"),
        (["[1]", '{"a": 1}'], "line 2: an object"),
        (['{"a": 1}', '{"a": "red"}'], "line 2, field 'a': 'red' is no number"),
        (['{"a": 1}', '{"a": null}'], "line 2, field 'a': 'None' is no number"),
        (['{"a": [1, 2]}', '{"a": [1]}'], "line 2, field 'a': '[1]' has the shape (1,), where others have (2,)"),
        (['{"a": 1}', "", '{"a": 1e400}'], "line 3, field 'a': a number is too large for 64 bits"),
        (['{"a": [1, 2]}', '{"a": [1, -1e400]}'], "line 2, field 'a': a number is too large for 64 bits"),
        (['{"a": 9007199254740993}', '{"a": 0.5}'], "line 1, field 'a': '9007199254740993' has more digits"),
        (['{"a": 5}', '{"a": [9007199254740993]}'], "line 2, field 'a'"),
        (['{"a": 5}', '{"a": 9007199254740993}'], "line 2, field 'a': '9007199254740993' has more digits"),
        (["[" * 100_000], "line 1: no JSON"),
        (["{}"], "line 1: an object without fields"),
        ([""], "no lines"),
    ],
)
def test_bad_json_lines_are_told_where(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        read_records(_json_lines(tmp_path, *lines))
    assert said in error.value.message


def test_an_avro_file_keeps_its_types(tmp_path: Path) -> None:
    kinds = {"a": "int", "b": ["null", "float"], "c": {"type": "array", "items": "double"}, "name": "string",
             "class": "long"}  # fmt: skip
    path = _avro(tmp_path, kinds, (1, 0.5, [1.0, 2.0], "x", 3), (2, 1.5, [3.0, 4.0], "y", 4))
    records = look_at(path, FIELDS, Wishes(["class"]), without=["name"])
    samples = _fields(records)
    assert {name: array.dtype.name for name, array in samples.items()} == {"a": "int32", "b": "float32", "c": "float64"}
    assert samples["c"].tolist() == [[1, 2], [3, 4]]
    labels = next(records.batches()).labels
    assert isinstance(labels, np.ndarray)
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("kinds", "records", "said"),
    [
        ({"name": "string"}, [("x",)], "field 'name': of the type 'string'"),
        ({"a": ["null", "int"]}, [(1,), (None,)], "record 2, field 'a': it is null"),
        ({"a": ["null", "int"]}, [(None,)], "record 1, field 'a': it is null"),
        ({"a": ["null", "double"]}, [(1.5,), (None,)], "record 2, field 'a': it is null"),
        ({"a": ["null", "boolean"]}, [(True,), (None,)], "record 2, field 'a': it is null"),
        ({"a": {"type": "array", "items": ["null", "float"]}}, [([1.0, None],)], "record 1, field 'a': a number of"),
        ({"a": {"type": "array", "items": "int"}}, [([1, 2],), ([1],)], "record 2, field 'a': an array of another"),
        ({"a": {"type": "int", "logicalType": "date"}}, [(1,)], "field 'a'"),
        ({"a": "int"}, [], "no records"),
    ],
)
def test_avro_records_that_are_no_numbers_are_told_where(
    tmp_path: Path, kinds: dict[str, Any], records: list[tuple[Any, ...]], said: str
) -> None:
    with pytest.raises(InvalidArgument) as error:
        read_records(_avro(tmp_path, kinds, *records))
    assert said in error.value.message


def test_a_damaged_avro_file_is_told(tmp_path: Path) -> None:
    path = _avro(tmp_path, {"a": "double"}, *[(number / 7,) for number in range(5000)])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InvalidArgument, match="damaged"):
        read_records(path)
    path.write_bytes(b"Obj")
    with pytest.raises(InvalidArgument, match="no Avro container"):
        read_records(path)


def test_an_npz_file_keeps_types_and_shapes(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(tmp_path / "digits.npz", x=images, y=np.array([1, 2], ">i4"))
    records = read_records(tmp_path / "digits.npz")
    np.testing.assert_array_equal(records.samples, images)
    assert records.samples.dtype == np.uint8
    assert records.labels is not None
    assert records.labels.dtype == np.int32
    assert records.labels.tolist() == [1, 2]


def test_an_npy_file_has_samples_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(20_000).reshape(10_000, 2))
    records = look_at(tmp_path / "rows.npy", FIELDS, Wishes())
    rows = [batch.samples for batch in records.batches()]
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(20_000).reshape(10_000, 2))  # type: ignore[arg-type]


def test_an_npz_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InvalidArgument):
        read_records(tmp_path / "objects.npz")


def test_as_many_labels_as_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", x=np.zeros((3, 2)), y=np.zeros(2))
    with pytest.raises(InvalidArgument, match="3 in 'x', 2 in 'y'"):
        read_records(tmp_path / "odd.npz")


def test_arrays_with_names_of_their_own_are_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", pictures=np.zeros((3, 2)), sizes=np.ones(3))
    with pytest.raises(InvalidArgument, match="--samples"):
        read_records(tmp_path / "odd.npz")
    assert read_records(tmp_path / "odd.npz", samples="pictures").samples.shape == (3, 2)


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="there is no file"):
        read_records(tmp_path / "nothing.csv")
    with pytest.raises(InvalidArgument, match="folder"):
        read_records(tmp_path)
    (tmp_path / "records.txt").write_text("1")
    with pytest.raises(InvalidArgument, match=r"\.csv, \.jsonl"):
        read_records(tmp_path / "records.txt")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InvalidArgument):
        read_records(tmp_path / "broken.npz")


def test_a_file_that_changes_while_it_is_read_is_not_rounded(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,class\n1,2\n")
    records = look_at(path, Wishes(), Wishes(["class"]))
    path.write_text("a,class\n1,2.5\n")
    with pytest.raises(InvalidArgument, match="has changed"):
        list(records.batches())


def test_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    line = ",".join(f"{number / 7:.6f}" for number in range(50)) + "\n"
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write(",".join(f"c{number}" for number in range(50)) + "\n")
        for _ in range(60):
            file.write(line * 1000)
    program = (
        "import resource, sys; from pathlib import Path; from cli.records import *\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "records = look_at(Path(sys.argv[1]), Wishes(), Wishes(['c0']))\n"
        "assert sum(map(len, records.batches())) == len(records) == 60_000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < path.stat().st_size


def test_names_are_made_plain_for_formats_that_have_no_others(tmp_path: Path) -> None:
    path = _csv(tmp_path, "mean radius,2nd,class\n1,2,3\n")
    wishes = Wishes(by_name=True, plain_names=True)
    assert list(_fields(look_at(path, wishes, Wishes(["class"])))) == ["mean_radius", "_2nd"]
    with pytest.raises(InvalidArgument, match="'a b' and 'a-b' would both be the field a_b"):
        look_at(_csv(tmp_path, "a b,a-b\n1,2\n"), wishes, Wishes())
