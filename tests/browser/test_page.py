"""The page of a run in a real browser, opened from the disk as by a double click. Needs what install.sh installs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from p2p_dist.evaluate.report import page
from p2p_dist.run.rundir import step_name
from tests.browser import picture
from tests.browser.tab import Tab, chromium, html_errors
from tests.evaluate.finished_run import HOSTILE, make

SECONDS = 20.0


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    yield from chromium(tmp_path_factory.mktemp("profile"))


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


def test_all_sounds_load_from_the_disk_alone(tab: Tab) -> None:
    for key in ("dawn", "odd-key"):
        for track in ("input", "target", "ceiling", *(step_name(step) for step in (30, 60, 90))):
            for part in ("0", "1", "overview"):
                tab.driver.set_script_timeout(30)
                script = "const done = arguments[1]; loadMedia(arguments[0]).then(c => done(Boolean(c)), e => done(String(e)))"
                assert tab.driver.execute_async_script(script, f"{key}/{track}/{part}") is True
    requests = tab.requests()
    assert len(requests) > 36 and all(url.startswith(("file:///", "data:")) for url in requests), requests
    assert tab.complaints() == []


def test_little_loads_before_it_is_asked_for(tab: Tab) -> None:
    tab.wait("return views.shown?.length === 2")
    names = sorted("/".join(url.rsplit("/", 2)[1:]) for url in tab.requests() if url.endswith(".js"))
    assert names == ["input/overview.js", f"{step_name(90)}/overview.js"]


def test_a_hostile_name_is_shown_as_it_is(tab: Tab) -> None:
    assert tab.element("song-name").text == HOSTILE
    assert Select(tab.element("song")).options[0].text == HOSTILE
    assert tab.driver.title == "drums-demo"


def test_it_begins_with_the_best_checkpoint_and_the_mix(tab: Tab) -> None:
    assert Select(tab.element("choice")).first_selected_option.text == "step 90 (the best, the last)"
    assert tab.ask("return version()") == "mix"
    assert tab.element("heard").text == "You hear the song with the drums that the model made (step 90)."
    assert tab.element("best").text.startswith("Best checkpoint: step 90, score 0.")


def test_another_song_and_checkpoint_show_their_figures(tab: Tab) -> None:
    assert _figures(tab) == {"grid": "0.60", "stem L1 dB": "11.00", "mix L1 dB": "4.00", "onset F1": "–"}
    assert tab.ask(_FIGURES)["onset F1"][1] == "the true stem has no onset"
    Select(tab.element("choice")).select_by_visible_text("step 30")
    assert _figures(tab) == {"grid": "0.00", "stem L1 dB": "17.00", "mix L1 dB": "5.33", "onset F1": "–"}
    assert tab.ask(_FIGURES)["grid"][1] == ""
    for head in tab.driver.find_elements(By.CSS_SELECTOR, ".song[data-key=dawn] tr.output th"):
        assert "step 30" in tab.ask("return arguments[0].textContent", head)
    Select(tab.element("song")).select_by_index(1)
    shown = [one.get_dom_attribute("data-key") for one in tab.driver.find_elements(By.CLASS_NAME, "song") if one.is_displayed()]
    assert shown == ["odd-key"]
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


_PICTURE = """
const top = Math.round((views.canvas.clientHeight - BOTTOM) * WAVE) + 6, from = Math.round(views.place(arguments[0]));
const pen = views.canvas.getContext("2d"), low = views.canvas.clientHeight - BOTTOM - top;
return [...pen.getImageData(from, top, Math.round(views.place(arguments[1])) - from, low).data].reduce((a, b) => a + b);
"""


def test_a_clip_is_drawn_where_it_is_heard(driver: webdriver.Chrome, tmp_path: Path) -> None:
    """Of an excerpt of 50 s, 30 s: both spectrograms have as many columns."""
    run, settings = make(tmp_path / "drums-demo", {"dawn": "Dawn"}, steps=(30, 60), seconds=50.0)
    tab = Tab(driver, page.write(run, settings))
    tab.open()
    Select(tab.element("choice")).select_by_visible_text("step 30")
    tab.wait("return views.shown?.length === 2 && views.shown[1].seconds < 31")
    assert tab.ask("return views.shown.map((one) => one.columns)") == [1500, 1500]
    both, only_song = tab.ask(_PICTURE, 1.0, 29.0), tab.ask(_PICTURE, 31.0, 49.0)
    tab.choose("input")
    tab.wait("return views.shown.length === 1")
    assert tab.ask(_PICTURE, 31.0, 49.0) == only_song and tab.ask(_PICTURE, 1.0, 29.0) < 0.95 * both


def test_another_song_plays_on_and_another_checkpoint_is_heard(tab: Tab) -> None:
    tab.play()
    Select(tab.element("choice")).select_by_visible_text("step 60")
    tab.wait("return player.voices.has(arguments[0]) && player.voices.size === 2", step_name(60))
    Select(tab.element("song")).select_by_index(1)
    tab.wait("return player.playing && !player.waiting && player.voices.size === 2 && player.song.key === 'odd-key'")
    assert tab.complaints() == []


def test_a_blind_test_does_not_tell_by_the_figures_what_is_heard(tab: Tab) -> None:
    tab.driver.find_element(By.CSS_SELECTOR, "#blind summary").click()
    for name, version in (("blind-a", "mix (step 30)"), ("blind-b", "mix (step 60)")):
        Select(tab.element(name)).select_by_visible_text(version)
    before = tab.ask("return document.getElementById('figures').textContent + version()")
    tab.driver.find_element(By.CSS_SELECTOR, "#blind-setup [type=submit]").click()
    words = "return document.body.innerText.replaceAll(/[0-9]:[0-9.]+/g, '')"  # without the time
    shown = tab.ask(words)
    heard = set()
    for which in (0, 1):
        tab.driver.find_element(By.CSS_SELECTOR, f'[data-hear="{which}"]').click()
        heard |= set(tab.ask("return [...player.heard.keys()]"))
        assert tab.ask(words) == shown
    assert {step_name(30), step_name(60)} < heard
    tab.element("blind-stop").click()
    assert tab.ask("return document.getElementById('figures').textContent + version()") == before
    assert tab.complaints() == []


def test_what_is_only_reported_opens(tab: Tab) -> None:
    summaries = [one for one in tab.driver.find_elements(By.TAG_NAME, "summary") if one.is_displayed()]
    assert len(summaries) == 4
    for summary in summaries:
        tab.ask("arguments[0].scrollIntoView(); arguments[0].focus()", summary)
        summary.send_keys(Keys.ENTER)
        tab.wait("return arguments[0].parentElement.open", summary)
    assert "silence can have the best mix L1" in tab.driver.find_element(By.TAG_NAME, "main").text
    assert tab.overflow() == 0
    assert tab.complaints() == []


@pytest.mark.parametrize("width", [320, 390, 820, 1600])
def test_fits_the_window(tab: Tab, width: int) -> None:
    tab.open(width)
    assert tab.ask("return innerWidth") == width
    assert tab.overflow() == 0
    assert tab.too_wide() == []


def test_a_wide_table_is_scrolled_by_keyboard(tab: Tab) -> None:
    tab.open(390)
    table = tab.driver.find_element(By.CSS_SELECTOR, "#measures ~ .scroll")
    assert tab.ask("return arguments[0].scrollWidth > arguments[0].clientWidth + 50", table)
    tab.ask("[...document.querySelectorAll('.song:not([hidden]) summary')].at(-1).focus()")
    tab.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert tab.driver.switch_to.active_element == table
    table.send_keys(Keys.ARROW_RIGHT)
    tab.wait("return arguments[0].scrollLeft > 0", table)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_axe_finds_nothing(tab: Tab, width: int, dark: bool) -> None:
    assert tab.axe(width, dark) == []


def test_the_page_is_valid_html(path: Path) -> None:
    assert html_errors(path) == ""


def test_figures_are_readable_without_scripts(tab: Tab) -> None:
    try:
        tab.open(scripts=False)
        assert not tab.element("play").is_displayed()
        assert "To listen on this page, allow JavaScript" in tab.driver.find_element(By.TAG_NAME, "main").text
        assert [one.is_displayed() for one in tab.driver.find_elements(By.CLASS_NAME, "song")] == [True, True]
        assert "0.60" in tab.driver.find_element(By.CSS_SELECTOR, ".song[data-key=dawn] tr.output").text
    finally:
        tab.open()


def test_the_picture_of_the_readme_is_of_a_page_that_plays(tab: Tab, tmp_path: Path) -> None:
    """`tests.browser.picture` makes it. That in the repository has its width, and is small enough for a page that many open."""
    picture.take(tab, tmp_path / "page.png")
    kept = Path(__file__).parents[2] / ".github" / "page.png"
    sizes = [struct.unpack(">II", path.read_bytes()[16:24]) for path in (tmp_path / "page.png", kept)]
    assert sizes == [(picture.WIDTH, picture.HEIGHT)] * 2 and kept.stat().st_size < 150_000
    assert picture.AT <= tab.ask("return player.position()") < SECONDS and tab.ask("return player.playing") is True
