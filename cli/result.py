"""`headrace result …`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from cli import output
from cli.board import Board, metric_curves
from cli.comparison import print_comparison
from cli.confusion import print_confusion
from cli.connection import control_plane, find_model, list_all
from cli.curves import print_residuals, print_roc, residual_lines, roc_line
from cli.deployment import parse_state
from cli.following import follow
from cli.options import id_argument, id_option
from cli.output import Json, Limit
from headrace.errors import DataLoss, NotFound
from headrace.v1 import deployment_pb2, error_pb2, model_pb2, result_collector_pb2, result_pb2
from headrace.v1.result_collector_pb2_grpc import ResultCollectorStub

app = typer.Typer()

EXIT_FAILED = 1
DOWNLOAD_TIMEOUT_S = 3600.0
EXPORT_TIMEOUT_S = 1800.0
PICTURE_TIMEOUT_S = 60.0
FORMATS_HELP = (
    "Keras: keras, savedmodel, tflite, tflite_int8 (calibrated on records of the stream), onnx. "
    "PyTorch: safetensors, exported_program, onnx."
)
To = Annotated[Path | None, typer.Option("--to", help="File or folder (default: this folder).")]
Picture = Annotated[Path | None, typer.Option("--out", "-o", dir_okay=False, help="Write a picture (PNG) here.")]
Id = Annotated[int, id_argument("RESULT")]


@app.command("list")
def list_results(
    deployment: Annotated[int, id_option("--deployment", help="Only of this training.", min=0)] = 0,
    model: Annotated[str, typer.Option("--model", help="Only of this model (name or id).")] = "",
    state: Annotated[str, typer.Option("--state", help="Only in this state, as `finished`.")] = "",
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List the results, newest first."""
    with control_plane() as channel:
        request = result_collector_pb2.ListResultsRequest(
            deployment_id=deployment,
            model_id=find_model(channel, model).id if model else 0,
            state=parse_state(state) if state else None,
        )
        found = list_all(ResultCollectorStub(channel).ListResults, request, limit)
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        ["#id", "model", "#version", "#deployment", "state", "metrics", "created"],
        [_row(result) for result in found.results],
        empty="There are no results yet; `headrace train CONFIGURATION` makes some.",
        more=bool(found.next_page_token),
    )


@app.command()
def show(result: Id, as_json: Json = False) -> None:
    """Show a result: metrics with their curves, the exact offset ranges it was trained on, files."""
    with control_plane() as channel:
        found = _get(channel, result)
        epochs = [] if as_json else _epochs(channel, result)
    if as_json:
        output.print_json(found)
        return
    sizes = found.split_sizes
    output.print_fields({
        "id": found.id,
        "model": f"{found.model_name}, version {found.version}" if found.version else found.model_name,
        "deployment": found.deployment_id,
        "state": output.styled_state(output.state_name(found.state)),
        "why": output.error_line(found.error),
        "queue": found.queue.message,
        "waits for": found.progress.waits_for,
        "trained on" if found.state == deployment_pb2.STATE_FINISHED else "stream": range_lines(found),
        "records": f"{output.count(sizes.training)} for training, {output.count(sizes.validation)} for validation, "
        f"{output.count(sizes.test)} for the test" if found.HasField("split_sizes") else "",
        "undecodable": found.decode_error_count or "",
        "settings": output.settings_lines(found.settings),
        "reading took": output.duration(found.reading_time),
        "training took": output.duration(found.training_time),
        "framework": found.framework_version,
        "code SHA-256": found.code_sha256,
        "takes": _tensors(found.signature.inputs),
        "gives": _tensors(found.signature.outputs),
        "area under ROC": roc_line(found.roc),
        "residuals": residual_lines(found.residuals),
        "files": ", ".join(f"{each.name} ({output.size(each.size_bytes)})" for each in found.artifacts),
        "aliases": ", ".join(found.aliases),
    })  # fmt: skip
    _print_metrics([found])
    _print_curves(epochs)


