"""The dashboard in a real Chromium against a running service."""

import csv
import hashlib
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from clipwise.client import Client
from clipwise.store.attempts import Attempt
from clipwise.store.reports import Line, add_logs
from clipwise.store.sessions import connect, transaction
from clipwise.store.tables import JobRow
from tests.integration.conftest import Service

pytestmark = pytest.mark.browser

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PLAN_MILLISECONDS = 60_000
JOB_MILLISECONDS = 180_000
PAGES = ("/jobs", "/submit", "/datasets", "/datasets/new", "/models", "/workers", "/keys")


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, service: Service) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=service.url, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def faults() -> list[str]:
    """What the browser complained about; a test that ends with any has failed."""
    return []


@pytest.fixture
def page(context: BrowserContext, service: Service, faults: list[str]) -> Iterator[Page]:
    """A page that is signed in by a link, as the service prints it."""
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    with service.client() as client:
        page.goto(client.sign_in_link().url)
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    assert "#" not in page.url
    yield page
    assert faults == []


def plan(page: Page) -> Locator:
    return page.get_by_role("complementary", name="Plan")


def job_status(page: Page) -> Locator:
    return page.locator(".page-head .chip").first


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def submit_digits(page: Page, *, name: str, steps: int) -> str:
    """Fill the form for a job on digits, submit it, and return its id."""
    page.goto("/submit?dataset=digits&model=mlp")
    page.get_by_label("Name of the job").fill(name)
    page.get_by_label("Steps", exact=True).fill(str(steps))
    page.get_by_label("Every so many steps").fill("10")
    expect(plan(page).get_by_text(re.compile(r"^ε 2\.9|^ε 3"))).to_be_visible(timeout=PLAN_MILLISECONDS)
    expect(plan(page).locator("dl")).to_contain_text(f"Steps{steps:,}")
    page.get_by_role("button", name="Submit job").click()
    page.wait_for_url(re.compile(r"/jobs/job_\w+$"))
    return page.url.rsplit("/", 1)[1]


@contextmanager
def long_jobs(service: Service, *names: str) -> Iterator[tuple[Client, list[str]]]:
    """Jobs that train until the end of the block, one at a time: the service has one worker with one slot."""
    with service.client() as client:
        ids = [
            client.submit(
                {
                    "name": name,
                    "dataset": "digits",
                    "model": {"kind": "mlp", "hidden_sizes": [16]},
                    "training": {"steps": 400_000, "batch_size": 32},
                    "clipping": {"max_norm": 1.0},
                    "evaluation": {"fraction": 0.0},
                }
            ).id
            for name in names
        ]
        try:
            yield client, ids
        finally:
            client.bulk("cancel", ids=ids)


def print_lines(service: Service, job_id: str, *lines: str) -> None:
    """Write lines into the log of a job that runs, as its worker does with what the runner prints."""
    engine = connect(f"sqlite:///{service.data_dir / 'clipwise.db'}")
    with transaction(engine) as session:
        job = session.get_one(JobRow, job_id)
        attempt = Attempt(job_id=job_id, number=job.attempt, token=job.token)
        add_logs(session, attempt, [Line(stream="stdout", text=line, at=datetime.now(UTC)) for line in lines])
    engine.dispose()


def until_training(page: Page) -> None:
    """Wait until the job of this page has run a step."""
    expect(page.get_by_text(re.compile(r"^Step [1-9][\d,]* of 400,000$"))).to_be_visible(
        timeout=JOB_MILLISECONDS
    )


