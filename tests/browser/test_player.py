"""The player of the listening pages in a real browser: what is heard is recorded and measured.

Every sound is a tone that rises by `SLOPE`, each in a band of its own: its pitch tells which sound is heard, and from where.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from p2p_dist.evaluate.report.listening import Sound, write_listening_page
from tests.browser.tab import Tab, chromium, html_errors

RATE, SECONDS, SLOPE = 44100, 12.0, 150.0  # Hz, s, Hz/s
LOWEST = {"input": 500.0, "take-1": 3000.0, "take-2": 6000.0}  # Hz at the begin
TITLE = 'Öö "ja" & <b>päev</b> \u05e9\u05d9\u05e8 </script>'


def tone(track: str) -> Sound:
    at = np.arange(round(SECONDS * RATE)) / RATE
    one = 0.25 * np.sin(2 * np.pi * (LOWEST[track] * at + SLOPE * at**2 / 2))
    sound = np.stack([one, one], 1).astype(np.float32)
    return Sound(track.replace("-", " "), "a tone", RATE, len(sound), lambda: iter([sound]))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    yield from chromium(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stems = [tone("take-1"), tone("take-2")]
    facts = [("model", "drums-demo, step 90"), ("seed", "0")]
    files = [("Drums (FLAC)", "a drums.flac"), ("Drums (MIDI)", "drums.mid")]
    folder = tmp_path_factory.mktemp("generated") / "sõng #1%"
    return write_listening_page(folder, TITLE, tone("input"), stems, made="drums", facts=facts, downloads=files)


@pytest.fixture
def tab(driver: webdriver.Chrome, path: Path) -> Tab:
    tab = Tab(driver, path)
    tab.requests(), tab.complaints()
    tab.open()
    return tab


# All that is heard, from now on; and the position in the song at each click or key, as planned.
_RECORD = """
window.heard = []; window.acted = [];
// The largest pieces there are: a busy machine that is late for one of them loses it.
const recorder = player.context.createScriptProcessor(16384, 1, 1);
recorder.onaudioprocess = (event) => heard.push(new Float32Array(event.inputBuffer.getChannelData(0)));
player.master.connect(recorder); recorder.connect(player.context.destination);
window.recorder = recorder;
const act = () => {
  const piece = player.plan.findLast((one) => one.when <= player.now());
  acted.push(piece.from + player.now() - piece.when);
};
for (const kind of ["click", "keydown"]) document.addEventListener(kind, act, true);
"""
_HEARD = """
const all = new Float32Array(heard.length * 16384);
heard.forEach((one, at) => all.set(one, at * 16384));
const bytes = new Uint8Array(all.buffer);
let text = "";
for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
return btoa(text);
"""


def heard(tab: Tab) -> np.ndarray:
    return np.frombuffer(base64.b64decode(tab.ask(_HEARD)), np.float32)


class Spectra:
    """Level and position of each tone in a recording, every `HOP` samples."""

    SIZE, HOP = 2048, 64

    def __init__(self, sound: np.ndarray) -> None:
        frames = np.lib.stride_tricks.sliding_window_view(sound, self.SIZE)[:: self.HOP]
        self.level = np.abs(np.fft.rfft(frames * np.hanning(self.SIZE), axis=1)) + 1e-9
        self.bins, self.seconds = np.arange(self.level.shape[1]) * RATE / self.SIZE, self.HOP / RATE

    def of(self, track: str) -> tuple[np.ndarray, np.ndarray]:
        band = (self.bins > LOWEST[track] - 50) & (self.bins < LOWEST[track] + SLOPE * SECONDS + 50)
        level, rows = self.level[:, band], np.arange(len(self.level))
        top = np.clip(level.argmax(axis=1), 1, level.shape[1] - 2)
        below, peak, above = (np.log(level[rows, top + beside]) for beside in (-1, 0, 1))
        beside = 0.5 * (below - above) / (below - 2 * peak + above)  # a parabola through three bins
        return np.exp(peak), (self.bins[band][top] + beside * RATE / self.SIZE - LOWEST[track]) / SLOPE


def rms(sound: np.ndarray, size: int) -> np.ndarray:
    return np.sqrt((sound[: len(sound) // size * size].reshape(-1, size) ** 2).mean(axis=1))


def test_another_version_is_heard_at_once_from_the_same_place_without_a_gap(tab: Tab) -> None:
    tab.choose("stem")
    tab.play()
    tab.wait("return player.buffers.has('song/input/0') && player.buffers.has('song/take-2/0')")
    tab.ask(_RECORD)
    order = ["take-1"]
    time.sleep(0.5)
    for version, track in (("input", "input"), ("stem", "take-1"), (Keys.ARROW_DOWN, "take-2"), ("input", "input")):
        if len(version) == 1:
            tab.driver.find_element(By.TAG_NAME, "body").send_keys(version)
        else:
            tab.choose(version)
        order.append(track)
        time.sleep(0.5)
    sound = heard(tab)
    acted = [at for at in tab.ask("return acted") if at is not None]
    sound = sound[np.flatnonzero(sound)[0] :]
    spectra = Spectra(sound)
    begin = 0
    for old, new in pairwise(order):
        (old_level, old_place), (new_level, new_place) = spectra.of(old), spectra.of(new)
        high = np.percentile(new_level, 99) / 2
        at = begin + int(np.flatnonzero((new_level[begin:] > high) & (new_level[begin:] > old_level[begin:]))[0])
        before, after = at - 25, at + 25  # whole spectra of one tone alone: 36 ms
        off = (new_place[after] - old_place[before]) - (after - before) * spectra.seconds
        late = new_place[after] - 25 * spectra.seconds - min(acted, key=lambda place: abs(place - old_place[before]))
        print(f"{old} to {new}: heard {1000 * late:.1f} ms after the click, {1000 * off:.2f} ms off")
        assert abs(off) < 0.03 and -0.01 < late < 0.05, (old, new, off, late)
        around = rms(sound[(at - 60) * 64 : (at + 60) * 64], 128)
        assert around.min() > 0.25 * np.median(rms(sound, 128)), (old, new, around)
        begin = after


def test_segments_join_and_a_loop_goes_back(tab: Tab) -> None:
    tab.choose("input")
    tab.ask("player.seek(9.5)")
    tab.play()
    tab.ask(_RECORD)
    tab.wait("return player.position() > 10.5")
    tab.ask("player.setLoop({from: 10.6, to: 11})")
    tab.wait("return player.plan.some((one) => one.fadesIn)")
    time.sleep(1.0)
    sound = heard(tab)
    sound = sound[np.flatnonzero(sound)[0] :]
    _, place = Spectra(sound).of("input")
    joined = np.flatnonzero((place > 9.8) & (place < 10.2))[:270] * Spectra.HOP
    level = rms(sound[joined[0] : joined[-1]], 441)
    assert len(level) > 30 and level.min() > 0.97 * level.max(), "no click where files join"
    end = place[np.flatnonzero(place > 10.6)[0] :]  # once inside the loop, it stays there
    assert 10.58 < end.min() < 10.65 and 10.95 < end.max() < 11.02 and (end[60:] - end[:-60] < -0.25).any()
    assert tab.element("loop-range").text == "0:10.6 to 0:11.0"


def test_mute_and_solo_play_two_tracks_together(tab: Tab) -> None:
    def voices() -> dict[str, float]:
        return dict(tab.ask("return Object.fromEntries(player.heard)"))

    tab.element("match").click()
    assert voices() == {"input": 1, "take-1": 1} and tab.ask("return version()") == "mix"
    buttons = {
        (part, act): tab.driver.find_element(By.CSS_SELECTOR, f"[data-part={part}] [data-act={act}]")
        for part in ("input", "stem")
        for act in ("mute", "solo")
    }
    buttons["input", "mute"].click()
    assert voices() == {"take-1": 1} and tab.ask("return version()") == "stem"
    buttons["stem", "mute"].click()
    assert voices() == {} and tab.element("heard").text == "All is muted."
    buttons["input", "solo"].click()
    assert voices() == {"input": 1} and buttons["input", "solo"].get_attribute("aria-pressed") == "true"
    buttons["input", "solo"].click()
    assert voices() == {}
    tab.element("match").click()
    tab.choose("mix")
    gain = tab.ask("return content.songs[0].tracks['take-1'].mixed")
    assert voices() == {"input": pytest.approx(10 ** (gain / 20)), "take-1": pytest.approx(10 ** (gain / 20))}
    assert f"{abs(gain)}" in tab.element("gain").text and "LUFS" in tab.element("gain").text
    assert tab.complaints() == []


def test_the_end_stops_and_play_begins_anew(tab: Tab) -> None:
    tab.ask("player.seek(11.7)")
    tab.element("play").click()
    tab.wait("return !player.playing")
    assert tab.element("time").text == "0:12.0 / 0:12.0"
    tab.play()
    assert tab.ask("return player.position()") < 5
    tab.element("play").click()
    assert tab.ask("return [player.playing, player.voices.size]") == [False, 0]
    assert tab.complaints() == []


def test_all_is_done_by_keyboard(tab: Tab) -> None:
    body = tab.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.SPACE)
    tab.wait("return player.playing && !player.waiting")
    body.send_keys(Keys.SPACE)
    assert tab.ask("return player.playing") is False
    body.send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert tab.ask("return player.position()") == 1
    for key, version in (("2", "stem"), ("3", "input"), ("9", "input"), ("1", "mix")):
        body.send_keys(key)
        assert tab.ask("return version()") == version
    body.send_keys(Keys.ARROW_DOWN)
    assert Select(tab.element("choice")).first_selected_option.text == "take 2 (a tone)"
    body.send_keys("l")
    assert tab.ask("return player.loop") == {"from": 1, "to": 5}
    body.send_keys(Keys.ARROW_RIGHT, "[")
    assert tab.ask("return player.loop") == {"from": 2, "to": 5}
    body.send_keys("l", "e", "?")
    assert tab.ask("return [player.loop, state.matched, document.getElementById('keys').open]") == [None, False, True]
    tab.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert tab.ask("return document.getElementById('keys').open") is False
    # In the order in which the page is read: song, position, play, versions.
    tab.ask("document.getElementById('choice').focus()")
    for name in ("seek", "play"):
        tab.driver.switch_to.active_element.send_keys(Keys.TAB)
        assert tab.driver.switch_to.active_element.get_dom_attribute("id") == name
    assert tab.complaints() == []


def test_a_click_moves_and_a_drag_with_shift_marks_a_loop(tab: Tab) -> None:
    seek = tab.element("seek")
    chain = webdriver.ActionChains(tab.driver)
    left, width = tab.ask("return [views.place(0), document.getElementById('views').clientWidth]")
    half = round(left + (width - left) / 2 - seek.size["width"] / 2)
    chain.move_to_element_with_offset(seek, half, 0).click().perform()
    assert tab.ask("return player.position()") == pytest.approx(6, abs=0.05)
    chain.key_down(Keys.SHIFT).click_and_hold().move_by_offset(100, 0).release().key_up(Keys.SHIFT).perform()
    loop = tab.ask("return player.loop")
    assert loop["from"] == pytest.approx(6, abs=0.05)
    assert loop["to"] - loop["from"] == pytest.approx(100 / (width - left) * 12, abs=0.05)
    assert tab.element("region").is_displayed()


def test_a_blind_test_hides_counts_and_tells(tab: Tab, driver: webdriver.Chrome) -> None:
    tab.driver.find_element(By.CSS_SELECTOR, "#blind summary").click()
    Select(tab.element("blind-a")).select_by_visible_text("mix (take 1)")
    Select(tab.element("blind-b")).select_by_visible_text("mix (take 1)")
    start = tab.driver.find_element(By.CSS_SELECTOR, "#blind-setup [type=submit]")
    start.click()
    assert tab.element("blind-problem").text == "Choose two different versions."
    Select(tab.element("blind-b")).select_by_visible_text("mix (take 2)")
    start.click()
    for hidden in ("versions", "choice", "views", "heard", "match"):
        assert not tab.element(hidden).is_displayed(), hidden
    assert "take" not in tab.driver.find_element(By.CLASS_NAME, "player").text
    tracks = set()
    for number in range(10):
        assert tab.element("blind-progress").text == f"Round {number + 1} of 10"
        if number < 3:  # from the beginning, each time
            tab.wait("return player.playing && !player.waiting && player.plan.length")
            assert tab.ask("return player.plan[0].from") == 0
        seen = []
        for which in (0, 1):
            tab.driver.find_element(By.CSS_SELECTOR, f'[data-hear="{which}"]').click()
            seen += [key for key in tab.ask("return [...player.heard.keys()]") if key != "input"]
        tracks.add(seen[0])
        preferred = "" if number == 9 else seen.index("take-1") if number < 8 else seen.index("take-2")
        tab.driver.find_element(By.CSS_SELECTOR, f'[data-prefer="{preferred}"]').click()
    assert tracks == {"take-1", "take-2"}, "the order changes"
    words = tab.element("blind-words").text
    assert "“mix (take 1)” in 8 and “mix (take 2)” in 1 of 10 rounds, and had none in 1" in words
    assert "between 52 % and 100 %: that is hardly chance" in words.replace("\xa0", " ")
    assert tab.element("versions").is_displayed() and tab.ask("return player.playing") is False
    text = driver.execute_async_script(
        "fetch(document.getElementById('blind-save').href).then(r => r.text()).then(arguments[0])"
    )
    saved = json.loads(text)
    assert (saved["schema"], saved["preferred"], saved["no_preference"]) == (1, [8, 1], 1)
    assert [one["preferred"] for one in saved["rounds"]] == ["mix (take 1)"] * 8 + ["mix (take 2)", None]
    assert all({one["x"], one["y"]} == {"mix (take 1)", "mix (take 2)"} for one in saved["rounds"])
    assert sum(one["x"] == "mix (take 1)" for one in saved["rounds"]) == 5
    assert tab.complaints() == []


def test_another_version_right_after_a_seek_is_heard_from_there(tab: Tab) -> None:
    tab.play()
    tab.ask("player.seek(8); chooseVersion('input')")
    tab.wait("return !player.waiting && player.plan.length && player.plan[0].from === 8")
    assert tab.ask("return [...player.voices.keys()]") == ["input"]
    tab.ask("player.seek(3); player.pause()")
    assert tab.ask("return player.position()") == 3
    assert tab.complaints() == []


def test_the_interval_is_that_of_clopper_and_pearson(tab: Tab) -> None:
    from scipy.stats import binomtest

    for count, total in ((0, 5), (5, 5), (8, 9), (20, 40), (3, 20), (1, 1)):
        wanted = binomtest(count, total).proportion_ci(method="exact")
        assert tab.ask(f"return interval({count}, {total})") == pytest.approx([wanted.low, wanted.high], abs=1e-9)


def test_a_missing_file_is_told(tab: Tab, path: Path) -> None:
    file = path.parent / "media" / "song" / "take-2" / "0.js"
    moved = file.rename(file.with_suffix(".moved"))
    try:
        Select(tab.element("choice")).select_by_index(1)
        tab.element("play").click()
        tab.wait("return !player.playing")
        assert tab.element("heard").text == "This can't be played: media/song/take-2/0.js is missing"
    finally:
        moved.rename(file)
        tab.complaints()


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_fits_the_window_and_names_stay_names(tab: Tab, width: int) -> None:
    tab.open(width)
    assert tab.overflow() == 0 and tab.too_wide() == []
    assert tab.driver.title == TITLE == tab.driver.find_element(By.TAG_NAME, "h1").text
    assert [one.text for one in tab.driver.find_elements(By.CSS_SELECTOR, "#versions b")] == [
        "Mix",
        "New drums",
        "Input",
        "",
        "",
        "",
    ]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_axe_finds_nothing(tab: Tab, width: int, dark: bool) -> None:
    assert tab.axe(width, dark) == []


def test_the_page_is_valid_html(path: Path) -> None:
    assert html_errors(path) == ""
