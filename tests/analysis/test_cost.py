"""What reaching the target costs, and energy, in every format of a report."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.analysis.benchmarks import group_runs
from bench.analysis.cost import Price, add_costs, parse_price
from bench.analysis.rows import benchmark_row
from bench.cli import main
from bench.text import energy, energy_between
from mnist_cnn.errors import UsageError
from tests.factories import ENERGY, make_benchmark, make_record, saved

Report = Callable[..., str]


@pytest.fixture
def report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Report:
    """What `mnist-bench report` prints of three runs that took 35.4 to 36.9 s to the target."""
    monkeypatch.setenv("COLUMNS", "160")
    # 0.4 + 5 x (6.5 + 0.6) s = 35.9 s to the target, reached at the fifth evaluation.
    folder = saved(tmp_path / "r", make_benchmark((6.4, 6.5, 6.7), energy=ENERGY))

    def printed(*options: str) -> str:
        assert main(["report", folder, *options]) == 0
        return capsys.readouterr().out

    return printed


def test_cost_is_price_times_hours(report: Report) -> None:
    [row] = json.loads(report("--price-per-hour", "36 EUR", "--to", "json"))
    assert (row["price_per_hour"], row["currency"]) == (36.0, "EUR")
    for part in ("median", "mean", "low", "high", "expected"):
        seconds = row[f"time_to_target_seconds_{part}"]
        assert row[f"cost_to_target_{part}"] == pytest.approx(seconds / 100)
    assert row["cost_to_target_median"] == pytest.approx(0.359)
    # Of so few runs, the ends of the median's interval are not known.
    unknown = [name for name, value in row.items() if name.startswith("time_to") and value is None]
    assert [row[name.replace("time_to_target_seconds", "cost_to_target")] for name in unknown] == [
        None
    ] * len(unknown)
    assert unknown
    runs = json.loads(report("--price-per-hour", "36", "--to", "json", "--per", "run"))
    assert [row["cost_to_target"] for row in runs] == pytest.approx([0.354, 0.359, 0.369])
    assert {row["currency"] for row in runs} == {None}


def test_csv_says_the_same(report: Report) -> None:
    options = ("--price-per-hour", "$36", "--per", "run", "--to")
    from_csv = list(csv.DictReader(io.StringIO(report(*options, "csv"))))
    from_json = json.loads(report(*options, "json"))
    assert [float(row["cost_to_target"]) for row in from_csv] == [
        row["cost_to_target"] for row in from_json
    ]
    assert {row["currency"] for row in from_csv} == {"$"}


def test_without_a_price_there_is_no_cost(report: Report) -> None:
    [row] = json.loads(report("--to", "json"))
    assert not [name for name in row if "cost" in name or "price" in name]
    assert "cost" not in report()


@pytest.mark.parametrize(("per", "shown"), [("benchmark", "0.359"), ("run", "0.369")])
def test_the_table_has_a_column(per: str, shown: str, report: Report) -> None:
    out = report("--price-per-hour", "36 EUR", "--per", per)
    assert "cost, EUR" in out
    assert shown in out


def test_a_missed_target_cost_nothing_that_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "r", [make_record(accuracies=[0.98])])
    for per in ("run", "benchmark"):
        options = ["--price-per-hour", "2", "--per", per]
        assert main(["report", folder, *options, "--to", "json"]) == 0
        [row] = json.loads(capsys.readouterr().out)
        assert {value for name, value in row.items() if name.startswith("cost")} == {None}
        assert main(["report", folder, *options]) == 0
        assert "cost" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("2.49", Price(2.49, None)),
        (".5", Price(0.5, None)),
        (" 3. ", Price(3.0, None)),
        ("2.49 EUR", Price(2.49, "EUR")),
        ("2.49EUR", Price(2.49, "EUR")),
        ("$2.49", Price(2.49, "$")),
        ("€ 2", Price(2.0, "€")),
    ],
)
def test_prices_are_read_as_people_write_them(text: str, price: Price) -> None:
    assert parse_price(text) == price


@pytest.mark.parametrize(
    "text",
    ["", "EUR", "0", "-1", "+1", "nan", "inf", "1e400", "9" * 400, "$2 EUR", "1,000", "1 2",
     "2 =A1", "2 \x1b[31m", "2 \u202e", "1.2.3"],
)  # fmt: skip
def test_what_is_no_price_is_bad_input(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        parse_price(text)
    assert main(["report", f"--price-per-hour={text}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--price-per-hour takes a number above 0" in line
    assert line.isprintable()


@given(st.text())
def test_any_text_is_a_price_or_bad_input(text: str) -> None:
    try:
        price = parse_price(text)
    except UsageError:
        return
    assert price.per_hour > 0
    assert price.currency is None or price.currency.isprintable()


def test_clocks_have_no_price(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--clocks", "--price-per-hour", "1"]) == 2
    assert "leave --clocks out" in capsys.readouterr().err


def test_a_cost_beyond_all_range_is_unknown() -> None:
    rows, columns = add_costs(
        [{"time_to_target_seconds": 1e308}], ["time_to_target_seconds"], Price(1e308, None)
    )
    assert columns == ["time_to_target_seconds", "price_per_hour", "currency", "cost_to_target"]
    assert rows[0]["cost_to_target"] is None


# Energy


def test_energy_is_in_the_table_where_it_is_known(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "1.23 kJ" in report()
    assert "1.23 kJ" in report("--per", "run")
    folder = saved(tmp_path / "unknown", make_benchmark())
    assert main(["report", folder]) == 0
    assert "energy" not in capsys.readouterr().out.partition("records in")[0]


def test_the_devices_and_the_hosts_energy_are_summed_up_apart() -> None:
    [benchmark] = group_runs([(None, run) for run in make_benchmark(energy=ENERGY)])
    row = benchmark_row(benchmark)
    assert (row["energy_joules_median"], row["host_energy_joules_mean"]) == (1234.5, 456.0)
    alone = {"device": {"joules": None, "source": "a test"}, "host": None}
    [benchmark] = group_runs([(None, run) for run in make_benchmark(energy=alone)])
    row = benchmark_row(benchmark)
    assert (row["energy_joules_median"], row["host_energy_joules_median"]) == (None, None)


@pytest.mark.parametrize(
    ("joules", "text"),
    [(0, "0 J"), (41.23, "41.2 J"), (999, "999 J"), (1234.5, "1.23 kJ"), (5.6e6, "5.60 MJ")],
)
def test_energy_for_people(joules: float, text: str) -> None:
    assert energy(joules) == text


def test_an_interval_of_energies_has_the_unit_of_its_value() -> None:
    assert energy_between(1200.0, 1300.0, 1234.5) == "1.20–1.30"
    assert energy_between(40.0, 42.0, 41.0) == "40.0–42.0"


def test_a_hundred_thousand_blanks_are_no_price() -> None:
    for text in (" " * 100_000, "1" + " " * 100_000 + "?", "$" * 100_000, "1" * 100_000 + " 1"):
        with pytest.raises(UsageError):
            parse_price(text)
