"""`headrace demo`: the whole story on real data, from code to answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, cast

import grpc
import numpy as np
import numpy.typing as npt
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.text import Text

from cli import output
from cli.connection import VALIDATION_TIMEOUT_S, control_plane
from cli.deployment import watch_deployment
from cli.home import PlatformState, home_folder, running_state, supervisor_pid
from cli.inference import await_running, create_inference, stop_inference
from cli.options import BrokerPort, GatewayPort, LoggerPort, PlatformKafka, Port, PytorchPort, TensorflowPort
from cli.platform import addresses, check_ports, down, start_platform
from cli.predict import best, input_encoding
from cli.result import range_lines
from cli.supervisor import FRAMEWORKS, Ports
from headrace.errors import DeadlineExceeded, FailedPrecondition, from_status
from headrace.v1 import (
    configuration_pb2,
    deployment_manager_pb2,
    deployment_pb2,
    error_pb2,
    inference_pb2,
    model_pb2,
    model_registry_pb2,
    result_collector_pb2,
    result_pb2,
)
from headrace.v1.deployment_manager_pb2_grpc import DeploymentManagerStub
from headrace.v1.model_registry_pb2_grpc import ModelRegistryStub
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub
from sinks import InferenceSink, RawSink
from streams.kafka import KafkaSettings, ensure_topics

EXIT_FAILED = 1
MODELS = {
    "digits-keras": (model_pb2.FRAMEWORK_TENSORFLOW, "keras_model.py"),
    "digits-torch": (model_pb2.FRAMEWORK_PYTORCH, "torch_model.py"),
}
CONFIGURATION = "digits"
TOPIC = "digits"
KEPT_OUT = 180
SPLIT_SEED = 20
EPOCHS = 15
BATCH_SIZE = 32
REPLICAS = 2
PARTITIONS = 4
GOAL = 0.9
# The whole training; a wait for the stream does not count.
TRAINING_DEADLINE_S = 300
# With the wait for the stream.
WATCH_TIMEOUT_S = 900.0
ANSWER_TIMEOUT_S = 60.0
# After the last answer: time for one too many to appear.
SETTLE_S = 1.0


@dataclass(frozen=True)
class Digits:
    """images: (n, 8, 8) uint8 with values 0 to 16; labels: (n,) int32."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Answers:
    """What came for each image: `by_topic[topic][number]` are the answers to image `number`, each its bytes."""

    by_topic: dict[str, list[list[bytes]]]
    seconds: float = 0.0


def demo(
    leave: Annotated[bool, typer.Option("--exit", help="Stop at the end what it started.")] = False,
    kafka: PlatformKafka = "",
    port: Port = 8070,
    gateway_port: GatewayPort = 8080,
    tensorflow_port: TensorflowPort = 8071,
    pytorch_port: PytorchPort = 8072,
    logger_port: LoggerPort = 8073,
    broker_port: BrokerPort = 9092,
) -> None:
    """Start the platform and tell the whole story: two models learn from one stream and then answer a topic."""
    _check_installed()
    ports = Ports(port, tensorflow_port, pytorch_port, logger_port, gateway_port, broker_port)
    check_ports(ports, kafka)
    home = home_folder()
    with _platform(home, ports, kafka) as (state, is_ours):
        os.environ["HEADRACE_ADDRESS"] = state.address
        with control_plane() as channel:
            story = Story(channel, state)
            try:
                good = story.tell()
            finally:
                if leave and not is_ours:
                    story.clear()
        if not leave:
            _stay(state, is_ours)
    if not good:
        raise typer.Exit(EXIT_FAILED)


