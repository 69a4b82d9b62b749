"""The pages in a real Chromium, in front of a control plane in memory."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from gateway.pages import DIST
from gateway.server import serving
from gateway.settings import Settings
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.v1 import deployment_pb2, error_pb2, inference_pb2, predictions_pb2, stream_pb2
from tests.gateway.inmemory import ControlPlane, controlling, digits_stream

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A machine that does much else at once is slow, not wrong.
expect.set_options(timeout=20_000)
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(not (DIST / "index.html").exists(), reason="the pages are not built; make web"),
]


@dataclass
class Gateway:
    """A gateway in a process of its own, on one port for ever."""

    address: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when it answers."""
        environment = {**os.environ, "HEADRACE_LISTEN": f"127.0.0.1:{self.port}", "HEADRACE_ADDRESS": self.address}
        self.process = subprocess.Popen([sys.executable, "-P", "-m", "gateway"], env=environment)
        async with httpx.AsyncClient() as http, asyncio.timeout(20):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await http.get(f"{self.url}/healthz")
                    return

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class Site:
    """A page of the site and everything behind it."""

    page: Page
    plane: ControlPlane
    url: str
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str) -> None:
        await self.page.goto(self.url + path)

    def curve(self, result_id: int, split: str = "training") -> Locator:
        return self.page.locator(f'[data-series="{result_id}-{split}"]')

    async def expect_points(self, result_id: int, count: int) -> None:
        """The curve has so many points, and each of them is drawn once."""
        curve = self.curve(result_id)
        await expect(curve).to_have_attribute("data-points", str(count))
        drawn = await curve.locator("path").get_attribute("d") or ""
        places = [float(x) for x in re.findall(r"[ML]([\d.]+) ", drawn)]
        assert len(places) == count
        assert places == sorted(set(places))

    async def expect_liveness(self, liveness: str) -> None:
        mark = self.page.locator(".title .live")
        await expect(mark).to_have_attribute("data-liveness", liveness)


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def plane() -> AsyncIterator[ControlPlane]:
    async with controlling() as plane:
        yield plane


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser: Browser, plane: ControlPlane) -> AsyncIterator[Site]:
    settings = Settings(listen="127.0.0.1:0", address=f"127.0.0.1:{plane.port}")
    async with serving(settings) as gateway, showing(browser, plane, gateway.url) as site:
        yield site


@pytest.fixture
def gateway(plane: ControlPlane, port: int) -> Iterator[Gateway]:
    """A gateway that a test can kill."""
    gateway = Gateway(f"127.0.0.1:{plane.port}", port)
    yield gateway
    gateway.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def mortal_site(browser: Browser, plane: ControlPlane, gateway: Gateway) -> AsyncIterator[Site]:
    """A site behind the gateway that a test can kill."""
    await gateway.start()
    async with showing(browser, plane, gateway.url) as site:
        yield site


@contextlib.asynccontextmanager
async def showing(browser: Browser, plane: ControlPlane, url: str) -> AsyncIterator[Site]:
    """A page that must not complain: no error in a script, nothing that the content security policy forbids."""
    context = await browser.new_context()
    site = Site(await context.new_page(), plane, url)
    site.page.on("pageerror", lambda error: site.complaints.append(str(error)))
    site.page.on("console", lambda message: site.complaints.append(message.text) if is_complaint(message) else None)
    try:
        yield site
        assert site.complaints == []
    finally:
        await context.close()


def is_complaint(message: object) -> bool:
    """Errors, without those of a network that a test cut and those of pages that are not there."""
    kind, text = getattr(message, "type", ""), getattr(message, "text", "")
    return kind == "error" and "Failed to load resource" not in text and "net::ERR_" not in text


def epoch(plane: ControlPlane, result_id: int, number: int) -> None:
    value = 2.0 / number
    plane.epoch(
        result_id,
        number,
        {
            "training": {"loss": value, "accuracy": 1 - value / 2},
            "validation": {"loss": value * 1.1, "accuracy": 1 - value / 1.9},
        },
    )


def start_training(plane: ControlPlane, *result_ids: int) -> None:
    for result_id in result_ids:
        plane.results[result_id].stream.CopyFrom(digits_stream(1))
        plane.enter(result_id, deployment_pb2.STATE_STARTING)
        plane.enter(result_id, deployment_pb2.STATE_TRAINING)


