"""`verify` on pages: numbers with a tag are recomputed from the records that the tag names."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.cli import main
from bench.verify.figure_requests import Figures, Product, parse_request
from bench.verify.page_tags import read_tags
from bench.verify.pages import check_pages, find_pages
from bench.verify.shown_numbers import End, ShownNumber, find_numbers
from mnist_cnn.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
XEON = "results/intel-xeon-2-cores"
FAST = f'in {XEON} where recipe == "fast"'
FIELDS = "median of train_seconds"
NUMBERS = st.decimals("0", "1e9", allow_nan=False, places=3)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page beside the published records."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    return tmp_path / "page.md"


def findings(page: Path, text: str) -> list[tuple[int, str, bool]]:
    page.write_text(text, encoding="utf-8")
    (checked,) = check_pages([page])
    return [(finding.line, finding.text, finding.unreadable) for finding in checked.findings]


@pytest.mark.parametrize(
    "text",
    [
        f"Twenty runs: **99.434 % on average, 95 % interval 99.409 to 99.459 %**<!-- figures: "
        f"mean - low high of final_accuracy {FAST} -->",
        f"99.413 %, 0.054 points<!-- figures: lower_bound sd of final_accuracy {FAST} -->",
        f"15 of 20 (53-89 %)<!-- figures: runs_reached runs runs_reached_share_low "
        f"runs_reached_share_high {FAST} -->",
        f"| 6.26 s | 8.10 s<!-- figures: time_to_target_seconds_median "
        f"time_to_target_seconds_expected {FAST} --> |",
        f"6256 ms; 0.104 minutes<!-- figures: median of time_to_target_seconds, "
        f"median of time_to_target_seconds {FAST} -->",
        f"| 99.43 (99.40-99.46) | 0.9943<!-- figures: mean low high of final_accuracy, "
        f"mean of final_accuracy {FAST} --> |",
        "12.6 (12.1-12.8)<!-- figures: median - - of train_seconds where "
        'label == "plain" / train_seconds where label == "fast" in results/studies/xeon-road -->',
        "71.3 s<!-- figures: mean of train_seconds + eval_seconds in results/studies/xeon-road "
        'where label == "plain" --> 164,864 in 644<!-- figures: median of samples_to_target, '
        "median of samples_to_target / global_batch_size in results/nvidia-h200-16-cores where "
        'label == "h200" -->',
        "`1 2` 3x3 bf16 of 2026-11-25, nothing tagged: 12 %",
    ],
)  # fmt: skip
def test_numbers_that_the_records_give_pass(page: Path, text: str) -> None:
    assert findings(page, text) == []


@pytest.mark.parametrize(
    "time",
    [
        *("8.10 s", "8.10 second", "8.10 seconds", "8,104 ms", "8,104,092 us", "8,104,092 µs"),
        *("0.135 min", "0.135 minute", "0.135 minutes"),
    ],
)
def test_a_value_is_compared_in_the_unit_beside_it(page: Path, time: str) -> None:
    text = f"{time}<!-- figures: time_to_target_seconds_expected {FAST} -->"
    assert findings(page, text) == []


TWO_VALUES = (
    "An epoch 71.3 s<!-- figures epoch: mean of train_seconds + eval_seconds in "
    'results/studies/xeon-road where label == "plain" --> and 8.10 s<!-- figures fast: '
    f"time_to_target_seconds_expected {FAST} -->:\n"
)


def test_a_product_of_earlier_values_has_their_combined_interval(page: Path) -> None:
    text = f"{TWO_VALUES}8.8 times (6.0-10.9)<!-- figures: value low high of epoch / fast -->\n"
    assert findings(page, text) == []
    assert findings(page, text.replace("8.8", "8.9")) == [
        (2, "8.9 should be 8.8025564, the value of the product", False)
    ]


def test_a_product_has_the_unit_beside_it(page: Path) -> None:
    """The quotient stands for any time."""
    text = f"{TWO_VALUES}8,803 ms<!-- figures: value of epoch / fast -->\n"
    assert findings(page, text) == []
    assert findings(page, text.replace("8,803", "8,804")) == [
        (2, "8,804 ms should be 8802.5564 ms, the value of the product", False)
    ]


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (f"{FIELDS} in results/gone", "there is no results/gone in the project's folder"),
        (f"{FIELDS} in {'g' * 300}", "there is no ggg"),
        (f"{FIELDS} in page.md", "no run records in page.md"),
        (f"mode of train_seconds {FAST}", "there is no statistic 'mode' (did you mean"),
        (f"median of train_second {FAST}", "there is no column 'train_second' (did you mean"),
        (f"median of recipe {FAST}", "recipe is a text, not a number"),
        (f"runs_reach {FAST}", "there is no column of a benchmark 'runs_reach'"),
        (f"recipe {FAST}", "recipe is a text, not a number"),
        (f'{FIELDS} in {XEON} where recipe == "slow"', 'where recipe == "slow" holds for none of'),
        (f"{FIELDS} in {XEON} where recipes == 1", "where: there is no column 'recipes'"),
        (f"{FIELDS} in {XEON} where recipe", "where 'recipe': 'recipe' stands where a comparison"),
        (f"min max of train_seconds {FAST}", "the tag has 2 names, but only 1 numbers stand"),
        (f"mean of time_to_target_seconds {FAST}", "has no value: too few runs, or one missed"),
        ("median of train_seconds", "names no folder of records"),
        (f"median of train_seconds / 0 {FAST}", "has a zero in it"),
        (f"{FIELDS}; mean of it {FAST}", "is no column"),
        ("value of epoch * epochs", "no tag before this one is called 'epoch'"),
        (f'median of train_seconds where seed == 0 / train_seconds where seed == 1 {FAST}',
         "have not the same seeds"),
        (f"expected of train_seconds {FAST}", "a success costs time_to_target_seconds or"),
    ],
)  # fmt: skip
def test_a_tag_that_cannot_be_followed_is_one_line(page: Path, tag: str, message: str) -> None:
    ((line, text, unreadable),) = findings(page, f"\n\nIt takes 6 s<!-- figures: {tag} -->.\n")
    assert (line, unreadable) == (3, True)
    assert message in text
    assert "\n" not in text


def test_a_tag_belongs_to_its_line(page: Path) -> None:
    tag = f"<!-- figures: {FIELDS} {FAST} -->"
    assert "ends its paragraph" in findings(page, f"It takes 6 s\n{tag}")[0][1]
    assert (
        "no end in its paragraph"
        in findings(page, f"6 s<!-- figures: {FIELDS}\n\n{FAST} -->")[0][1]
    )
    assert "only 0 numbers" in findings(page, f"It takes 6 s.\n\nIt does.{tag}")[0][1]
    assert "only 0 numbers" in findings(page, f"| 6 s |\n| it{tag} |")[0][1]
    assert "only 0 numbers" in findings(page, f"- 6 s\n- it{tag}")[0][1]
    assert findings(page, f"```\n6 s{tag}\n```\n") == []


def test_the_command_names_page_and_line_and_exits_by_the_worst(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(page.parent)
    right = f"5.72 s<!-- figures: {FIELDS} {FAST} -->\n"
    unreadable = "\n1 s<!-- figures: of -->\n"
    for text, status, line in [
        (right, 0, "page.md: 1 number as the records give"),
        ("none", 0, "no tagged number in 1 page"),
        (right + unreadable, 2, "page.md:3: the tag 'of' names no folder of records"),
        (right.replace("5.72", "5.73") + unreadable, 1, "page.md:1: 5.73 s should be 5.72"),
    ]:
        page.write_text(text, encoding="utf-8")
        capsys.readouterr()
        assert main(["verify", "page.md"]) == status
        assert line in capsys.readouterr().out
    assert main(["verify", "page.md", "--json"]) == 1
    (document,) = json.loads(capsys.readouterr().out)
    assert document["outcome"] == "fail"
    assert [finding["line"] for finding in document["findings"]] == [1, 3]


@pytest.mark.slow
def test_pages_are_files_or_folders_without_records(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = page.parent / "docs" / "deep"
    docs.mkdir(parents=True)
    (docs / "one.md").write_text("1", encoding="utf-8")
    (docs / "scaling.json").write_text("{}", encoding="utf-8")
    assert find_pages([page.parent / "docs"]) == [docs / "one.md"]
    assert main(["verify", str(page.parent / "docs")]) == 0
    assert main(["verify", str(docs / "gone.md")]) == 2
    assert capsys.readouterr().err == f"mnist-bench: error: there is no {docs / 'gone.md'}\n"
    assert main(["verify", str(docs), str(page.parent / XEON)]) == 2
    assert main(["verify", str(docs), "--rerun", "1"]) == 2
    damaged = docs / "20261125T164217Z-fast-abcdef12.json"
    damaged.write_text("{}", encoding="utf-8")
    capsys.readouterr()
    main(["verify", str(docs)])
    assert "records" in capsys.readouterr().out  # it is a folder of records, with a damaged one


@pytest.mark.slow
def test_the_pages_of_this_project_follow_from_its_records(committed: Path) -> None:
    shutil.copy(ROOT / "README.md", committed)
    shutil.copytree(ROOT / "docs", committed / "docs")
    studies = sorted((committed / "results" / "studies").glob("*/README.md"))
    pages = check_pages([*find_pages([committed / "README.md", committed / "docs"]), *studies])
    wrong = [f"{p.path.name}:{f.line}: {f.text}" for p in pages for f in p.findings]
    assert not wrong, "\n".join(wrong)
    assert sum(page.numbers for page in pages) > 200


@given(value=NUMBERS, decimals=st.integers(0, 3), unit=st.sampled_from([None, "%", "ms", "s"]))
def test_a_rounded_value_agrees_and_its_neighbours_do_not(
    value: Decimal, decimals: int, unit: str | None
) -> None:
    step = Decimal(1).scaleb(-decimals)
    shown = value.quantize(step, ROUND_HALF_EVEN)
    factor = {None: 1, "s": 1, "%": 100, "ms": 1000}[unit]
    exact = float(value) / factor

    def agrees(number: Decimal, end: End = End.NONE) -> bool:
        return ShownNumber(f"{number:,.{decimals}f}", unit, 0).agrees(exact, unit, end)

    assert agrees(shown)
    assert not agrees(shown + 2 * step)
    assert not agrees(max(shown - 2 * step, Decimal(0))) or shown < 2 * step
    assert agrees(value.quantize(step, "ROUND_FLOOR"), End.LOWER)
    assert agrees(value.quantize(step, "ROUND_CEILING"), End.UPPER)


@given(
    numbers=st.lists(
        st.tuples(NUMBERS, st.sampled_from(["", " %", " s", "%", " ms**"])), min_size=1
    ),
    words=st.sampled_from(
        ["and", "to", "of H200 in 2x2 `7` by AVX-512 on 2026-11-25", "(3:12 min", "–"]
    ),
)
def test_every_number_of_a_text_is_found_with_its_unit(
    numbers: list[tuple[Decimal, str]], words: str
) -> None:
    text = f" {words} ".join(f"{value:,}{unit}" for value, unit in numbers)
    found = [(number.text, number.unit) for number in find_numbers(text)]
    assert found == [(f"{v:,}", unit.strip(" *") or None) for v, unit in numbers]


@given(text=st.text())
def test_any_page_can_be_read(text: str) -> None:
    for tag in read_tags(f"1 <!-- figures: {text} -->\n\n{text}"):
        with contextlib.suppress(UsageError):
            assert isinstance(parse_request(tag.request), Figures | Product)


@given(
    names=st.lists(st.sampled_from(["mean", "low", "-", "sd"]), min_size=1),
    column=st.sampled_from(["train_seconds", "train_seconds + eval_seconds"]),
    places=st.lists(st.sampled_from(["results/a", "results/b.json"]), min_size=1),
    where=st.sampled_from([None, 'label == "a in b, c / d"', 'label in ["x", "y"]', "(seed > 1)"]),
    divisor=st.sampled_from(["", " / 16 * 3.5e6", " / epochs"]),
)
def test_a_request_reads_as_it_was_written(
    names: list[str], column: str, places: list[str], where: str | None, divisor: str
) -> None:
    condition = "" if where is None else f" where {where}"
    text = f"{' '.join(names)} of {column}{divisor}, runs in {', '.join(places)}{condition}"
    request = parse_request(text)
    assert isinstance(request, Figures)
    assert request.names == (*names, "runs")
    assert (request.places, request.where) == (tuple(places), where)
    quantity = request.groups[0].quantity
    assert quantity is not None
    assert quantity.series.name == column
    assert (quantity.divisor is None) == (divisor != " / epochs")
    assert quantity.scale == pytest.approx(3.5e6 / 16 if "16" in divisor else 1)


PIECES = (
    "(",
    "[",
    "<!-- figures ",
    "<!-- figures: a ",
    "1<!--figures:-->",
    "](",
    "<!--",
    "`",
    "1 ",
)


@pytest.mark.slow
@pytest.mark.parametrize("piece", [*PIECES, "1 <!-- figures: mean of a in b" + "(" * 400_000])
def test_a_page_is_read_in_linear_time(piece: str) -> None:
    begin = time.process_time()
    for tag in read_tags(piece * max(1, 400_000 // len(piece)) + " -->"):
        with contextlib.suppress(UsageError):
            parse_request(tag.request)
    assert time.process_time() - begin < 15  # of some tenths; else it takes 30 to 270 s


@pytest.mark.parametrize("row", ["| 1 s <!-- figures: a --> |", "# 1 s <!-- figures: a -->"])
def test_a_row_or_a_heading_is_read_once(row: str) -> None:
    """It is a block of its own, and no beginning of the next."""
    assert [tag.line for tag in read_tags(f"{row}\n2 s\n{row}\n\n{row}\n")] == [1, 3, 5]


def test_a_tag_ends_before_the_next_begins() -> None:
    first, second = read_tags("1 <!-- figures a 2 <!-- figures: mean of b in c -->")
    assert first.problem is not None
    assert second.request == "mean of b in c"
    assert [number.text for number in second.numbers] == ["1"]


@pytest.mark.parametrize("number", ["1e99999999999999999999", "1e-9999999", "1" * 5000, "1e9999"])
def test_a_number_beyond_all_values_is_none_of_them(page: Path, number: str) -> None:
    [(_, text, unreadable)] = findings(page, f"{number} s<!-- figures: {FIELDS} {FAST} -->")
    assert "should be" in text
    assert not unreadable
