"""The report and the comparison as people see them: in Chromium, from a file."""

from __future__ import annotations

import re

import pytest

from beam_asr.cli import main
from tests.support.finished_runs import failed, scored, write_run
from tests.support.job_files import SAMPLES
from tests.support.waiting import wait_until

# What would show, if it ran: each sets the title of the page.
HOSTILE = [
    "<script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "</script><script>document.title='ran'</script>",
    "<!--<script>",
    "\"'><svg onload=document.title='ran'>",
    "{{ 7 * 7 }} ${7 * 7} $\\frac{",
    "javascript:document.title='ran'",
    "nul \x00, bidi \u202eabc\u202c, separators \u2028\u2029, half \ud800",
]


@pytest.fixture
def opened(browser):
    """Opens a page; gives its tab, which must end without errors and requests of other places."""
    tabs, said, requested = [], [], []

    def open_(path, **context):
        tab = browser.new_context(**context).new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: requested.append(request.url))
        tab.goto(path.as_uri())
        tabs.append((tab, path))
        return tab

    yield open_
    for tab, _ in tabs:
        tab.context.close()
    assert said == []
    pages = {path.as_uri() for _, path in tabs}
    assert {url for url in requested if not url.startswith("data:")} <= pages


def flac(name="agent-alreadyon.flac"):
    return str(SAMPLES / name)


