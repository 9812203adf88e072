"""A browser for the report's pages; its errors and requests are recorded."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from repsim.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing(what):
    """Skip on a machine without a browser; in CI a missing browser is an error."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"the report's pages are not tested: {what}")
    pytest.skip(f"{what}; apt-get install chromium, pip install playwright")


@pytest.fixture(scope="session")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        missing(f"none of {', '.join(BROWSERS)} is installed")
    if importlib.util.find_spec("playwright") is None:
        missing("playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=found, args=QUIET)
        yield made
        made.close()


@pytest.fixture
def screenshots(tmp_path):
    """The folder named by REPSIM_SCREENSHOTS, or a temporary one."""
    folder = Path(os.environ.get("REPSIM_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def heard(told, complaints):
    """Keep the messages of the console, except advice about reading pixels."""
    if told.type in ("error", "warning") and "willReadFrequently" not in told.text:
        complaints.append(told.text)


@pytest.fixture
def show(browser, tmp_path):
    """Write a report and open it; every message and request of the browser is an error."""
    contexts, complaints, requests = [], [], []

    def open_page(results, *, width=1440, height=900, scheme="light", touch=False, **options):
        path = write_report(results, tmp_path / "report.html", **options)
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            has_touch=touch,
            is_mobile=touch,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda told: heard(told, complaints))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: requests.append(asked.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached", timeout=15_000)
        page.complaints, page.requests, page.file = complaints, requests, path
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    # The page itself; "data:" and "blob:" are inside of it.
    assert [url for url in requests if not url.startswith(("data:", "blob:", "file:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == len(contexts)
