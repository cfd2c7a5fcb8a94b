"""The page in a real browser, opened from the disk as by a double click. Needs what install.sh installs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from p2p_dist.evaluate.report import page
from p2p_dist.evaluate.report.media import CLIP
from tests.evaluate.finished_run import HOSTILE, make

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
SECONDS = 20.0
TOOLS = Path(__file__).parents[2] / "build" / "browser" / "node_modules"


class Tab:
    """A browser with the page, and what is asked of it over and over."""

    def __init__(self, driver: webdriver.Chrome, path: Path) -> None:
        self.driver, self.path = driver, path
        self.log: list[dict[str, Any]] = []

    def open(self, width: int = 1200, scripts: bool = True) -> None:
        """Load the page anew in a window of this width."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(self.path.as_uri())

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """Wait until `script` returns something true; returns it."""
        return WebDriverWait(self.driver, 15, 0.05).until(lambda _: self.ask(script, *arguments), script)

    def song(self, key: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, f'.song[data-key="{key}"]')

    def sound(self, key: str, version: str) -> WebElement:
        return self.song(key).find_element(By.CSS_SELECTOR, f'[data-version="{version}"] audio')

    def choose(self, key: str, version: str) -> None:
        self.song(key).find_element(By.CSS_SELECTOR, f'input[value="{version}"]').click()

    def play(self, key: str, version: str, at: float) -> WebElement:
        """Start as a person does: by the keyboard on the player's own button."""
        sound = self.sound(key, version)
        self.wait("return arguments[0].readyState > 0", sound)
        self.ask("arguments[0].currentTime = arguments[1]; arguments[0].focus()", sound, at)
        sound.send_keys(Keys.SPACE)
        self.wait("return !arguments[0].paused && arguments[0].currentTime > arguments[1]", sound, at)
        return sound

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in [*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "drums-demo"
    songs = {"dawn": HOSTILE, "odd-key": "A song with a name " + "without_any_space" * 8}
    run, settings = make(folder, songs, seconds=SECONDS)
    return page.write(run, settings)


@pytest.fixture
def tab(driver: webdriver.Chrome, path: Path) -> Tab:
    tab = Tab(driver, path)
    tab.requests(), tab.complaints()  # what an earlier test left in the logs
    tab.open()
    return tab


def test_all_sound_and_pictures_load_from_the_disk_alone(tab: Tab) -> None:
    sounds = tab.driver.find_elements(By.TAG_NAME, "audio")
    assert len(sounds) == 12
    for sound in sounds:
        tab.ask("arguments[0].preload = 'auto'; arguments[0].load()", sound)
        tab.wait("return arguments[0].readyState >= 2", sound)
        assert tab.ask("return arguments[0].duration", sound) == pytest.approx(CLIP, abs=0.05)
    pictures = tab.driver.find_elements(By.TAG_NAME, "img")
    assert len(pictures) == 2
    for picture in pictures:
        tab.ask("arguments[0].scrollIntoView()", picture)
        tab.wait("return arguments[0].complete && arguments[0].naturalWidth > 100", picture)
        shape = tab.ask("const p = arguments[0]; return [p.naturalWidth, p.naturalHeight].join()", picture)
        assert shape == f"{picture.get_dom_attribute('width')},{picture.get_dom_attribute('height')}"
    requests = [url for url in tab.requests() if not url.startswith("data:")]  # the browser's own icons of its player
    assert len(requests) >= 15 and all(url.startswith("file:///") for url in requests), requests
    assert tab.complaints() == []


def test_little_loads_before_it_is_asked_for(tab: Tab) -> None:
    for key in ("dawn", "odd-key"):
        tab.wait("return arguments[0].readyState > 0", tab.sound(key, "mix"))
    sounds = {url.rsplit("-", 1)[1] for url in tab.requests() if url.endswith(".flac")}
    assert sounds == {"mix.flac"}


def test_a_hostile_name_is_shown_as_it_is(tab: Tab) -> None:
    assert tab.song("dawn").find_element(By.TAG_NAME, "h3").text == HOSTILE
    assert tab.driver.title == "drums-demo"


def test_another_version_goes_on_at_the_same_place(tab: Tab) -> None:
    last = tab.play("dawn", "mix", 3.0)
    for version in ("input", "stem", "true-mix", "target", "ceiling", "mix"):
        before = tab.ask("return arguments[0].currentTime", last)
        tab.choose("dawn", version)
        sound = tab.sound("dawn", version)
        tab.wait("return !arguments[0].paused && arguments[0].readyState > 1 && !arguments[0].seeking", sound)
        now = tab.ask("return arguments[0].currentTime", sound)
        assert before <= now < before + 1.5, version
        tab.wait("return arguments[0].currentTime > arguments[1]", sound, now)
        shown = [a for a in tab.song("dawn").find_elements(By.TAG_NAME, "audio") if a.is_displayed()]
        assert shown == [sound]
        assert tab.ask("return [...document.querySelectorAll('audio')].filter(a => !a.paused).length") == 1
        last = sound
    assert tab.complaints() == []


_SETTINGS = "const a = arguments[0]; return [a.volume, a.muted, a.playbackRate, a.loop]"


def test_another_version_or_checkpoint_keeps_volume_speed_and_loop(tab: Tab) -> None:
    sound = tab.play("dawn", "mix", 2.0)
    wanted = [0.25, False, 0.75, True]
    tab.ask("const a = arguments[0]; [a.volume, a.playbackRate, a.loop] = [0.25, 0.75, true]", sound)
    for version in ("target", "stem", "mix", "ceiling", "mix"):
        tab.choose("dawn", version)
        sound = tab.sound("dawn", version)
        tab.wait("return !arguments[0].paused && arguments[0].readyState > 1", sound)
        assert tab.ask(_SETTINGS, sound) == wanted, version
    Select(tab.driver.find_element(By.ID, "checkpoint")).select_by_value("30")
    tab.wait("return !arguments[0].paused && arguments[0].readyState > 1 && !arguments[0].seeking", sound)
    assert tab.ask(_SETTINGS, sound) == wanted, "loading a sound sets its speed anew"
    wanted[1:] = [True, 1.25, False]
    tab.ask("const a = arguments[0]; [a.muted, a.playbackRate, a.loop] = [true, 1.25, false]", sound)
    tab.choose("dawn", "stem")  # of which the sound is another now, too
    sound = tab.sound("dawn", "stem")
    tab.wait("return !arguments[0].paused && arguments[0].readyState > 1", sound)
    assert tab.ask(_SETTINGS, sound) == wanted
    assert tab.ask(_SETTINGS, tab.sound("odd-key", "mix")) == [1, False, 1, False]
    assert tab.complaints() == []


def test_quick_changes_keep_the_place(tab: Tab) -> None:
    tab.play("dawn", "mix", 8.0)
    # Faster than a sound can load.
    tab.ask(
        "for (const v of ['stem', 'target', 'ceiling', 'input'])"
        " document.querySelector(`.song[data-key=dawn] input[value=${v}]`).click()"
    )
    sound = tab.sound("dawn", "input")
    tab.wait("return !arguments[0].paused && arguments[0].readyState > 1 && !arguments[0].seeking", sound)
    assert 8.0 <= tab.ask("return arguments[0].currentTime", sound) < 10.0
    assert tab.complaints() == []


def test_a_paused_song_stays_paused_at_its_place(tab: Tab) -> None:
    tab.wait("return arguments[0].readyState > 0", tab.sound("dawn", "mix"))
    tab.ask("arguments[0].currentTime = 5", tab.sound("dawn", "mix"))
    tab.choose("dawn", "target")
    sound = tab.sound("dawn", "target")
    tab.wait("return arguments[0].readyState > 0 && !arguments[0].seeking", sound)
    assert tab.ask("return [arguments[0].paused, arguments[0].currentTime]", sound) == [True, 5]


def test_only_one_song_plays(tab: Tab) -> None:
    first = tab.play("dawn", "mix", 1.0)
    tab.play("odd-key", "mix", 1.0)
    assert tab.ask("return arguments[0].paused", first)


def test_keyboard_reaches_and_changes_versions(tab: Tab) -> None:
    choice = tab.song("dawn").find_element(By.CSS_SELECTOR, 'input[value="mix"]')
    tab.ask("document.getElementById('checkpoint').focus()")
    tab.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert tab.driver.switch_to.active_element == choice
    choice.send_keys(Keys.ARROW_RIGHT)
    assert tab.sound("dawn", "stem").is_displayed() and not tab.sound("dawn", "mix").is_displayed()


def test_another_checkpoint_changes_sound_picture_and_figures(tab: Tab) -> None:
    sound = tab.play("dawn", "mix", 4.0)
    assert _figures(tab) == {"grid": "0.60", "stem L1 dB": "11.00", "mix L1 dB": "4.00", "onset F1": "–"}
    assert _reason(tab, "onset F1") == "the true stem has no onset"
    before = tab.ask("return arguments[0].currentTime", sound)
    Select(tab.driver.find_element(By.ID, "checkpoint")).select_by_value("30")
    tab.wait("return !arguments[0].paused && arguments[0].readyState > 1 && !arguments[0].seeking", sound)
    assert before <= tab.ask("return arguments[0].currentTime", sound) < before + 1.5
    for version in ("mix", "stem"):
        assert tab.ask("return arguments[0].src", tab.sound("dawn", version)).endswith(f"step-00000030/dawn-{version}.flac")
    assert _figures(tab) == {"grid": "0.00", "stem L1 dB": "17.00", "mix L1 dB": "5.33", "onset F1": "–"}
    assert _reason(tab, "onset F1") == "the true stem has no onset" and _reason(tab, "grid") == ""
    for head in tab.song("dawn").find_elements(By.CSS_SELECTOR, "tr.output th"):
        assert "step 30" in tab.ask("return arguments[0].textContent", head)
    picture = tab.song("dawn").find_element(By.TAG_NAME, "img")
    tab.ask("arguments[0].scrollIntoView()", picture)
    tab.wait("return arguments[0].complete && arguments[0].naturalWidth > 0", picture)
    assert tab.ask("return arguments[0].src", picture).endswith("step-00000030/dawn.png")
    assert tab.complaints() == []


_FIGURES = """
const found = {};
for (const table of document.querySelectorAll(".song[data-key=dawn] table")) {
  const labels = [...table.querySelectorAll("thead tr:last-child th")].map(th => th.textContent.split("\u00a0")[0].trim());
  [...table.querySelectorAll("tr.output > *")].forEach((cell, at) => { found[labels[at]] = [cell.textContent, cell.title]; });
}
return found;
"""


def _figures(tab: Tab) -> dict[str, str]:
    found = tab.ask(_FIGURES)
    return {name: found[name][0] for name in ("grid", "stem L1 dB", "mix L1 dB", "onset F1")}


def _reason(tab: Tab, name: str) -> str:
    return str(tab.ask(_FIGURES)[name][1])


def test_what_is_only_reported_opens(tab: Tab) -> None:
    summaries = tab.driver.find_elements(By.TAG_NAME, "summary")
    assert len(summaries) == 4
    for summary in summaries:
        tab.ask("arguments[0].scrollIntoView()", summary)
        tab.ask("arguments[0].focus()", summary)
        summary.send_keys(Keys.ENTER)
        tab.wait("return arguments[0].parentElement.open", summary)
    assert "silence can have the best mix L1" in tab.driver.find_element(By.TAG_NAME, "main").text
    assert tab.ask("const root = document.documentElement; return root.scrollWidth - root.clientWidth") == 0
    assert tab.complaints() == []


def test_the_best_checkpoint_is_named(tab: Tab) -> None:
    assert tab.driver.find_element(By.ID, "best").text.startswith("Best checkpoint: step 90, score 0.")
    assert "the best" in tab.driver.find_element(By.CSS_SELECTOR, "#checkpoint option").text


def test_a_checkpoint_changed_while_another_version_plays_leaves_it_alone(tab: Tab) -> None:
    tab.choose("dawn", "input")
    sound = tab.play("dawn", "input", 2.0)
    Select(tab.driver.find_element(By.ID, "checkpoint")).select_by_value("60")
    assert tab.ask("return [arguments[0].paused, arguments[0].currentTime >= 2]", sound) == [False, True]
    tab.choose("dawn", "mix")
    mix = tab.sound("dawn", "mix")
    tab.wait("return !arguments[0].paused && arguments[0].readyState > 1 && !arguments[0].seeking", mix)
    assert tab.ask("return arguments[0].currentSrc", mix).endswith("step-00000060/dawn-mix.flac")
    assert tab.ask("return arguments[0].currentTime", mix) >= 2


@pytest.mark.parametrize("width", [320, 390, 820, 1600])
def test_fits_the_window(tab: Tab, width: int) -> None:
    tab.open(width)
    assert tab.ask("return innerWidth") == width
    assert tab.ask("const root = document.documentElement; return root.scrollWidth - root.clientWidth") == 0
    wide = tab.ask(
        "return [...document.body.querySelectorAll('*')]"
        ".filter(e => !e.closest('.scroll table') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    )
    assert wide == []


def test_a_wide_table_is_scrolled_by_keyboard(tab: Tab) -> None:
    tab.open(390)
    table = tab.driver.find_element(By.CSS_SELECTOR, "#measures ~ .scroll")
    assert tab.ask("return arguments[0].scrollWidth > arguments[0].clientWidth + 50", table)
    tab.ask("[...document.querySelectorAll('.song summary')].at(-1).focus()")
    tab.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert tab.driver.switch_to.active_element == table
    table.send_keys(Keys.ARROW_RIGHT)
    tab.wait("return arguments[0].scrollLeft > 0", table)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_axe_finds_nothing(tab: Tab, width: int, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    tab.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    try:
        tab.open(width)
        tab.ask("for (const closed of document.querySelectorAll('details')) closed.open = true")
        tab.ask((TOOLS / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
        tab.driver.set_script_timeout(60)
        found = tab.driver.execute_async_script("axe.run().then(arguments[0], error => arguments[0]({error: String(error)}))")
    finally:
        tab.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert len(found["passes"]) > 20
    assert [(one["id"], node["html"], node["failureSummary"]) for one in found["violations"] for node in one["nodes"]] == []


def test_the_page_is_valid_html(path: Path) -> None:
    vnu = ["java", "-jar", TOOLS / "vnu-jar" / "build" / "dist" / "vnu.jar", path]
    checked = subprocess.run(vnu, capture_output=True, text=True, timeout=120)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_readable_without_scripts(tab: Tab) -> None:
    try:
        tab.open(scripts=False)
        shown = [sound.is_displayed() for sound in tab.driver.find_elements(By.TAG_NAME, "audio")]
        assert shown == [True] * 12
        assert not tab.driver.find_element(By.ID, "checkpoint").is_displayed()
        assert "the input plus the generated drums" in tab.song("dawn").text
        assert "0.60" in tab.song("dawn").find_element(By.CSS_SELECTOR, "tr.output").text
    finally:
        tab.open()
