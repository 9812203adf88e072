"""Pages of the report in a browser, whose errors and requests are recorded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repsim.report import write_report


@pytest.fixture
def keep():
    """A function that writes a page as a PNG or a PDF to the folder REPSIM_SCREENSHOTS, if any."""

    def write(page, name):
        if folder := os.environ.get("REPSIM_SCREENSHOTS"):
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".pdf":
                page.pdf(path=path)
            else:
                page.screenshot(path=path, full_page=True)

    return write


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