async def test_the_curves_of_all_models_grow_live_in_one_chart(site: Site) -> None:
    site.plane.train("digits-keras", "digits-torch")
    start_training(site.plane, 1, 2)
    for number in (1, 2, 3):
        epoch(site.plane, 1, number)
    await site.open("/deployments/1")
    await site.expect_liveness("live")
    await site.expect_points(1, 3)
    await expect(site.curve(2)).to_have_count(0)
    for number in range(4, 9):
        epoch(site.plane, 1, number)
        epoch(site.plane, 2, number - 3)
    await site.expect_points(1, 8)
    await site.expect_points(2, 5)
    assert await site.page.locator(".chart svg").count() == 1
    assert await site.page.locator(".chart .curve").count() == 4
    before = await site.curve(1).locator("path").get_attribute("d")
    await site.page.get_by_role("button", name="accuracy").click()
    await expect(site.curve(1).locator("path")).not_to_have_attribute("d", before or "")
    await site.page.get_by_role("button", name="digits-torch, validation").click()
    await expect(site.page.locator(".chart .curve")).to_have_count(3)


async def test_a_page_outlives_its_gateway_without_a_gap(mortal_site: Site, gateway: Gateway) -> None:
    site = mortal_site
    site.plane.train("digits-keras")
    start_training(site.plane, 1)
    site.plane.log("deployment", 1, "train-1-a1", "before")
    resumed: list[str | None] = []
    site.page.on(
        "request",
        lambda request: (
            resumed.append(request.headers.get("last-event-id")) if request.url.endswith(":watch") else None
        ),
    )
    for number in range(1, 6):
        epoch(site.plane, 1, number)
    await site.open("/deployments/1")
    await site.expect_points(1, 5)
    for outage in (1, 2):
        last_seen = site.plane.events[-1].sequence
        gateway.kill()
        await site.expect_liveness("reconnecting")
        for number in range(5 * outage + 1, 5 * outage + 6):
            epoch(site.plane, 1, number)
        line = f'{{"time": "2026-01-31T12:00:00Z", "level": "INFO", "message": "after", "outage": {outage}}}'
        site.plane.log("deployment", 1, "train-1-a1", line)
        await gateway.start()
        await site.expect_points(1, 5 * outage + 5)
        await site.expect_liveness("live")
        assert resumed[-1] == str(last_seen)
    await expect(site.page.locator(".tail .line")).to_have_text(
        ["before", re.compile(r"\d:00after outage=1"), re.compile(r"\d:00after outage=2")]
    )


async def test_a_watch_that_ends_by_itself_is_taken_up_again(site: Site) -> None:
    site.plane.train("digits-keras")
    start_training(site.plane, 1)
    epoch(site.plane, 1, 1)
    await site.open("/deployments/1")
    await site.expect_points(1, 1)
    site.plane.end_watches()
    epoch(site.plane, 1, 2)
    await site.expect_points(1, 2)
    await site.expect_liveness("live")
    site.plane.enter(1, deployment_pb2.STATE_FINISHED)
    await site.expect_liveness("ended")


async def test_a_second_attempt_replaces_the_epochs_of_the_first(site: Site) -> None:
    site.plane.train("digits-keras")
    start_training(site.plane, 1)
    for number in range(1, 6):
        epoch(site.plane, 1, number)
    await site.open("/deployments/1")
    await site.expect_points(1, 5)
    before = await site.curve(1).locator("path").get_attribute("d") or ""
    site.plane.results[1].attempt = 2
    crashed = InvalidArgument(error_pb2.REASON_WORKER_CRASHED, "The worker was killed.", signal="SIGKILL")
    site.plane.enter(1, deployment_pb2.STATE_STARTING, crashed)
    await expect(site.page.locator(".failure")).to_contain_text("it is tried again")
    site.plane.enter(1, deployment_pb2.STATE_TRAINING)
    site.plane.epoch(1, 1, {"training": {"loss": 5.0}, "validation": {"loss": 5.5}})
    await expect(site.curve(1).locator("path")).not_to_have_attribute("d", before)
    await site.expect_points(1, 5)
    await expect(site.page.get_by_text("attempt 2")).to_be_visible()