@app.command()
def watch(result: Id, as_json: Json = False) -> None:
    """Show a result live until it ends. Exit code 1: it failed or was cancelled."""
    with control_plane() as channel:
        first = _get(channel, result)
        with Board([first] if not as_json else []) as board:
            for event in follow(channel, result_id=result):
                if as_json:
                    output.print_json_line(event)
                else:
                    board.update(event)
        ended = _get(channel, result)
    if ended.state != deployment_pb2.STATE_FINISHED:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def compare(
    results: Annotated[list[int], id_argument("RESULT...", "Ids of results.")],
    differences: Annotated[bool, typer.Option("--differences", "-d", help="Only what differs.")] = False,
    metric: Annotated[str, typer.Option("--metric", "-m", help="The metric of the chart.")] = "loss",
    split: Annotated[str, typer.Option("--split", help="training or validation.")] = "validation",
    as_json: Json = False,
) -> None:
    """Compare results: code, data, settings and metrics side by side (≠: they differ), and a metric's curves."""
    request = result_collector_pb2.CompareResultsRequest(result_ids=results)
    with control_plane() as channel:
        found = ResultCollectorStub(channel).CompareResults(request)
        epochs = {} if as_json else {each.id: _epochs(channel, each.id) for each in found.results}
    if as_json:
        output.print_json(found)
        return
    print_comparison(found, only_differences=differences)
    curves = {
        f"{each.model_name} (result {each.id})": metric_curves(_by_number(epochs[each.id]), metric).get(split, [])
        for each in found.results
    }
    if shown := {name: values for name, values in curves.items() if values}:
        output.console.print(f"\n[bold]{split} {metric}[/bold]")
        output.console.print(output.curve(shown))
    else:
        output.console.print(f"\nNone of them has a {metric} of the {split} split: no curve.", markup=False)


@app.command()
def confusion(
    result: Id,
    out: Picture = None,
    as_json: Json = False,
) -> None:
    """Show the confusion matrix of a classifier; it is counted when trained with --confusion-matrix."""
    request = result_collector_pb2.RenderConfusionMatrixRequest(result_id=result)
    found, picture = _with_picture(
        result, out, "RenderConfusionMatrix", request, lambda found: bool(found.HasField("confusion_matrix"))
    )
    if as_json:
        output.print_json(found.confusion_matrix)
    else:
        print_confusion(found.confusion_matrix)
    _write_picture(out, picture, quiet=as_json)


@app.command()
def roc(result: Id, out: Picture = None, as_json: Json = False) -> None:
    """Show how well a classifier tells each class from the others: the areas under its ROC curves."""
    request = result_collector_pb2.RenderRocRequest(result_id=result)
    found, picture = _with_picture(result, out, "RenderRoc", request, lambda found: bool(found.roc.curves))
    if as_json:
        output.print_json(found.roc)
    else:
        print_roc(found.roc)
    _write_picture(out, picture, quiet=as_json)


@app.command()
def residuals(result: Id, out: Picture = None, as_json: Json = False) -> None:
    """Show what a regression gets wrong: answer minus truth, by quantiles."""
    request = result_collector_pb2.RenderResidualsRequest(result_id=result)
    found, picture = _with_picture(result, out, "RenderResiduals", request, lambda found: bool(found.residuals.outputs))
    if as_json:
        output.print_json(found.residuals)
    else:
        print_residuals(found.residuals)
    _write_picture(out, picture, quiet=as_json)


@app.command()
def export(
    result: Id,
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=FORMATS_HELP)],
    to: To = None,
    as_json: Json = False,
) -> None:
    """Convert a trained model into another format and download it; it stays with the result, and is made once."""
    request = result_collector_pb2.ExportResultRequest(result_id=result, format=format)
    with control_plane() as channel:
        with output.errors.status(f"Converting to {format}"):
            artifact = ResultCollectorStub(channel).ExportResult(request, timeout=EXPORT_TIMEOUT_S)
        target = _download_to(channel, result, artifact, to)
    if as_json:
        output.print_json(artifact)
    else:
        _print_file(target, artifact)