class Story:
    """What the demo tells, step by step."""

    def __init__(self, channel: grpc.Channel, state: PlatformState) -> None:
        self._channel = channel
        self._kafka = KafkaSettings(state.kafka)
        self._page = f"http://{state.gateway}"
        self._created: list[inference_pb2.Inference] = []

    def tell(self) -> bool:
        """Whether both models are good enough and answered every image exactly once."""
        training, kept_out = load_digits()
        self._create_models()
        deployment = self._deploy()
        self._send(training, deployment.id)
        results = self._watch(deployment)
        inferences = self._serve(results)
        answers = self._ask(inferences, kept_out)
        good = _print_verdict(inferences, answers, kept_out)
        self._print_next(results, inferences)
        return good

    def clear(self) -> None:
        """Stop what still runs of it on a platform that goes on."""
        output.console.print()
        for each in self._created:
            stop_inference(self._channel, each.id)
            output.console.print(f"Stopped the inference {each.name}.", markup=False)
        output.console.print(f"The platform was running before and stays up: {self._page}", markup=False)

    def _create_models(self) -> None:
        _headline("Two models", "one in Keras, one in PyTorch; each is built once in a sandbox")
        for name, (framework, file) in MODELS.items():
            code = (examples_folder() / file).read_text()
            with output.errors.status(f"Checking {name}"):
                model = self._create_or_reuse(model_pb2.Model(name=name, framework=framework, code=code))
            parameters = output.count(model.signature.parameter_count)
            output.console.print(f"  {name}: model {model.id}, {parameters} parameters, from examples/digits/{file}")

    def _create_or_reuse(self, model: model_pb2.Model) -> model_pb2.Model:
        registry = ModelRegistryStub(self._channel)
        named = model_registry_pb2.ListModelsRequest(name=model.name, view=model_pb2.VIEW_FULL)
        for stored in registry.ListModels(named).models:
            if (stored.code, stored.imports, stored.framework) == (model.code, model.imports, model.framework):
                return stored  # type: ignore[no-any-return]
            model.id = stored.id
            changed = model_registry_pb2.UpdateModelRequest(model=model, update_mask={"paths": ["code", "imports"]})
            return registry.UpdateModel(changed, timeout=VALIDATION_TIMEOUT_S)  # type: ignore[no-any-return]
        request = model_registry_pb2.CreateModelRequest(model=model)
        return registry.CreateModel(request, timeout=VALIDATION_TIMEOUT_S)  # type: ignore[no-any-return]

    def _configuration(self) -> configuration_pb2.Configuration:
        registry = ModelRegistryStub(self._channel)
        ids = [self._model_id(name) for name in MODELS]
        named = model_registry_pb2.ListConfigurationsRequest(name=CONFIGURATION)
        for stored in registry.ListConfigurations(named).configurations:
            if list(stored.model_ids) == ids:
                return stored  # type: ignore[no-any-return]
            stored.model_ids[:] = ids
            changed = model_registry_pb2.UpdateConfigurationRequest(
                configuration=stored, update_mask={"paths": ["model_ids"]}
            )
            return registry.UpdateConfiguration(changed)  # type: ignore[no-any-return]
        request = model_registry_pb2.CreateConfigurationRequest(
            configuration=configuration_pb2.Configuration(name=CONFIGURATION, model_ids=ids)
        )
        return registry.CreateConfiguration(request)  # type: ignore[no-any-return]

    def _model_id(self, name: str) -> int:
        found = ModelRegistryStub(self._channel).ListModels(model_registry_pb2.ListModelsRequest(name=name)).models
        return found[0].id  # type: ignore[no-any-return]

    def _deploy(self) -> deployment_pb2.Deployment:
        settings = deployment_pb2.TrainingSettings(
            batch_size=BATCH_SIZE,
            tensorflow=deployment_pb2.FrameworkArguments(fit_args=f"epochs={EPOCHS}"),
            pytorch=deployment_pb2.FrameworkArguments(fit_args=f"max_epochs={EPOCHS}"),
        )
        settings.deadline.FromSeconds(TRAINING_DEADLINE_S)
        deployment = deployment_pb2.Deployment(
            configuration_id=self._configuration().id, description="headrace demo", settings=settings
        )
        request = deployment_manager_pb2.CreateDeploymentRequest(deployment=deployment)
        created = DeploymentManagerStub(self._channel).CreateDeployment(request, timeout=60.0)
        _headline("One training", f"deployment {created.id}: both models wait for the same stream")
        output.console.print(f"  watch it live: [link]{self._page}/deployments/{created.id}[/link]")
        return created  # type: ignore[no-any-return]

    def _send(self, digits: Digits, deployment_id: int) -> None:
        _headline("One stream", f"{len(digits):,} handwritten digits through a RawSink; {KEPT_OUT} are kept out")
        ensure_topics(self._kafka, {TOPIC: PARTITIONS})
        with (
            RawSink(
                self._kafka.bootstrap_servers, TOPIC, deployment_id,
                description="handwritten digits, 8 x 8", validation_rate=0.1, test_rate=0.1,
            ) as sink,
            _progress() as progress,
        ):  # fmt: skip
            for image, label in progress.track(
                list(zip(digits.images, digits.labels, strict=True)), description="  Sending"
            ):
                sink.send(image, label)
        output.console.print("  confirmed by Kafka, and announced on the control topic")

    def _watch(self, deployment: deployment_pb2.Deployment) -> list[result_pb2.Result]:
        _headline("Learning", "epoch by epoch")
        ended = watch_deployment(self._channel, deployment, timeout_s=WATCH_TIMEOUT_S)
        if ended.state != deployment_pb2.STATE_FINISHED:
            raise from_status(ended.error) if ended.error.code else _ended_otherwise(ended)
        collector = ResultCollectorStub(self._channel)
        results = [collector.GetResult(result_collector_pb2.GetResultRequest(id=each)) for each in ended.result_ids]
        for result in results:
            _print_result(result)
        return results

    def _serve(self, results: Sequence[result_pb2.Result]) -> list[inference_pb2.Inference]:
        _headline("Serving", f"{REPLICAS} replicas of each model read the same topic, exactly once")
        # Topics of their own for every demo: each image has one answer of each model, also when it is told twice.
        run = results[0].deployment_id
        ensure_topics(self._kafka, {f"digits-in-{run}": PARTITIONS})
        for result in results:
            self._created.append(create_inference(self._channel, _inference(result, run)))
        ensure_topics(self._kafka, {each.output_topic: PARTITIONS for each in self._created})
        with output.errors.status("Starting the replicas"):
            running = [await_running(self._channel, each.id) for each in self._created]
        for each in running:
            output.console.print(f"  {each.name}: {each.input_topic} → {each.output_topic}", markup=False)
            output.console.print(f"  watch it live: [link]{self._page}/inferences/{each.id}[/link]")
        return running

    def _ask(self, inferences: Sequence[inference_pb2.Inference], digits: Digits) -> Answers:
        _headline("Answers", f"the {len(digits)} digits that neither model has seen")
        data_format, config = input_encoding(self._channel, inferences[0])
        topics = [each.output_topic for each in inferences]
        answers = Answers({topic: [[] for _ in range(len(digits))] for topic in topics})
        sink = InferenceSink(
            self._kafka.bootstrap_servers, inferences[0].input_topic, topics,
            data_format=data_format, input_config=config, dead_letters="", answer_timeout_s=ANSWER_TIMEOUT_S,
        )  # fmt: skip
        with sink, _progress() as progress:
            task = progress.add_task("  Answers", total=len(digits) * len(topics))
            # What is missing is in the verdict.
            with suppress(DeadlineExceeded):
                for answer in sink.ask(digits.images, range(len(digits)), settle_s=SETTLE_S):
                    answers.by_topic[answer.topic][cast(int, answer.key)].append(answer.value)
                    progress.update(task, advance=not answer.repeated)
        answers.seconds = sink.seconds
        return answers

    def _print_next(self, results: Sequence[result_pb2.Result], inferences: Sequence[inference_pb2.Inference]) -> None:
        _headline("What to try next", "in another terminal, in this folder")
        first, headrace = results[0], _command()
        for line in (
            f"{headrace} result compare {' '.join(str(each.id) for each in results)}",
            f"{headrace} result download {first.id}",
            f"{headrace} train {CONFIGURATION} --stream {first.stream.id} --fit epochs=30 --wait",
            f"{headrace} inference show {inferences[0].id}",
            f"{headrace} inference scale {inferences[0].id} 3",
            f"curl {self._page}/v1/results/{first.id}",
        ):
            output.console.print(f"  {line}", markup=False, soft_wrap=True)