async def test_progress_of_reading_and_training(site: Site) -> None:
    deployment = site.plane.train("digits-keras", queue_message="1 model waits for a free processor")
    await site.open("/deployments/1")
    await expect(site.page.get_by_text("waits for a free processor").first).to_be_visible()
    site.plane.enter(1, deployment_pb2.STATE_WAITING)
    await expect(site.page.get_by_text("headrace send FILE --topic TOPIC --deployment 1")).to_be_visible()
    assert deployment.state == deployment_pb2.STATE_WAITING
    site.plane.enter(1, deployment_pb2.STATE_READING)
    site.plane.progress(1, records_read=250_000, records_total=1_000_000, rows_per_second=410_000)
    bar = site.page.get_by_role("progressbar")
    await expect(bar).to_have_attribute("aria-valuenow", "25")
    await expect(site.page.get_by_text("250,000 of 1,000,000 records · 410,000/s")).to_be_visible()
    site.plane.enter(1, deployment_pb2.STATE_TRAINING)
    site.plane.progress(1, epoch=3, epochs=10, step=5, steps=10)
    await expect(bar).to_have_attribute("aria-valuenow", "35")


async def test_a_training_without_its_stream_shows_the_announcement_that_was_refused(site: Site) -> None:
    site.plane.train("digits-keras")
    await site.open("/deployments/1")
    await expect(site.page.get_by_text("waits for its stream")).to_be_visible()
    reversed_ = InvalidArgument(error_pb2.REASON_INVALID_RANGE, "data:0:9:5 ends before it starts")
    source = stream_pb2.StreamSource(topic="control", partition=0, offset=17)
    refused = stream_pb2.RefusedAnnouncement(deployment_id=1, error=reversed_.to_status(), source=source)
    site.plane.refuse(1, refused)
    failure = site.page.locator(".failure")
    for said in ("control/0/17", "INVALID_RANGE", "ends before it starts", "goes on waiting"):
        await expect(failure).to_contain_text(said)


async def test_a_finished_training_shows_metrics_ranges_and_files(site: Site) -> None:
    site.plane.train("digits-keras", "digits-torch")
    start_training(site.plane, 1, 2)
    for result_id in (1, 2):
        epoch(site.plane, result_id, 1)
        result = site.plane.results[result_id]
        result.metrics.splits["test"].values.update({"loss": 0.25 * result_id, "accuracy": 0.98})
        result.artifacts.add(name="model.keras", size_bytes=5000, media_type="application/zip")
        site.plane.files[result_id, "model.keras"] = b"x" * 5000
    await site.open("/deployments/1")
    for result_id in (1, 2):
        site.plane.enter(result_id, deployment_pb2.STATE_FINISHED)
    await site.expect_liveness("ended")
    row = site.page.locator(".metrics tbody tr").first
    await expect(row).to_contain_text("0.2500")
    await expect(site.page.locator(".metrics [data-best]", has_text="0.2500")).to_have_count(1)
    await expect(site.page.locator(".stream tbody tr").nth(1)).to_have_text("digits112820808")
    await expect(site.page.locator(".range-string")).to_have_text("digits:0:0:809,digits:1:12:820")
    async with site.page.expect_download() as downloading:
        await site.page.get_by_role("link", name="model.keras (4.9 KiB)").first.click()
    download = await downloading.value
    assert download.suggested_filename == "model.keras"
    assert len((await download.path()).read_bytes()) == 5000


async def test_failures_say_why(site: Site) -> None:
    site.plane.train("digits-keras", "digits-torch")
    start_training(site.plane, 1, 2)
    plane = site.plane
    plane.epoch(1, 1, {"training": {"loss": 1.0}})
    plane.epoch(1, 2, {"training": {"loss": float("nan")}})
    plane.epoch(1, 3, {"training": {"loss": float("inf")}})
    nan = InvalidArgument(error_pb2.REASON_NAN_LOSS, "The loss became NaN.", epoch=2)
    plane.enter(1, deployment_pb2.STATE_FAILED, nan)
    expired = FailedPrecondition(error_pb2.REASON_DATA_EXPIRED, "Kafka deleted the start of the range.", low=412)
    plane.enter(2, deployment_pb2.STATE_FAILED, expired)
    await site.open("/deployments/1")
    await expect(site.page.locator("[data-result='1'] .failure")).to_contain_text("NAN_LOSS")
    await expect(site.page.locator("[data-result='2'] .failure")).to_contain_text(
        "Kafka deleted the start of the range."
    )
    await expect(site.page.locator("[data-result='2'] .failure")).to_contain_text("412")
    await expect(site.page.locator(".title .pill")).to_have_text("failed")
    await expect(site.curve(1)).to_have_attribute("data-points", "3")
    await expect(site.page.locator(".metrics tbody tr").first).to_contain_text("∞")