@app.command()
def download(
    result: Id,
    name: Annotated[str, typer.Option("--name", help="The file's name; `model`: the trained model.")] = "model",
    everything: Annotated[
        bool, typer.Option("--all", help="Every file in one zip, with a README.md that says how to load each.")
    ] = False,
    to: To = None,
) -> None:
    """Download a file of a result, checked against its SHA-256, or all of them as a zip."""
    with control_plane() as channel:
        if everything:
            target, size_bytes = _download_bundle(channel, result, to)
            output.console.print(f"{target}  {output.size(size_bytes)}", soft_wrap=True)
            return
        artifact = _artifact(_get(channel, result), name)
        target = _download_to(channel, result, artifact, to)
    _print_file(target, artifact)


@app.command()
def delete(result: Id) -> None:
    """Delete an ended result that no inference uses."""
    with control_plane() as channel:
        ResultCollectorStub(channel).DeleteResult(result_collector_pb2.DeleteResultRequest(id=result))
    output.console.print(f"Deleted result {result}.")


def range_lines(result: result_pb2.Result) -> str:
    """The ranges that the result was trained on, `topic:partition:start:end`, one a line."""
    return "\n".join(f"{each.topic}:{each.partition}:{each.start}:{each.end}" for each in result.stream.ranges)


def _get(channel: grpc.Channel, result_id: int) -> result_pb2.Result:
    request = result_collector_pb2.GetResultRequest(id=result_id)
    return ResultCollectorStub(channel).GetResult(request)  # type: ignore[no-any-return]


def _with_picture(
    result: int, out: Path | None, render: str, request: Any, is_judged: Callable[[result_pb2.Result], bool]
) -> tuple[result_pb2.Result, bytes]:
    """The result, and its picture where one is wanted; where nothing was judged, asking for one says why."""
    with control_plane() as channel:
        found = _get(channel, result)
        if out is None and is_judged(found):
            return found, b""
        return found, getattr(ResultCollectorStub(channel), render)(request, timeout=PICTURE_TIMEOUT_S).data


def _epochs(channel: grpc.Channel, result_id: int) -> list[result_pb2.Epoch]:
    request = result_collector_pb2.ListEpochsRequest(result_id=result_id)
    return list(list_all(ResultCollectorStub(channel).ListEpochs, request, limit=100_000).epochs)


def _row(result: result_pb2.Result) -> tuple[object, ...]:
    state = output.styled_state(output.state_name(result.state))
    metrics = output.error_line(result.error) or output.metrics_line(result.metrics) or result.queue.message
    version = result.version or ""
    return result.id, result.model_name, version, result.deployment_id, state, metrics, output.ago(result.create_time)


def _print_metrics(results: Sequence[result_pb2.Result]) -> None:
    """A row per metric and split, a column per result."""
    names = sorted({
        (split, metric)
        for result in results
        for split, metrics in result.metrics.splits.items()
        for metric in metrics.values
    })  # fmt: skip
    columns = ["split", "metric", *(f"#{each.model_name} (result {each.id})" for each in results)]
    rows = [[split, metric, *(_value(each, split, metric) for each in results)] for split, metric in names]
    if rows:
        output.console.print()
        output.console.print(output.table(columns, rows))


def _value(result: result_pb2.Result, split: str, metric: str) -> str:
    if split not in result.metrics.splits or metric not in result.metrics.splits[split].values:
        return ""
    return output.number(result.metrics.splits[split].values[metric])


def _by_number(epochs: Sequence[result_pb2.Epoch]) -> dict[int, result_pb2.SplitMetrics]:
    return {epoch.number: epoch.metrics for epoch in epochs}


