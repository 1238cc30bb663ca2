"""The HTML report in Chromium: silent, offline, sortable, no wider than a phone, accessible."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from bench.cli import main
from bench.records.store import save_record
from tests.factories import make_benchmark, make_record, saved
from tests.report.pages import HOSTILE, ROOT, mistaken

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian's package: chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            timeout=0,  # however busy the machine is
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of this repository, as anybody would look at them."""
    return written(tmp_path_factory.mktemp("committed"), ROOT / "results")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, mnist_data_dir: Path) -> Path:
    """One of everything: text that would like to run, mistakes, failures, torn files."""
    del mnist_data_dir  # there by now
    folder = tmp_path_factory.mktemp("hostile")
    results = folder / "results"
    saved(results, make_benchmark((6.4, 6.5, 6.7), label=HOSTILE))
    saved(results, make_benchmark((5.4, 5.5), setup={"device_name": HOSTILE}, label="b"))
    save_record(mistaken([247, 582], [2, 3], label="mistakes"), results)
    save_record(make_record(status="failed", reason=HOSTILE, label="failed"), results)
    (results / "torn<img src=x>.json").write_text("{")
    return written(folder, results)


def written(folder: Path, results: Path) -> Path:
    output = folder / "report.html"
    assert main(["report", str(results), "--to", "html", "--output", str(output)]) == 0
    return output


def opened(
    browser: Browser, path: Path, scheme: Scheme = "light", width: int = 1400
) -> tuple[Page, list[str]]:
    """The page, and all that it said, asked for or stumbled over."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(0)  # however busy the machine is
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.on("request", lambda request: heard.append(request.url))
    page.goto(path.as_uri())
    return page, [line for line in heard if not line.startswith((path.as_uri(), "data:image/png"))]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("which", ["committed", "hostile"])
def test_it_says_nothing_asks_for_nothing_and_is_as_wide_as_the_screen(
    which: str, width: int, scheme: Scheme, browser: Browser, request: pytest.FixtureRequest
) -> None:
    page, heard = opened(browser, request.getfixturevalue(which), scheme, width)
    assert heard == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


@pytest.mark.parametrize("width", [1000, 1400])
def test_no_column_of_the_machines_is_cut(width: int, browser: Browser, committed: Path) -> None:
    page, _ = opened(browser, committed, width=width)
    tables = page.locator("#machines .wide").all()
    assert len(tables) == 2
    for table in tables:
        assert table.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.close()


def test_the_listener_hears(browser: Browser, tmp_path: Path) -> None:
    """What the test above relies on."""
    loud = tmp_path / "loud.html"
    loud.write_text("<script>console.error('heard')</script><img src='http://127.0.0.1:9/x.png'>")
    page, heard = opened(browser, loud)
    assert "heard" in heard
    assert "http://127.0.0.1:9/x.png" in heard
    page.close()


def test_what_records_say_does_not_run(browser: Browser, hostile: Path) -> None:
    page, heard = opened(browser, hostile)
    assert heard == []
    assert page.locator("script").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    assert "<script>alert(1)</script>" in (page.locator("#set-ups").inner_text())
    page.close()


def test_the_policy_stops_what_is_not_the_pages_own(browser: Browser, hostile: Path) -> None:
    page, _ = opened(browser, hostile)
    ran = page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            return window.ran === true;
        }"""
    )
    assert ran is False
    page.close()


def test_tables_sort_by_click_and_by_key(browser: Browser, committed: Path) -> None:
    page, _ = opened(browser, committed)
    table = page.locator("#set-ups table")

    headings = [text.strip() for text in table.get_by_role("columnheader").all_inner_texts()]
    (number,) = [n for n, text in enumerate(headings, start=1) if text.startswith("images/s")]

    def shown() -> list[float | None]:
        cells = table.locator(f"tbody tr > :nth-child({number})").all()
        values = [cell.get_attribute("data-v") for cell in cells]
        return [None if value is None else float(value) for value in values]

    heading = table.get_by_role("columnheader", name="images/s")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    known = [value for value in shown() if value is not None]
    assert known == sorted(known)
    assert len(known) > 3
    assert None not in shown()[: len(known)]  # what is not known stays last
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [value for value in shown() if value is not None] == sorted(known, reverse=True)
    assert None not in shown()[: len(known)]
    page.close()


