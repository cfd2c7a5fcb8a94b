"""Chromium with a page from the disk, and what tests ask of it over and over."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
TOOLS = Path(__file__).parents[2] / "build" / "browser" / "node_modules"


def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    downloads = {"download.default_directory": str(profile / "downloads"), "download.prompt_for_download": False}
    options.add_experimental_option("prefs", downloads)
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield browser
    browser.quit()


def html_errors(path: Path) -> str:
    """What the validator of the HTML standard says of a page; empty for a valid one."""
    vnu = ["java", "-jar", TOOLS / "vnu-jar" / "build" / "dist" / "vnu.jar", path]
    checked = subprocess.run(vnu, capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0 or checked.stderr, "the validator did not run"
    return checked.stdout + checked.stderr


class Tab:
    """A browser with the page."""

    def __init__(self, driver: webdriver.Chrome, path: Path) -> None:
        self.driver, self.path = driver, path

    def open(self, width: int = 1200, scripts: bool = True, height: int = 800) -> None:
        """Load the page anew in a window of this size."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(self.path.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """Wait until `script` returns something true; returns it."""
        return WebDriverWait(self.driver, 30, 0.05).until(lambda _: self.ask(script, *arguments), script)

    def element(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def choose(self, version: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, f'#versions input[value="{version}"]').click()

    def play(self) -> None:
        """Start as a person does, and wait until it sounds and all versions are ready."""
        self.element("play").click()
        self.wait("return player.playing && !player.waiting && player.now() > player.plan[0].when")

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.ask("const root = document.documentElement; return root.scrollWidth - root.clientWidth"))

    def too_wide(self) -> list[str]:
        return list(
            self.ask(
                "return [...document.body.querySelectorAll('*')]"
                ".filter(e => !e.closest('.scroll table') && e.getBoundingClientRect().right > innerWidth + 1)"
                ".map(e => e.outerHTML)"
            )
        )

    def axe(self, width: int, dark: bool) -> list[tuple[str, str, str]]:
        """What axe finds wrong with all of the page open."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        try:
            self.open(width)
            self.ask("for (const closed of document.querySelectorAll('details')) closed.open = true")
            self.ask((TOOLS / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
            self.driver.set_script_timeout(60)
            run = "axe.run().then(arguments[0], error => arguments[0]({error: String(error)}))"
            found = self.driver.execute_async_script(run)
        finally:
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        assert len(found["passes"]) > 20
        return [(one["id"], node["html"], node["failureSummary"]) for one in found["violations"] for node in one["nodes"]]