def test_without_a_key_there_is_only_the_form(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/datasets")
    expect(page.get_by_text("Where is my key?")).to_be_visible()
    page.get_by_label("API key").fill("cw_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("This key is not known here")).to_be_visible()
    expect(page.get_by_text("digits")).to_have_count(0)


def test_a_key_signs_in_and_a_link_works_once(context: BrowserContext, service: Service) -> None:
    with service.client() as client:
        link = client.sign_in_link().url
    page = context.new_page()
    page.goto(link)
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_text("This sign-in link no longer works.")).to_be_visible()
    page.get_by_label("API key").fill(service.api_key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()


def test_a_job_from_the_form_to_its_files(page: Page, service: Service, tmp_path: Path) -> None:
    job_id = submit_digits(page, name="from the browser", steps=300)

    expect(job_status(page)).to_have_text("running", timeout=JOB_MILLISECONDS)
    expect(page.get_by_text(re.compile(r"^Step \d+ of 300$"))).to_be_visible(timeout=JOB_MILLISECONDS)
    expect(job_status(page)).to_have_text("succeeded", timeout=JOB_MILLISECONDS)
    expect(page.locator("figure.chart canvas")).not_to_have_count(0)
    with service.client() as client:
        known = {file.name: file.sha256 for file in client.artifacts(job_id)}
        metrics = client.metrics(job_id)
    steps = {*metrics["train/loss"].step, *metrics["eval/loss"].step}
    page.get_by_role("button", name="Show Loss as a table").click()
    rows = page.get_by_role("region", name="Loss as a table").locator("tbody tr")
    expect(rows).to_have_count(min(100, len(steps)))

    page.get_by_role("tab", name="Gradients").click()
    expect(page.locator("figure.chart canvas")).to_have_count(2)
    page.get_by_label("Log scale").check()
    expect(page).to_have_url(re.compile(r"scale=log"))
    expect(page.locator("figure.chart canvas")).to_have_count(2)
    expect(page.get_by_text("exact: for the data owner, outside the guarantee")).to_have_count(2)
    page.get_by_role("tab", name="Privacy").click()
    expect(page.get_by_text("released: covered by the guarantee")).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    expect(page).to_have_url(re.compile(r"tab=artifacts"))

    assert set(known) == {"model.safetensors", "config.json", "privacy.json"}
    for name, sha256 in known.items():
        row = page.get_by_role("row").filter(has_text=name)
        with page.expect_download() as started:
            row.get_by_role("link", name="Download").click()
        saved = tmp_path / name
        started.value.save_as(saved)
        assert hashlib.sha256(saved.read_bytes()).hexdigest() == sha256
    assert json.loads((tmp_path / "privacy.json").read_text())

    page.goto("/jobs")
    expect(page.get_by_role("row").filter(has_text="from the browser")).to_contain_text("succeeded")
    page.keyboard.press("/")
    page.keyboard.type("no job is called this")
    expect(page.get_by_text("No job fits")).to_be_visible()


def test_cancel_clone_delete(page: Page) -> None:
    submit_digits(page, name="to be cancelled", steps=100_000)
    expect(job_status(page)).to_have_text("running", timeout=JOB_MILLISECONDS)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(job_status(page)).to_have_text("cancelled")

    page.get_by_role("link", name="Clone").first.click()
    expect(page.get_by_label("Name of the job")).to_have_value("to be cancelled (copy)")
    expect(page.get_by_label("Steps", exact=True)).to_have_value("100000")
    page.go_back()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the job").click()
    page.wait_for_url("**/jobs")
    expect(page.get_by_role("link", name="to be cancelled")).to_have_count(0)


def test_a_job_is_paused_resumed_and_cloned(page: Page, service: Service, tmp_path: Path) -> None:
    with long_jobs(service, "to be paused") as (client, [job_id]):
        page.goto(f"/jobs/{job_id}")
        until_training(page)
        page.get_by_role("button", name="Pause").click()
        expect(job_status(page)).to_have_text("paused")
        expect(page.get_by_text(re.compile(r"^Paused at step [1-9][\d,]* of 400,000$"))).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)

        page.get_by_role("tab", name="Attempts").click()
        expect(page.get_by_role("row").filter(has_text="wkr_")).to_contain_text("paused")
        [newest, *_] = client.checkpoints(job_id)
        row = page.get_by_role("row").filter(has_text=newest.sha256[:12])
        with page.expect_download() as started:
            row.get_by_role("link", name="Download").click()
        saved = tmp_path / started.value.suggested_filename
        started.value.save_as(saved)
        assert hashlib.sha256(saved.read_bytes()).hexdigest() == newest.sha256

        page.get_by_role("button", name="Resume").click()
        running = page.get_by_role("row").filter(has_text="running")
        expect(running).to_contain_text(f"{newest.step:,}", timeout=JOB_MILLISECONDS)
        assert client.job(job_id).attempt == 2

        page.get_by_role("link", name="Clone").first.click()
        expect(page.get_by_label("Name of the job")).to_have_value("to be paused (copy)")
        page.get_by_label("Name of the job").fill("to be short")
        page.get_by_label("Steps", exact=True).fill("5")
        page.get_by_role("button", name="Submit job").click()
        page.wait_for_url(re.compile(r"/jobs/job_\w+$"))
        expect(page.get_by_role("heading", name="to be short")).to_be_visible()
        clone = client.job(page.url.rsplit("/", 1)[1])
        assert clone.parent is not None
        assert (clone.parent.id, clone.parent.verb) == (job_id, "clone")
        assert clone.spec == {
            **client.job(job_id).spec,
            "name": "to be short",
            "training": {**clone.spec["training"], "steps": 5},
        }
        page.get_by_text("cloned from").get_by_role("link").click()
        expect(page.get_by_role("heading", name="to be paused")).to_be_visible()


def test_many_jobs_are_cancelled_at_once(page: Page, service: Service) -> None:
    with long_jobs(service, "bulk one", "bulk two", "bulk three") as (client, ids):
        client.cancel(ids[1])
        page.goto(f"/jobs/{ids[1]}")
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_text("a retry of").get_by_role("link")).to_have_text(ids[1])
        ids.append(page.url.rsplit("/", 1)[1])

        page.goto("/jobs?q=bulk")
        expect(page.locator("tbody tr")).to_have_count(4)
        page.locator("tbody").get_by_role("checkbox").first.check()
        page.locator("tbody").get_by_role("checkbox").last.click(modifiers=["Shift"])
        chosen = page.get_by_role("region", name="Selected jobs")
        expect(chosen).to_contain_text("4 selected")
        expect(chosen.get_by_role("button", name="Resume")).to_be_disabled()
        chosen.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", name="Cancel 3 of 4 jobs?")).to_be_visible()
        page.get_by_role("button", name="Cancel 3 jobs").click()
        result = page.get_by_role("dialog")
        expect(result.get_by_role("heading")).to_have_text("1 job refused")
        expect(result).to_contain_text("Done for 3 jobs.")
        expect(result.get_by_role("listitem")).to_contain_text("bulk two")
        expect(result.get_by_role("listitem")).to_contain_text("it is cancelled")
        result.get_by_role("button", name="Close").click()
        expect(chosen).to_have_count(0)
        expect(page.locator("tbody .chip").filter(has_text="cancelled")).to_have_count(4)
        assert {client.job(one).status for one in ids} == {"cancelled"}


