"""Units, error lines and curves as people read them."""

import pytest
from google.protobuf.duration_pb2 import Duration

from cli import output
from headrace.errors import InvalidArgument
from headrace.v1 import deployment_pb2, error_pb2, model_pb2, result_pb2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250 ms"), (1, "1 s"), (12.34, "12.3 s"), (60, "1 min"),
        (245, "4 min 5 s"), (12000, "3 h 20 min"), (1e6, "11 d"),
    ],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    assert output.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12 B"), (2048, "2.0 KiB"), (3 << 20, "3.0 MiB"), (5 << 40, "5120.0 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


def test_json_is_what_the_rest_api_prints() -> None:
    printed = output.to_dict(model_pb2.Model(id=7, name="digits", framework=model_pb2.FRAMEWORK_PYTORCH))
    assert printed["id"] == "7"
    assert printed["framework"] == "FRAMEWORK_PYTORCH"
    assert printed["upperModelId"] == "0"
    assert printed["codeSha256"] == ""


def test_states_and_durations() -> None:
    assert output.state_name(deployment_pb2.STATE_FINISHED) == "finished"
    assert output.duration(Duration(seconds=90)) == "1 min 30 s"
    assert output.duration(Duration()) == ""


def test_an_error_line_has_the_reason() -> None:
    error = InvalidArgument(error_pb2.REASON_CODE_ERROR, "line 3: invalid syntax")
    assert output.error_line(error.to_status()) == "CODE_ERROR: line 3: invalid syntax"
    assert output.error_line(result_pb2.Result().error) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad 13", "bad 13"),
        ("line 3:\n\n  ValueError:\r\n bad 13\n", "line 3: ValueError: bad 13"),
        ("x" * 80, "x" * 80),
        ("x" * 1000, "x" * 79 + "…"),
        ("", ""),
    ],
)
def test_a_long_text_is_one_short_line_in_a_table(text: str, shown: str) -> None:
    assert output.short(text) == shown


def test_a_table_that_goes_on_says_which_option_shows_more(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["id"], [["7"], ["6"]], empty="None.", more=True, option="--count")
    assert capsys.readouterr().err.strip() == "There are more; --count N shows more than 2."


def test_metrics_come_in_the_order_of_the_training() -> None:
    splits = result_pb2.SplitMetrics()
    splits.splits["test"].values["loss"] = 0.5
    splits.splits["training"].values["loss"] = 0.25
    splits.splits["training"].values["accuracy"] = 0.875
    assert output.metrics_line(splits) == "training accuracy 0.8750, loss 0.2500 · test loss 0.5000"


def test_a_curve_begins_at_the_top_left_and_ends_at_the_bottom_right() -> None:
    lines = output.curve({"loss": [1.0, 0.5, 0.0]}, width=20, height=5).plain.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("1.0000 │⠉")
    assert lines[4].startswith("0.0000 │")
    assert lines[4][-1] not in " ⠀"
    assert "epoch 3" in lines[5]
    assert "loss" in lines[6]


def test_a_curve_leaves_out_what_is_not_finite() -> None:
    text = output.curve({"loss": [float("nan"), 1.0, float("inf"), 0.5]}, width=20, height=4).plain
    assert text.startswith("1.0000")
    assert output.curve({"loss": [float("nan")]}).plain == "no values yet"
    assert output.curve({}).plain == "no values yet"
    assert output.curve({"loss": [0.5]}, width=20, height=4).plain