async def test_nothing_yet_says_how_to_begin(site: Site) -> None:
    await site.open("/")
    await expect(site.page.get_by_text("headrace demo")).to_be_visible()
    await site.open("/deployments/77")
    await expect(site.page.get_by_role("alert")).to_contain_text("No deployment has the id 77")
    await site.open("/not/there")
    await expect(site.page.get_by_text("There is no page at /not/there")).to_be_visible()


async def test_the_overview_leads_to_every_page(site: Site) -> None:
    site.plane.train("digits-keras")
    site.plane.infer(1, name="digits-live", input_topic="questions", output_topic="answers", replicas=1)
    await site.open("/")
    await site.page.get_by_role("link", name="digits-keras").click()
    await expect(site.page.get_by_role("heading", level=1)).to_contain_text("training 1")
    await site.page.go_back()
    await site.page.get_by_role("link", name="digits-live").click()
    await expect(site.page.get_by_role("heading", level=1)).to_contain_text("inference 1")
    assert site.page.url.endswith("/inferences/1")
    await site.page.get_by_role("link", name="Overview").click()
    site.plane.train("digits-torch")
    await expect(site.page.get_by_role("link", name="digits-torch")).to_be_visible()


async def test_an_inference_is_live(mortal_site: Site, gateway: Gateway) -> None:
    site = mortal_site
    site.plane.train("digits-keras")
    site.plane.infer(1, name="digits-live", input_topic="questions", output_topic="answers", replicas=2)
    await site.open("/inferences/1")
    await expect(site.page.locator(".title .pill")).to_have_text("starting")
    site.plane.enter_inference(1, inference_pb2.INFERENCE_STATE_RUNNING)
    running = inference_pb2.INFERENCE_STATE_RUNNING
    replicas = [
        inference_pb2.ReplicaState(
            slot=slot, state=running, partitions=[slot], lag=21, rows_per_second=600, answered_count=90
        )
        for slot in (0, 1)
    ]
    site.plane.report(1, *replicas)
    await expect(site.page.locator("[data-tile='rate'] dd")).to_have_text("1,200")
    await expect(site.page.locator("[data-tile='lag'] dd")).to_have_text("42")
    await expect(site.page.locator(".replicas tbody tr")).to_have_count(2)
    site.plane.answer(1, [0.05, 0.9, 0.05], offset=17)
    answer = site.page.locator("[data-source='questions/0/17']")
    await expect(answer).to_contain_text("0.9000")
    gateway.kill()
    await site.expect_liveness("reconnecting")
    await gateway.start()
    await site.expect_liveness("live")
    site.plane.answer(1, [0.9, 0.05, 0.05], offset=18)
    await expect(site.page.locator(".answers tbody tr")).to_have_count(2)
    async with reporting(site.plane, replicas):
        await expect(site.page.locator("[data-series='rate']")).to_be_visible()
    await site.page.get_by_role("button", name="Stop").click()
    await site.page.get_by_role("button", name="Really stop this inference?").click()
    await expect(site.page.locator(".title .pill")).to_have_text("stopped")
    await site.expect_liveness("ended")


async def test_an_inference_shows_the_time_and_the_version_of_each_replica_and_the_best_class(site: Site) -> None:
    site.plane.train("digits-keras")
    site.plane.infer(
        1, name="live", input_topic="questions", output_topic="answers", replicas=2, warnings=["2 share 1 partition."]
    )
    running = inference_pb2.INFERENCE_STATE_RUNNING
    first = inference_pb2.ReplicaState(slot=0, state=running, model_version=2, live=True, ready=True)
    first.p50_duration.FromMilliseconds(31)
    first.p99_duration.FromMicroseconds(4_200)
    refused = InvalidArgument(error_pb2.REASON_CODE_ERROR, "line 3")
    second = inference_pb2.ReplicaState(slot=1, state=running, model_version=1, live=True, error=refused.to_status())
    site.plane.enter_inference(1, running)
    site.plane.report(1, first, second)
    await site.open("/inferences/1")
    row = site.page.locator("[data-slot='0']")
    for cell, text in {"p50": "31 ms", "p99": "4.2 ms", "version": "2"}.items():
        await expect(row.locator(f"[data-cell='{cell}']")).to_have_text(text)
    await expect(site.page.locator("[data-slot='1'] [data-cell='version']")).to_have_text("1")
    await expect(site.page.locator(".replicas .failure")).to_contain_text("goes on answering with version 1")
    await expect(site.page.get_by_text("2 share 1 partition.")).to_be_visible()
    await site.expect_liveness("live")
    site.plane.answer(1, [0.1, 0.9], offset=4, label="dog", score=0.9, input_summary="8×8 numbers from 0 to 16")
    answer = site.page.locator("[data-source='questions/0/4']")
    for text in ("dog", "0.9000", "8×8 numbers from 0 to 16", "digits-keras/1"):
        await expect(answer).to_contain_text(text)
    assert await site.page.evaluate(CONTRASTS) == []