def test_the_jobs_of_all_pages_are_cancelled_at_once(page: Page, service: Service) -> None:
    with long_jobs(service, *[f"page after page {number}" for number in range(52)]) as (client, ids):
        page.goto("/jobs?q=after+page")
        chosen = page.get_by_role("region", name="Selected jobs")
        page.get_by_role("checkbox", name="Select all jobs of this page").check()
        expect(chosen).to_contain_text("50 selected")
        chosen.get_by_role("button", name="Select all pages").click()
        expect(chosen).to_contain_text("All pages selected")
        # Who leaves one out means those at hand again.
        page.locator("tbody").get_by_role("checkbox").first.uncheck()
        expect(chosen).to_contain_text("49 selected")
        expect(chosen.get_by_role("button", name="Select all pages")).to_have_count(0)
        page.get_by_role("checkbox", name="Select all jobs of this page").check()
        chosen.get_by_role("button", name="Select all pages").click()
        chosen.get_by_role("button", name="Cancel").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("every job with “after page” in their name, on all pages")
        dialog.get_by_role("button", name="Cancel all of them").click()
        expect(chosen).to_have_count(0)
        expect(page.locator("tbody .chip").filter(has_text="cancelled")).to_have_count(50)
        # The one that trained is on the other page, and takes its moment.
        assert {client.wait(one, timeout=30).status for one in ids} == {"cancelled"}