def rows_of(tab):
    return tab.locator("#rows tbody tr")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of 60 rows, of which the n-th has n wrong words of 60; the first three failed."""
    transcripts = [
        scored(
            " ".join(f"said{place}" for place in range(60)),
            " ".join(
                f"recognized{place}" if place < wrong else f"said{place}" for place in range(60)
            ),
            audio_filepath=flac(),
            offset=round(wrong / 50, 2),
            duration=2.0,
            lang=("en", "de")[wrong % 2],
            confidence=wrong / 100,
        )
        for wrong in range(1, 61)
    ]
    failures = [failed(f"gone{n}.flac", "gone: no such file. Correct the path.") for n in range(3)]
    out = write_run(tmp_path_factory.mktemp("run") / "out", transcripts, failures)
    assert main.main(["report", str(out)]) == 0
    return out / "report.html"


def test_rows_are_paged_sorted_and_filtered(report, opened):
    tab = opened(report)
    assert tab.title() == "Transcription report"
    assert rows_of(tab).count() == 20
    assert tab.locator("#count").inner_text() == "Rows 1 to 20 of 60"
    assert rows_of(tab).first.locator("td[data-label=WER]").inner_text() == "100.0%"
    tab.get_by_role("button", name="Next").click()
    assert tab.locator("#count").inner_text() == "Rows 21 to 40 of 60"
    tab.get_by_role("button", name="WER").click()
    tab.get_by_role("button", name="WER").click()
    assert tab.locator("th[aria-sort=ascending]").inner_text().startswith("WER")
    assert rows_of(tab).first.locator("td[data-label=WER]").inner_text() == "1.7%"
    tab.locator("#choose-language").select_option("de")
    assert tab.locator("#count").inner_text() == "Rows 1 to 20 of 30"
    tab.locator("#search").fill("recognized58")
    assert tab.locator("#count").inner_text() == "Rows 1 to 1 of 1"
    tab.locator("#search").fill("nobody said this")
    assert tab.locator("#count").inner_text() == "No row fits"
    tab.locator("#search").fill("")
    tab.locator("#choose-language").select_option("")
    tab.locator("#choose-list").select_option("suspicious")
    tab.get_by_role("button", name="Confidence").click()
    tab.get_by_role("button", name="Confidence").click()
    assert "confidence 0.01" in rows_of(tab).first.inner_text()


def test_differences_are_marked_in_the_words(report, opened):
    tab = opened(report)
    tab.get_by_role("button", name="WER").click()
    tab.get_by_role("button", name="WER").click()
    row = rows_of(tab).first
    assert row.locator("del").inner_text() == "said0"
    assert row.locator("ins").inner_text() == "recognized0"
    colors = row.evaluate(
        "row => ['del', 'ins', '.text'].map(it => getComputedStyle(row.querySelector(it)).color)"
    )
    assert len(set(colors)) == 3


def test_the_player_plays_the_range_of_the_row(report, opened):
    tab = opened(report)
    assert not tab.locator("#player").is_visible()
    button = rows_of(tab).first.locator(".play")
    button.click()
    wait_until(lambda: tab.evaluate("document.getElementById('sound').currentTime > 0.1"))
    assert button.get_attribute("aria-pressed") == "true"
    assert abs(tab.evaluate("document.getElementById('sound').duration") - 2.0) < 0.1
    button.click()
    wait_until(lambda: tab.evaluate("document.getElementById('sound').paused"))
    assert button.get_attribute("aria-pressed") == "false"
    tab.get_by_role("button", name="Close the player").click()
    assert not tab.locator("#player").is_visible()


def test_all_controls_are_reached_by_the_keyboard(report, opened):
    tab = opened(report)
    reached = set()
    for _ in range(80):
        tab.keyboard.press("Tab")
        reached.add(
            tab.evaluate(
                "(e => e.id || e.dataset.key || e.className || e.getAttribute('href') || e.tagName)"
                "(document.activeElement)"
            )
        )
    assert {"skip", "#failures", "choose-list", "search", "wer", "play", "next"} <= reached
    tab.locator("#next").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#count").inner_text() == "Rows 21 to 40 of 60"
    rows_of(tab).first.locator(".play").focus()
    tab.keyboard.press("Space")
    wait_until(lambda: tab.evaluate("document.getElementById('sound').currentTime > 0.1"))


def test_charts_have_names_and_numbers_for_who_does_not_see_them(report, opened):
    tab = opened(report)
    chart = tab.get_by_role("img", name="Word error rate Of 60 rows")
    assert chart.is_visible()
    figure = tab.locator("figure").filter(has=chart)
    figure.locator("summary").click()
    assert figure.get_by_role("table").is_visible()
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))


def test_failures_are_shown_with_what_to_do_and_the_command(report, opened):
    text = opened(report).locator("#failures").inner_text()
    assert "AudioNotFoundError: 3 rows, stage audio" in text
    assert "To do: Correct the path." in text
    assert "beam-asr transcribe --input=in.jsonl --model_name=m.nemo --append" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_in_both_themes(report, opened, scheme):
    tab = opened(report, color_scheme=scheme)
    colors = tab.evaluate(
        """() => ["del", "ins", ".from", ".tiles dt", "#rows thead button", "nav a"].map((it) => {
          const element = document.querySelector(it);
          let behind = element;
          const back = (e) => getComputedStyle(e).backgroundColor;
          while (behind && back(behind) === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
          return [it, getComputedStyle(element).color, back(behind || document.body)];
        })"""
    )
    for name, text, behind in colors:
        assert contrast(text, behind) >= 4.5, name


def contrast(one: str, other: str) -> float:
    """The contrast of two colors, as WCAG 2 has it."""

    def luminance(color: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_phone_scrolls_in_one_direction(report, opened):
    tab = opened(report, viewport={"width": 375, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth") == 375
    assert rows_of(tab).first.locator(".text").is_visible()


def test_a_print_has_the_texts_and_no_controls(report, opened):
    tab = opened(report)
    tab.emulate_media(media="print")
    assert rows_of(tab).first.locator(".text").is_visible()
    for control in ("nav", ".controls", "#next", ".play"):
        assert not tab.locator(control).first.is_visible(), control


def hostile_rows(text):
    audio = text.replace("\0", "")
    return [
        scored("what was said", text, audio_filepath=audio, lang=text, model=text),
        scored(text, "what was recognized", audio_filepath=audio, lang="en", model="m", offset=1),
    ]


@pytest.mark.parametrize("command", ["report", "compare"])
def test_no_text_of_anyone_runs_or_breaks_a_page(tmp_path, opened, command):
    rows = [row for text in HOSTILE for row in hostile_rows(text)]
    failures = [failed(text, f"{text}: {text}. {text}.") for text in HOSTILE]
    options = {"input": HOSTILE[:2], "model_name": HOSTILE[4], "output": HOSTILE[2]}
    model = dict.fromkeys(("model", "class", "device", "precision"), HOSTILE[1])
    folders = [
        write_run(tmp_path / name, rows, failures, options=options, models=[model],
                  warnings=HOSTILE[:7])
        for name in ("<b onclick=x>", "two")
    ]  # fmt: skip
    page = tmp_path / "page.html"
    shown = folders if command == "compare" else folders[:1]
    assert main.main([command, *map(str, shown), f"--to={page}"]) == 0
    tab = opened(page)
    if command == "report":
        assert rows_of(tab).count() == 2 * len(HOSTILE)
        assert "<script>document.title='ran'</script>" in tab.locator("#failures").inner_text()
        for number in range(tab.locator("summary").count()):
            tab.locator("summary").nth(number).click()
    assert tab.title() in ("Transcription report", "Comparison of runs")
    assert tab.locator("script").count() == 2
    assert tab.locator("#main img, #main svg[onload], #main [onclick]").count() == 0


def test_runs_are_compared_row_by_row(tmp_path, opened, capsys):
    said = "one two three four"
    first = [
        scored(said, said if n < 20 else "one too tree", audio_filepath=f"{n}.flac")
        for n in range(40)
    ]
    second = [
        scored(said, said if n < 38 else "oh", audio_filepath=f"{n}.flac") for n in range(1, 40)
    ]
    folders = [
        write_run(tmp_path / "small", first),
        write_run(tmp_path / "large", second, [failed("0.flac", "gone. Find it.")]),
    ]
    page = tmp_path / "comparison.html"
    assert main.main(["compare", *map(str, folders), f"--to={page}"]) == 0
    printed = capsys.readouterr().out
    assert "39 rows in all of 2 runs" in printed
    assert "large against small:" in printed
    assert "better in 18 rows, worse in 2, as good in 19" in printed
    tab = opened(page)
    assert "better, beyond chance" in tab.locator("#runs").inner_text()
    assert "AudioNotFoundError in large" in tab.locator("#apart").inner_text()
    assert tab.locator("#count").inner_text() == "Rows 1 to 2 of 2"
    texts = rows_of(tab).first.locator(".text").all_inner_texts()
    assert texts == ["small one two three too tree four", "large one oh two three four"]
    tab.locator("#choose-list").select_option("better1")
    assert tab.locator("#count").inner_text() == "Rows 1 to 18 of 18"