def load_digits() -> tuple[Digits, Digits]:
    """(1617 digits to learn from, 180 that are kept out): the same ones every time, every class in proportion."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    bunch: Any = load()
    images, labels = bunch.images.astype(np.uint8), bunch.target.astype(np.int32)
    split = train_test_split(images, labels, test_size=KEPT_OUT, stratify=labels, random_state=SPLIT_SEED)
    return Digits(split[0], split[2]), Digits(split[1], split[3])


def examples_folder() -> Path:
    """`examples/digits` of the checkout, or the copy of an installation."""
    return Path(__file__).parent.parent / "examples" / "digits"


def _check_installed() -> None:
    missing = [framework.note() for framework in FRAMEWORKS if not framework.is_installed()]
    if find_spec("sklearn") is None:
        missing.append(
            "the digits come from scikit-learn, which is not installed; install it with: pip install scikit-learn"
        )
    if missing:
        raise FailedPrecondition(error_pb2.REASON_NOT_INSTALLED, "; ".join(missing))


@contextmanager
def _platform(home: Path, ports: Ports, kafka: str) -> Iterator[tuple[PlatformState, bool]]:
    """A running platform, and whether we started it: then it stops at the end, whatever happens."""
    state = running_state(home)
    if state is not None and state.ready:
        output.console.print(f"Using the platform that runs in {home}.")
        output.console.print(addresses(state))
        yield state, False
        return
    _headline("The platform", f"in {home}")
    state = start_platform(home, ports, kafka=kafka, end_with_us=True)
    try:
        yield state, True
    finally:
        before = signal.signal(signal.SIGINT, lambda *_: _hurry(home))
        try:
            down()
        finally:
            signal.signal(signal.SIGINT, before)


def _hurry(home: Path) -> None:
    """Ctrl-C while it stops: the supervisor takes a second signal as `without waiting`."""
    if (pid := supervisor_pid(home)) > 0:
        os.kill(pid, signal.SIGTERM)


def _stay(state: PlatformState, is_ours: bool) -> None:
    if not is_ours:
        return
    output.console.print("\nThe platform stays up: ", f"http://{state.gateway}", " · Ctrl-C stops it", sep="")
    try:
        while supervisor_pid(home_folder()):
            time.sleep(0.2)
    except KeyboardInterrupt:
        output.console.print()


def _inference(result: result_pb2.Result, run: int) -> inference_pb2.Inference:
    return inference_pb2.Inference(
        result_id=result.id,
        name=f"{result.model_name}-{run}",
        replicas=REPLICAS,
        input_topic=f"digits-in-{run}",
        output_topic=f"{result.model_name}-out-{run}",
    )


def _command() -> str:
    """The command `headrace` as the reader can type it: by its path where it is on none."""
    settings = f"HEADRACE_HOME={home} " if (home := os.environ.get("HEADRACE_HOME")) else ""
    if shutil.which("headrace"):
        return f"{settings}headrace"
    script = Path(sys.executable).with_name("headrace")
    here = script.is_relative_to(Path.cwd())
    return f"{settings}{script.relative_to(Path.cwd()) if here else script}"


def _ended_otherwise(ended: deployment_pb2.Deployment) -> FailedPrecondition:
    return FailedPrecondition(
        error_pb2.REASON_WRONG_STATE, f"deployment {ended.id} is {output.state_name(ended.state)}", id=ended.id
    )


def _print_result(result: result_pb2.Result) -> None:
    output.console.print(f"  [bold]{result.model_name}[/bold], version {result.version} (result {result.id})")
    output.console.print(f"    {output.metrics_line(result.metrics)}", markup=False)
    output.console.print(f"    trained on {range_lines(result).replace(chr(10), ' ')}", markup=False)


def _print_verdict(inferences: Sequence[inference_pb2.Inference], answers: Answers, digits: Digits) -> bool:
    """Accuracy, answers and rate of each model; whether both reach the goal with one answer for each image."""
    verdicts = [_verdict(answers.by_topic[each.output_topic], digits) for each in inferences]
    rate = len(digits) * len(inferences) / answers.seconds if answers.seconds else 0.0
    rows = [
        (
            each.model_name,
            f"{accuracy:.1%}",
            f"{exactly_one} of {len(digits)}",
            _mark(accuracy >= GOAL, exactly_one, digits),
        )
        for each, (accuracy, exactly_one) in zip(inferences, verdicts, strict=True)
    ]
    output.console.print(
        output.table(["  model", "#accuracy", "#answered exactly once", ""], [("  " + r[0], *r[1:]) for r in rows])
    )
    output.console.print(
        f"  {output.count(rate)} answers/s, {answers.seconds * 1000:.0f} ms from the first question to the last answer"
    )
    return all(accuracy >= GOAL and exactly_one == len(digits) for accuracy, exactly_one in verdicts)


def _verdict(answers: Sequence[Sequence[bytes]], digits: Digits) -> tuple[float, int]:
    """(part of the images whose first answer is right, images with exactly one answer)."""
    right = sum(
        bool(given) and best(json.loads(given[0])["values"]) == label
        for given, label in zip(answers, digits.labels.tolist(), strict=True)
    )
    return right / len(digits), sum(len(given) == 1 for given in answers)


def _mark(accurate: bool, exactly_one: int, digits: Digits) -> Text:
    good = accurate and exactly_one == len(digits)
    return Text("good", style="green") if good else Text("not good enough", style="bold red")


def _headline(title: str, text: str) -> None:
    output.console.print(f"\n[bold]{title}[/bold] [dim]{text}[/dim]")


def _progress() -> Progress:
    return Progress(
        "{task.description}", BarColumn(), MofNCompleteColumn(),
        console=output.errors, transient=True, disable=not output.errors.is_terminal,
    )  # fmt: skip