def test_logs_grow_as_they_are_printed(page: Page, service: Service, faults: list[str]) -> None:
    with long_jobs(service, "that prints") as (_, [job_id]):
        page.goto(f"/jobs/{job_id}?tab=logs")
        until_training(page)
        expect(page.get_by_text("Nothing has been printed yet")).to_be_visible()
        print_lines(service, job_id, *[f"line {number}" for number in range(100)])
        lines = page.get_by_role("list", name="Lines")
        expect(lines.get_by_text("line 99", exact=True)).to_be_in_viewport()
        expect(page.get_by_text("As it is printed")).to_be_visible()
        print_lines(service, job_id, "and one more")
        expect(lines.get_by_text("and one more")).to_be_in_viewport()

        to_end = page.get_by_role("button", name="To the end")
        expect(to_end).to_be_disabled()
        lines.evaluate("list => list.scrollTo({ top: 0 })")
        expect(to_end).to_be_enabled()
        print_lines(service, job_id, "while somebody reads")
        expect(lines.get_by_text("while somebody reads")).to_be_attached()
        assert lines.evaluate("list => list.scrollTop") == 0
        to_end.click()
        expect(lines.get_by_text("while somebody reads")).to_be_in_viewport()

        # Where a stream does not come through, the list is read now and then.
        page.route("**/logs?after=*", lambda route: route.abort())
        page.reload()
        expect(page.get_by_text("Read anew every two seconds")).to_be_visible()
        print_lines(service, job_id, "without a stream")
        expect(lines.get_by_text("without a stream")).to_be_in_viewport()
    assert all("ERR_FAILED" in fault for fault in faults)
    faults.clear()


def test_a_worker_is_drained_and_takes_jobs_again(page: Page, service: Service) -> None:
    with long_jobs(service, "to be put back") as (client, [job_id]):
        page.goto(f"/jobs/{job_id}")
        until_training(page)
        [worker] = client.workers()
        try:
            page.get_by_role("link", name="Workers").click()
            row = page.get_by_role("row").filter(has_text=worker.id)
            expect(row.get_by_role("link", name=job_id[-6:])).to_be_visible()
            row.get_by_role("button", name="Drain").click()
            page.get_by_role("button", name="Drain it").click()
            expect(row.locator(".chip")).to_have_text("drained")
            page.goto(f"/jobs/{job_id}")
            interrupted = re.compile(r"^Interrupted; goes on from step [\d,]+ when a worker is free$")
            expect(page.get_by_text(interrupted)).to_be_visible()
            expect(page.get_by_text("each worker that could run it is draining")).to_be_visible()
            page.go_back()
            row.get_by_role("button", name="Undrain").click()
            expect(row.locator(".chip")).to_have_text("up")
        finally:
            client.undrain(worker.id)
        page.goto(f"/jobs/{job_id}")
        expect(job_status(page)).to_have_text("running", timeout=JOB_MILLISECONDS)