def _print_curves(epochs: Sequence[result_pb2.Epoch]) -> None:
    if len(epochs) < 2:
        return
    metrics = {name for epoch in epochs for split in epoch.metrics.splits.values() for name in split.values}
    for metric in sorted(metrics):
        output.console.print(f"\n[bold]{metric}[/bold]")
        output.console.print(output.curve(metric_curves(_by_number(epochs), metric)))


def _artifact(result: result_pb2.Result, name: str) -> result_pb2.Artifact:
    for artifact in result.artifacts:
        if name in (artifact.name, artifact.name.partition(".")[0]):
            return artifact
    have = ", ".join(artifact.name for artifact in result.artifacts) or "none yet"
    raise NotFound(
        error_pb2.REASON_NO_ARTIFACT,
        f"result {result.id} ({output.state_name(result.state)}) has no file {name!r}; it has: {have}",
        result_id=result.id,
        name=name,
    )


def _target(to: Path | None, name: str) -> Path:
    if to is None:
        return Path(name)
    return to / name if to.is_dir() else to


def _tensors(specs: Sequence[model_pb2.TensorSpec]) -> str:
    """Such as `samples float32 (batch, 8, 8)`."""
    return ", ".join(
        f"{spec.name} {spec.dtype} ({', '.join(['batch', *('any' if n < 0 else str(n) for n in spec.shape[1:])])})"
        for spec in specs
    )


def _write_picture(out: Path | None, picture: bytes, *, quiet: bool) -> None:
    if out is None:
        return
    out.write_bytes(picture)
    if not quiet:
        output.console.print(f"{out}  {output.size(len(picture))}", soft_wrap=True)


def _print_file(target: Path, artifact: result_pb2.Artifact) -> None:
    output.console.print(f"{target}  {output.size(artifact.size_bytes)}  SHA-256 {artifact.sha256}", soft_wrap=True)


def _download_to(channel: grpc.Channel, result_id: int, artifact: result_pb2.Artifact, to: Path | None) -> Path:
    target = _target(to, artifact.name)
    with _partial(target) as partial:
        _download(channel, result_id, artifact, partial)
    return target


def _download_bundle(channel: grpc.Channel, result_id: int, to: Path | None) -> tuple[Path, int]:
    """Where it is, and its size, which nobody knows before."""
    request = result_collector_pb2.DownloadResultRequest(result_id=result_id)
    chunks: Any = ResultCollectorStub(channel).DownloadResult(request, timeout=DOWNLOAD_TIMEOUT_S)
    first = next(iter(chunks))
    artifact = result_pb2.Artifact()
    first.extensions[0].Unpack(artifact)
    target = _target(to, artifact.name)
    with _partial(target) as partial, partial.open("wb") as file:
        for chunk in chain([first], chunks):
            file.write(chunk.data)
    return target, target.stat().st_size


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A file that becomes `target` when the block ends well, and is nothing otherwise."""
    partial = target.with_name(f"{target.name}.partial")
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _download(channel: grpc.Channel, result_id: int, artifact: result_pb2.Artifact, target: Path) -> None:
    request = result_collector_pb2.DownloadArtifactRequest(result_id=result_id, name=artifact.name)
    digest = hashlib.sha256()
    with target.open("wb") as file, _progress() as progress:
        task = progress.add_task(artifact.name, total=artifact.size_bytes)
        chunks: Any = ResultCollectorStub(channel).DownloadArtifact(request, timeout=DOWNLOAD_TIMEOUT_S)
        for chunk in chunks:
            file.write(chunk.data)
            digest.update(chunk.data)
            progress.advance(task, len(chunk.data))
    if digest.hexdigest() != artifact.sha256:
        raise DataLoss(
            error_pb2.REASON_DIGEST_MISMATCH,
            f"the bytes received have the SHA-256 {digest.hexdigest()}, not {artifact.sha256}; download again",
        )


def _progress() -> Progress:
    return Progress(
        "{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=output.errors, transient=True, disable=not output.errors.is_terminal,
    )  # fmt: skip