async def test_dead_letters_are_shown_and_sent_again(site: Site) -> None:
    site.plane.train("digits-keras")
    site.plane.infer(1, name="live", input_topic="questions", output_topic="answers", replicas=1)
    site.plane.enter_inference(1, inference_pb2.INFERENCE_STATE_RUNNING)
    await site.open("/inferences/1")
    await site.expect_liveness("live")
    await expect(site.page.locator(".letters")).to_have_count(0)
    for offset in range(3):
        letter = predictions_pb2.DeadLetter(
            offset=offset, reason="DECODE_ERROR", message=f"wrong {offset}", model="digits-keras/1", value="abc"
        )
        letter.source.MergeFrom(predictions_pb2.RecordSource(topic="questions", offset=offset + 40))
        letter.time.GetCurrentTime()
        site.plane.dead_letters.append(letter)
    site.plane.report(1, inference_pb2.ReplicaState(dead_letter_count=3))
    rows = site.page.locator(".letters tbody tr")
    await expect(rows).to_have_count(3)
    for text in ("questions/0/42", "DECODE_ERROR", "wrong 2", "digits-keras/1", "abc"):
        await expect(rows.first).to_contain_text(text)
    await site.page.get_by_role("button", name="Send again").click()
    await site.page.get_by_role("button", name="Really send all of them again").click()
    await expect(site.page.locator(".letters [role='status']")).to_have_text("3 were sent to questions again.")
    assert site.plane.replayed == [0, 1, 2]
    assert await site.page.evaluate(CONTRASTS) == []


@contextlib.asynccontextmanager
async def reporting(plane: ControlPlane, replicas: list[inference_pb2.ReplicaState]) -> AsyncIterator[None]:
    """Replicas that report again and again."""

    async def report() -> None:
        while True:
            plane.report(1, *replicas)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(report())
    yield
    task.cancel()


# The WCAG contrast ratio of every text with the ground that it stands on.
CONTRASTS = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
  const light = (color) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parse(color).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (parse(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("main *, header *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.closest(".unseen, noscript, svg")) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.textContent} ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_can_be_read(site: Site, scheme: str) -> None:
    await site.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    site.plane.train("digits-keras", "digits-torch")
    start_training(site.plane, 1, 2)
    epoch(site.plane, 1, 1)
    site.plane.log("deployment", 1, "train-1-a1", "a line")
    site.plane.log("deployment", 1, "train-2-a1", "a line")
    site.plane.enter(2, deployment_pb2.STATE_FAILED, InvalidArgument(error_pb2.REASON_NAN_LOSS, "NaN", epoch=2))
    await site.open("/deployments/1")
    await site.expect_points(1, 1)
    dark = await site.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    ground = await site.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == (scheme == "dark")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == dark
    assert await site.page.evaluate(CONTRASTS) == []
    await site.open("/")
    await expect(site.page.locator(".rows .pill")).to_be_visible()
    assert await site.page.evaluate(CONTRASTS) == []


async def test_a_chosen_theme_stays(site: Site) -> None:
    await site.page.emulate_media(color_scheme="dark")
    await site.open("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = await site.page.evaluate(ground)
    await site.page.get_by_role("button", name="Theme: as the system").click()
    light = await site.page.evaluate(ground)
    assert light != dark
    await site.page.reload()
    assert await site.page.evaluate(ground) == light
    await site.page.get_by_role("button", name="Theme: light").click()
    await site.page.get_by_role("button", name="Theme: dark").click()
    assert await site.page.evaluate("localStorage.length") == 0


async def test_a_narrow_window_scrolls_in_one_direction(site: Site) -> None:
    await site.page.set_viewport_size({"width": 360, "height": 800})
    site.plane.train("digits-keras-with-a-rather-long-name", "digits-torch")
    start_training(site.plane, 1, 2)
    epoch(site.plane, 1, 1)
    site.plane.infer(1, name="digits-live", input_topic="questions", output_topic="answers", replicas=2)
    for path in ("/", "/deployments/1", "/inferences/1"):
        await site.open(path)
        await expect(site.page.locator(".pill").first).to_be_visible()
        assert await site.page.evaluate("document.scrollingElement.scrollWidth") <= 360, path
