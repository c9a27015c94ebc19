"""A page in the machine's Chromium. Tests that import this are skipped where there is no browser."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives the browser, is missing: pip install -e .[test]"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    reason = "no browser: chromium isn't on the PATH; on Debian: apt install chromium"
    pytest.skip(reason, allow_module_level=True)
SECOND = 1000  # Playwright counts milliseconds
ANSWER = 30 * SECOND  # an upper limit for a slow machine
expect = sync_api.expect
expect.set_options(timeout=ANSWER)


@contextmanager
def blank_page(width: int = 1280, height: int = 900) -> Iterator:
    """An empty page in Chromium."""
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(ANSWER)
            yield page
        finally:
            browser.close()