@pytest.mark.parametrize(
    ("which", "width", "scheme"),
    [
        ("committed", 390, "dark"),
        ("committed", 1400, "light"),
        ("hostile", 390, "light"),
        ("hostile", 1400, "dark"),
    ],
)
def test_axe_finds_nothing_serious(
    which: str, width: int, scheme: Scheme, browser: Browser, request: pytest.FixtureRequest
) -> None:
    page, _ = opened(browser, request.getfixturevalue(which), scheme, width)
    violations = Axe().run(page).response["violations"]
    serious = [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in violations
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == []
    page.close()


def test_axe_finds_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    """What the test above relies on."""
    bad = tmp_path / "bad.html"
    bad.write_text("<title>x</title><p style='color:#eee;background:#fff'>faint</p><img src='#'>")
    page, _ = opened(browser, bad)
    faults = {fault["id"] for fault in Axe().run(page).response["violations"]}
    assert {"color-contrast", "image-alt"} <= faults
    page.close()


def test_it_prints_in_light_colours(browser: Browser, committed: Path) -> None:
    page, _ = opened(browser, committed, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(22, 32, 44)"
    page.close()


def printed_pages(page: Page, paper: str = "A4") -> int:
    return len(re.findall(rb"/Type\s*/Page\b", page.pdf(format=paper)))


def test_it_prints_on_five_pages_and_long_tables_only_where_they_are_open(
    browser: Browser, committed: Path
) -> None:
    page, _ = opened(browser, committed)
    few = printed_pages(page)
    assert max(few, printed_pages(page, "Letter")) <= 5
    page.locator("#runs summary").click()
    assert printed_pages(page) > few
    page.close()


def test_every_run_is_printed_where_its_table_is_open(browser: Browser, committed: Path) -> None:
    page, _ = opened(browser, committed)
    page.emulate_media(media="print")
    assert not page.locator("#runs").is_visible()
    page.emulate_media(media="screen")
    page.locator("#runs summary").click()
    page.emulate_media(media="print")
    assert page.locator("#runs tbody tr").last.is_visible()
    page.close()


def test_a_set_ups_number_leads_to_its_runs(browser: Browser, committed: Path) -> None:
    page, _ = opened(browser, committed)
    # A browser that follows the link may open the table itself: here it must not follow.
    page.evaluate("document.addEventListener('click', (event) => event.preventDefault())")
    row = page.locator("#run-of-2")
    assert not row.is_visible()
    page.locator("#set-ups tbody a[href='#run-of-2']").click()
    row.wait_for(state="visible")
    page.close()


def test_no_two_landmarks_have_one_name(browser: Browser, committed: Path) -> None:
    page, _ = opened(browser, committed)
    page.locator("summary").evaluate_all("all => all.forEach(one => one.parentElement.open = true)")
    violations = Axe().run(page).response["violations"]
    assert [fault["id"] for fault in violations if fault["id"] == "landmark-unique"] == []
    page.close()


def test_the_set_ups_are_not_in_a_box_of_their_own_to_scroll(
    browser: Browser, committed: Path
) -> None:
    page, _ = opened(browser, committed, width=1200)
    table = page.locator("#set-ups .wide")
    assert table.evaluate("box => box.scrollHeight <= box.clientHeight")
    assert table.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.close()


def test_a_phone_shows_the_time_of_each_row_first(browser: Browser, committed: Path) -> None:
    page, _ = opened(browser, committed, width=390)
    for section in ("#machines", "#set-ups"):
        table = page.locator(f"{section} table").first
        times = table.get_by_role("columnheader").filter(has_text="to 99.4 %")
        box = times.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
    page.close()
