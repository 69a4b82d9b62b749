"""The README's tour over REST: everything that a browser or curl needs, from a model to an answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np

from sinks import RawSink
from tests.e2e.conftest import Platform
from tests.support import eventually

CODE = """
model = keras.Sequential([keras.Input((8, 8)), layers.Flatten(), layers.Dense(10, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
"""


def test_a_model_is_trained_watched_asked_and_stopped_over_rest(platform: Platform) -> None:
    with httpx.Client(base_url=platform.url, timeout=120) as http:
        model = post(http, "/v1/models", name="rest", framework="FRAMEWORK_TENSORFLOW", code=CODE)
        configuration = post(http, "/v1/configurations", name="rest", modelIds=[model["id"]])
        settings = {"batchSize": 32, "tensorflow": {"fitArgs": "epochs=3"}}
        deployment = post(http, "/v1/deployments", configurationId=configuration["id"], settings=settings)
        with RawSink(platform.state.kafka, "rest", int(deployment["id"]), validation_rate=0.1) as sink:
            images = np.random.default_rng(0).integers(0, 17, (200, 8, 8), dtype=np.uint8)
            sink.send_batch(images, np.arange(200, dtype=np.int32) % 10)

        events = watch(http, f"/v1/deployments/{deployment['id']}:watch")
        assert [event["epoch"]["number"] for event in events if "epoch" in event] == [1, 2, 3]
        (result_id,) = deployment["resultIds"]
        result = http.get(f"/v1/results/{result_id}").json()
        assert result["state"] == "STATE_FINISHED"
        assert sum(int(part["end"]) - int(part["start"]) for part in result["stream"]["ranges"]) == 200
        download = http.get(f"/v1/results/{result_id}/artifacts/model.keras:download")
        assert len(download.content) == int(result["artifacts"][0]["sizeBytes"])
        assert "model.keras" in download.headers["content-disposition"]

        inference = post(
            http, "/v1/inferences", resultId=result_id, replicas=1, inputTopic="rest-in", outputTopic="rest-out"
        )
        path = f"/v1/inferences/{inference['id']}"
        eventually(lambda: http.get(path).json()["state"] == "INFERENCE_STATE_RUNNING", timeout_s=90)
        answer = post(http, f"{path}:predict", sample=[[0] * 8] * 8, wait="60s")
        assert abs(sum(answer["prediction"]["values"]) - 1) < 1e-3
        assert answer["prediction"]["model"] == "rest/1"
        post(http, f"{path}:stop")
        eventually(lambda: http.get(path).json()["state"] == "INFERENCE_STATE_STOPPED", timeout_s=60)


def test_what_is_wrong_is_answered_with_a_reason_and_what_would_be_right(platform: Platform) -> None:
    with httpx.Client(base_url=platform.url, timeout=120) as http:
        wrong = http.post(
            "/v1/models", json={"name": "wrong", "framework": "FRAMEWORK_TENSORFLOW", "code": "x = 1\nmodel = )"}
        )
        assert wrong.status_code == 400
        (info,) = [detail for detail in wrong.json()["details"] if detail["@type"].endswith("ErrorInfo")]
        assert info["reason"] == "CODE_ERROR"
        assert info["metadata"]["line"] == "2"
        assert http.get("/v1/models/999999").status_code == 404


def post(http: httpx.Client, path: str, **body: Any) -> Any:
    """The answer to a call that has to succeed."""
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def watch(http: httpx.Client, path: str) -> list[dict[str, Any]]:
    """All events until the training has ended."""
    with http.stream("GET", path) as response:
        return [json.loads(line)["result"] for line in response.iter_lines() if line]