def test_an_operator_sees_the_machines_alone(context: BrowserContext, service: Service) -> None:
    made = httpx.post(
        f"{service.url}/v1/api_keys",
        headers={"Authorization": f"Bearer {service.api_key}"},
        json={"name": "who keeps it running", "role": "operator"},
    )
    page = context.new_page()
    page.goto("/")
    page.get_by_label("API key").fill(made.raise_for_status().json()["secret"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Drain")).to_be_visible()
    expect(page.get_by_role("link", name="Jobs")).to_have_count(0)
    expect(page.get_by_role("link", name="New job")).to_have_count(0)


def test_what_is_wrong_stands_at_its_field(page: Page, faults: list[str]) -> None:
    page.goto("/submit?dataset=digits&model=mlp")
    sizes = page.get_by_label("Hidden sizes")
    sizes.fill("128, 0")
    expect(sizes).to_have_attribute("aria-invalid", "true", timeout=PLAN_MILLISECONDS)
    expect(page.locator(".field", has=sizes).locator(".field__error")).to_be_visible()
    expect(page.get_by_role("button", name="Submit job")).to_be_disabled()

    page.get_by_role("button", name="JSON", exact=True).click()
    page.get_by_label("Specification as JSON").fill('{"dataset": ')
    expect(page.get_by_text("This is not JSON yet")).to_be_visible()
    page.get_by_label("Specification as JSON").fill(
        '{"dataset": "digits", "model": {"kind": "mlp"}, "stepz": 1}'
    )
    expect(plan(page).get_by_text("Stepz:")).to_be_visible(timeout=PLAN_MILLISECONDS)
    # A refused plan is an answer of 422, which Chromium writes to its console as an error.
    assert all("422" in fault for fault in faults)
    faults.clear()


def test_upload_correct_confirm(page: Page, tmp_path: Path) -> None:
    chance = random.Random(7)
    table = tmp_path / "visits.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "ward", "readmitted"])
        for _ in range(400):
            age = chance.randint(20, 90)
            writer.writerow([age, chance.choice("ABC"), "yes" if age > 55 else "no"])

    page.goto("/datasets")
    page.get_by_role("link", name="Upload").click()
    page.locator("input[type=file]").set_input_files(table)
    expect(page.get_by_label("Name")).to_have_value("visits")
    upload = page.get_by_role("button", name="Upload")
    expect(upload).to_be_disabled()
    page.get_by_role("radio", name="Private").check()
    expect(upload).to_be_disabled()
    page.get_by_label("How many rows can one person have at most?").fill("1")
    page.get_by_label("Column to predict").fill("readmitted")
    upload.click()

    expect(page.get_by_role("heading", name="Check the proposed schema")).to_be_visible()
    expect(page.get_by_text("outside of the privacy guarantee")).to_be_visible()
    page.get_by_label("Lowest age").fill("0")
    page.get_by_label("Highest age").fill("120")
    page.get_by_role("button", name="I know all of them: declared").click()
    page.get_by_role("button", name="Confirm schema").click()
    expect(page.get_by_text("ready", exact=True)).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="age")).to_contain_text("0 to 120")
    page.get_by_role("link", name="New job on it").click()
    expect(page.get_by_label("Data set", exact=True)).to_have_value("visits")
    expect(plan(page).get_by_text(re.compile(r"^ε "))).to_be_visible(timeout=PLAN_MILLISECONDS)


def test_a_bad_file_says_where(page: Page, tmp_path: Path, faults: list[str]) -> None:
    table = tmp_path / "broken.csv"
    table.write_text("age,label\n1,a\n2,b,too many\n3,a\n")
    page.goto("/datasets/new")
    page.locator("input[type=file]").set_input_files(table)
    page.get_by_role("radio", name="Public").check()
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("row 2")
    assert all("422" in fault for fault in faults)
    faults.clear()


def test_themes_are_kept(page: Page) -> None:
    page.get_by_role("button", name="Light theme").click()
    light = background(page)
    page.get_by_role("button", name="Dark theme").click()
    dark = background(page)
    assert light != dark
    page.reload()
    expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "true")
    assert background(page) == dark


@pytest.mark.parametrize("width", [400, 1280])
def test_every_page_fits_its_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for path in PAGES:
        page.goto(path)
        expect(page.locator("h1")).to_be_visible()
        expect(page.get_by_label("Loading")).to_have_count(0, timeout=PLAN_MILLISECONDS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_a_lost_connection_is_said_and_mended(page: Page, context: BrowserContext, faults: list[str]) -> None:
    page.goto("/workers")
    expect(page.get_by_role("heading", name="Queues", exact=True)).to_be_visible()
    context.set_offline(True)
    expect(page.get_by_text("Connection lost")).to_be_visible()
    context.set_offline(False)
    expect(page.get_by_text("Connection lost")).to_have_count(0)
    assert all("ERR_INTERNET_DISCONNECTED" in fault for fault in faults)
    faults.clear()
