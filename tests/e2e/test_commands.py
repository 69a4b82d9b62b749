"""The commands against a real platform: what a user does by hand, and what goes wrong for him."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest

from cli.demo import examples_folder
from streams import control
from streams.kafka import KafkaSettings
from streams.writer import BatchProducer
from tests.e2e.conftest import Platform
from tests.support import eventually


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 points around three centres, as a CSV file: easy to learn in a few epochs."""
    random = np.random.default_rng(7)
    labels = random.integers(0, 3, 300)
    centres = np.array([[0, 0], [4, 0], [0, 4]])
    points = centres[labels] + random.normal(0, 0.4, (300, 2))
    path = tmp_path_factory.mktemp("blobs") / "blobs.csv"
    rows = [f"{x:.4f},{y:.4f},{label}" for (x, y), label in zip(points, labels, strict=True)]
    path.write_text("\n".join(["x,y,class", *rows]) + "\n")
    return path


CODE = """\
model = keras.Sequential([
    keras.Input((2,)),
    layers.Dense(16, activation="relu"),
    layers.Dense(3, activation="softmax"),
])
model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
"""


@pytest.fixture(scope="module")
def trained(platform: Platform, blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The id of a result, trained by commands alone."""
    code = tmp_path_factory.mktemp("code") / "blobs.py"
    code.write_text(CODE)
    platform.done("model", "create", "blobs", "--framework", "tensorflow", "--code", str(code))
    platform.done("configuration", "create", "blobs", "blobs")
    deployment = platform.json("train", "blobs", "--fit", "epochs=8", "--batch-size", "16", "--confusion-matrix")
    platform.done(
        "send", str(blobs), "--topic", "blobs", "--deployment", deployment["id"], "--label", "class",
        "--validation-rate", "0.2",
    )  # fmt: skip
    result_id = int(deployment["resultIds"][0])
    watched = platform.done("result", "watch", str(result_id), timeout_s=180)
    assert "blobs: finished" in watched
    return result_id


def test_a_result_shows_its_lineage_and_its_curves(platform: Platform, trained: int) -> None:
    shown = platform.done("result", "show", str(trained))
    assert re.search(r"blobs:0:\d+:\d+", shown)
    assert "240 for training, 60 for validation" in shown
    assert "epoch 8" in shown
    assert re.search(r"seed = \d+", shown)
    assert "tensorflow.fitArgs = epochs=8" in shown
    result = platform.json("result", "show", str(trained))
    assert result["state"] == "STATE_FINISHED"
    assert result["splitSizes"] == {"training": "240", "validation": "60", "test": "0"}
    assert result["metrics"]["splits"]["validation"]["values"]["accuracy"] > 0.9


def test_results_are_listed(platform: Platform, trained: int) -> None:
    assert "blobs" in platform.done("result", "list", "--model", "blobs", "--state", "finished")


def test_an_alias_is_moved_and_its_history_is_told(platform: Platform, trained: int) -> None:
    version = platform.json("result", "show", str(trained))["version"]
    said = platform.done("model", "alias", "set", "blobs", "champion", f"v{version}")
    assert f"version {version} (result {trained})" in said
    assert "champion" in platform.done("model", "alias", "list", "blobs")
    assert "champion" in platform.done("model", "versions", "blobs")
    late = platform.headrace("model", "alias", "set", "blobs", "champion", str(trained), "--expect", "0")
    assert late.returncode == 1
    assert "STALE_ETAG" in late.stderr
    assert re.search(r"champion .* now", platform.done("model", "alias", "history", "blobs"))
    with httpx.Client(base_url=platform.url) as http:
        (period,) = http.get(f"/v1/models/{model_id(platform)}/aliasPeriods", params={"alias": "champion"}).json()[
            "periods"
        ]
    assert period["resultId"] == str(trained)
    platform.done("model", "alias", "delete", "blobs", "champion", "--expect", str(trained))
    assert re.search(r"champion .* then deleted", platform.done("model", "alias", "history", "blobs", "champion"))
    assert platform.headrace("model", "alias", "set", "blobs", "champion", "newest").returncode == 2


def model_id(platform: Platform) -> str:
    shown: str = platform.json("model", "show", "blobs")["id"]
    return shown


def test_a_confusion_matrix_is_shown_and_drawn(platform: Platform, trained: int, tmp_path: Path) -> None:
    picture = tmp_path / "confusion.png"
    printed = platform.done("result", "confusion", str(trained), "--out", str(picture))
    counts = platform.json("result", "confusion", str(trained))["counts"]
    assert sum(map(int, counts)) == 60
    assert all(count in printed for count in counts)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with httpx.Client(base_url=platform.url) as http:
        answer = http.get(f"/v1/results/{trained}:confusionMatrix")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == picture.read_bytes()


def test_areas_under_curves_are_shown_and_drawn(platform: Platform, trained: int, tmp_path: Path) -> None:
    picture = tmp_path / "roc.png"
    printed = platform.done("result", "roc", str(trained), "--out", str(picture))
    curves = platform.json("result", "roc", str(trained))["curves"]
    assert [curve["label"] for curve in curves] == ["0", "1", "2"]
    assert all(f"{curve['auc']:.4f}" in printed for curve in curves)
    assert "on the validation split" in platform.done("result", "show", str(trained))
    with httpx.Client(base_url=platform.url) as http:
        assert http.get(f"/v1/results/{trained}:roc").content == picture.read_bytes()
    refused = platform.headrace("result", "residuals", str(trained))
    assert (refused.returncode, "no residuals" in refused.stderr) == (1, True)


def test_an_export_is_made_once_and_downloaded_alone_or_with_all(
    platform: Platform, trained: int, tmp_path: Path
) -> None:
    import onnxruntime

    printed = platform.done("result", "export", str(trained), "onnx", "--to", str(tmp_path), timeout_s=180)
    assert "model.onnx" in printed
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    shape = [size if isinstance(size, int) else 5 for size in session.get_inputs()[0].shape]
    (answers,) = session.run(None, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})
    assert len(answers) == 5
    with httpx.Client(base_url=platform.url) as http:
        again = http.post(f"/v1/results/{trained}:export", json={"format": "onnx"}).json()
        assert again["sha256"] == hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
        answer = http.get(f"/v1/results/{trained}:download")
    assert answer.headers["content-type"] == "application/zip"
    platform.done("result", "download", str(trained), "--all", "--to", str(tmp_path / "all.zip"))
    assert (tmp_path / "all.zip").read_bytes() == answer.content
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert {"README.md", "model.py", "model.onnx"} < set(archive.namelist())


def test_a_result_trained_again_differs_in_nothing_but_its_version(platform: Platform, trained: int) -> None:
    printed = platform.done("train", "--from-result", str(trained), "--wait", timeout_s=180)
    assert "blobs: finished" in printed
    again = platform.json("result", "list", "--limit", "1")["results"][0]["id"]
    compared = platform.json("result", "compare", str(trained), again)
    assert {value["name"] for value in compared["values"] if value["differs"]} == {"version"}
    printed = platform.done("result", "compare", str(trained), again)
    assert re.search(r"≠ +version", printed)
    assert "metrics.validation.loss" in printed
    assert "validation loss" in printed
    with httpx.Client(base_url=platform.url) as http:
        answer = http.get("/v1/results:compare", params={"resultIds": [trained, again]})
    assert answer.json()["values"] == compared["values"]


def test_a_model_is_downloaded_whole(platform: Platform, trained: int, tmp_path: Path) -> None:
    platform.done("result", "download", str(trained), "--to", str(tmp_path))
    artifact = platform.json("result", "show", str(trained))["artifacts"][0]
    assert (tmp_path / artifact["name"]).stat().st_size == int(artifact["sizeBytes"])


def test_a_recorded_stream_trains_again(platform: Platform, trained: int) -> None:
    stream = platform.json("result", "show", str(trained))["stream"]
    assert "available" in platform.done("stream", "show", stream["id"])
    ended = platform.done("train", "blobs", "--fit", "epochs=1", "--stream", stream["id"], "--wait", timeout_s=180)
    assert "blobs: finished" in ended


def test_the_head_of_a_stream_is_what_the_file_has(platform: Platform, trained: int, blobs: Path) -> None:
    stream = platform.json("result", "show", str(trained))["stream"]["id"]
    first = [float(number) for number in blobs.read_text().splitlines()[1].split(",")]
    head = platform.json("stream", "head", stream, "--count", "2")
    assert head["records"][0]["sample"] == pytest.approx(first[:2])
    assert head["records"][0]["label"] == first[2:]
    assert "sample float32 (2)" in platform.done("stream", "head", stream)


def test_what_is_in_kafka_already_is_announced_and_trained_on(platform: Platform, trained: int) -> None:
    deployment = platform.json("train", "blobs", "--fit", "epochs=1", "--batch-size", "16")
    words = [
        "stream", "announce", "--topic", "blobs", "--deployment", deployment["id"], "--since", "1h", "--format", "raw",
        "--config", "data_type=float32", "--config", "label_type=int32", "--validation-rate", "0.2",
    ]  # fmt: skip
    assert "nothing was announced" in platform.done(*words, "--dry-run")
    announced = platform.json(*words)
    watched = platform.done("result", "watch", deployment["resultIds"][0], timeout_s=180)
    assert "blobs: finished" in watched
    result = platform.json("result", "show", deployment["resultIds"][0])
    assert result["stream"]["ranges"] == announced["ranges"]
    assert sum(map(int, result["splitSizes"].values())) == 300


def test_an_inference_answers_a_file(platform: Platform, trained: int, blobs: Path) -> None:
    created = platform.json("infer", str(trained), "-i", "blobs-in", "-o", "blobs-out", "--name", "blobs-live")
    assert created["state"] == "INFERENCE_STATE_RUNNING"
    printed = platform.done("predict", "blobs-live", str(blobs), "--label", "class")
    right = re.search(r"(\d+) of 300 are right", printed)
    assert right is not None
    assert int(right[1]) > 270
    assert "blobs-live" in platform.done("inference", "list")
    none = platform.done("inference", "dead-letters", "blobs-live", "--reason", "DECODE_ERROR")
    assert "There are no dead letters of blobs-in with the reason DECODE_ERROR." in none
    assert platform.json("inference", "scale", "blobs-live", "2")["replicas"] == 2
    refused = platform.headrace("inference", "delete", "blobs-live")
    assert refused.returncode == 1
    assert platform.json("inference", "stop", "blobs-live")["state"] == "INFERENCE_STATE_STOPPED"
    assert "No replica runs." in platform.done("inference", "show", "blobs-live")
    again = ["infer", str(trained), "-i", "blobs-in", "-o", "blobs-out", "--after", "blobs-live", "--no-wait"]
    following = platform.json(*again)
    assert sum(map(int, following["startOffsets"].values())) == 300
    platform.done("inference", "stop", following["id"])
    platform.done("inference", "delete", "blobs-live")


def test_a_refused_announcement_is_shown_by_the_training_that_waits(platform: Platform, trained: int) -> None:
    waits = int(platform.json("train", "blobs")["id"])
    with BatchProducer(KafkaSettings(platform.state.kafka)) as producer:
        producer.produce(control.CONTROL_TOPIC, control.deployment_key(waits), b'{"topic": "blobs:0:9:5"}')
        producer.flush()
    shown = eventually(lambda: platform.json("deployment", "show", str(waits))["refusedAnnouncement"], timeout_s=60)
    assert "blobs:0:9:5" in shown["error"]["message"]
    printed = platform.done("deployment", "show", str(waits))
    assert "INVALID_RANGE" in printed
    assert f"{control.CONTROL_TOPIC}/0/{shown['source']['offset']}" in printed
    platform.done("deployment", "delete", str(waits), "--force")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["model", "show", "nobody"], 3, "nobody"),
        (["result", "show", "4711"], 3, "4711"),
        (["train", "nothing"], 3, "nothing"),
        (["train"], 2, "--from-result"),
        (["train", "blobs", "--from-result", "1"], 2, "--from-result"),
        (["train", "--from-result", "1", "--fit", "epochs=2"], 2, "--from-result"),
        (["train", "--from-result", "4711"], 3, "4711"),
        (["result", "compare", "4711", "4712"], 3, "4711"),
        (["model", "alias", "set", "blobs", "champion", "v4711"], 3, "4711"),
        (["model", "delete", "blobs"], 1, "configuration"),
        (["train", "blobs", "--fit", "epoch=5"], 1, "epochs"),
        (["train", "blobs", "--fit", "epochs=print(1)"], 1, "literal"),
        (["configuration", "create", "blobs", "blobs"], 1, "blobs"),
        (["infer", "4711", "-i", "a", "-o", "b"], 3, "4711"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence(
    platform: Platform, trained: int, words: list[str], code: int, said: str
) -> None:
    done = platform.headrace(*words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_code_is_said_with_its_line(platform: Platform, tmp_path: Path) -> None:
    code = tmp_path / "wrong.py"
    code.write_text("x = 1\nmodel = keras.Sequential([)\n")
    done = platform.headrace("model", "create", "wrong", "-f", "tensorflow", "--code", str(code))
    assert done.returncode == 1
    assert "line 2" in done.stderr


def test_a_second_platform_in_the_same_home_is_told_of_the_first(platform: Platform) -> None:
    done = platform.headrace("up")
    assert done.returncode == 1
    assert str(platform.state.supervisor_pid) in done.stderr


def test_a_port_in_use_is_told_with_its_option(platform: Platform, tmp_path: Path) -> None:
    port = platform.state.gateway.rpartition(":")[2]
    done = platform.headrace("up", "--gateway-port", port, environment={"HEADRACE_HOME": str(tmp_path / "other")})
    assert done.returncode == 1
    assert port in done.stderr
    assert "--gateway-port" in done.stderr


def test_status_shows_every_service(platform: Platform) -> None:
    printed = platform.done("status")
    for name in ("control plane", "gateway", "logger", "broker", "tensorflow executor", "pytorch executor"):
        assert name in printed
    assert json.loads(platform.done("status", "--json"))["ready"] is True


def test_the_examples_are_models_that_build(platform: Platform) -> None:
    for framework, file in (("tensorflow", "keras_model.py"), ("pytorch", "torch_model.py")):
        code = str(examples_folder() / file)
        platform.done("model", "create", "checked", "-f", framework, "--code", code, "--validate-only")


def test_records_for_a_training_that_takes_none_are_sent_with_a_warning(
    platform: Platform, trained: int, blobs: Path
) -> None:
    def sent(deployment: str) -> str:
        done = platform.headrace("send", str(blobs), "-t", "blobs-late", "-d", deployment, "-l", "class")
        assert done.returncode == 0, done.stderr
        assert "Sent 300 records" in done.stdout
        return done.stderr

    finished = platform.json("result", "show", str(trained))["deploymentId"]
    assert f"deployment {finished} is finished" in sent(finished)
    assert "there is no deployment 4711" in sent("4711")
    waits = platform.json("train", "blobs")["id"]
    assert sent(waits) == ""
    platform.done("deployment", "delete", waits, "--force")
    assert f"there is no deployment {waits}" in sent(waits)


def test_ctrl_c_while_a_training_is_watched_says_that_it_goes_on(platform: Platform, trained: int) -> None:
    with platform.started("train", "blobs", "--wait") as watching:
        waits = eventually(lambda: platform.json("deployment", "list", "--state", "waiting")["deployments"])[0]["id"]
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert f"headrace deployment cancel {waits}" in said
    assert platform.json("deployment", "show", waits)["state"] == "STATE_WAITING"
    platform.done("deployment", "delete", waits, "--force")


def test_a_demo_leaves_a_platform_running_that_it_did_not_start(platform: Platform) -> None:
    told = platform.headrace("demo", "--exit", timeout_s=600)
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}\n{platform.logs()}"
    assert "stays up" in told.stdout
    platform.done("status")
    mine = [each for each in platform.json("inference", "list")["inferences"] if each["name"].startswith("digits-")]
    assert [each["state"] for each in mine] == ["INFERENCE_STATE_STOPPED"] * 2
