from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from bench.records.schema import Evaluation, RunRecord, first_reached
from tests.factories import ENERGY, MONITORING, gpu_state, make_record, records


@given(records())
def test_a_record_survives_json(record: RunRecord) -> None:
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


@given(records())
def test_a_record_is_json_that_any_reader_takes(record: RunRecord) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(record.model_dump_json(), parse_constant=refuse)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"target_reached_epoch": 2}, "target_reached_epoch"),
        ({"target_reached_epoch": None}, "target_reached_epoch"),
        ({"final_accuracy": 0.999}, "final_accuracy"),
        ({"final_accuracy": None}, "final_accuracy"),
        ({"samples_seen": 1}, "samples_seen"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"schema_version": 14}, "schema_version"),
        ({"status": "fine"}, "status"),
        ({"run_index": 0}, "run_index"),
        ({"final_accuracy": float("nan")}, "final_accuracy"),
        ({"protocol": {"target_accuracy": 99.4}}, "target_accuracy"),
        ({"laps": [{"kind": "train", "start_seconds": 0.0, "seconds": -1.0}]}, "seconds"),
        ({"energy": {"device": {"joules": -1.0, "source": ""}, "host": None}}, "joules"),
        ({"monitoring": MONITORING | {"gpus": [{"before": gpu_state()}]}}, "after"),
        ({"mistakes": {"images": [1], "predicted": [2]}}, "as many"),
        ({"mistakes": {"images": list(range(54)), "predicted": [2]}}, "one prediction"),
        ({"mistakes": {"images": [0] * 54, "predicted": [2] * 54}}, "rising"),
        ({"mistakes": {"images": [*range(53), 10_000], "predicted": [2] * 54}}, "not evaluated"),
        ({"mistakes": {"images": [*range(54)], "predicted": [10] * 54}}, "less than or equal to 9"),
        ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at"),
        ({"laps": [{"kind": "nap", "start_seconds": 0.0, "seconds": 1.0}]}, "kind"),
    ],
)
def test_a_record_that_contradicts_itself_or_the_schema_is_refused(
    overrides: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        make_record(**overrides)


def test_the_first_versions_records_are_still_read() -> None:
    """They had no word for what computed a step: torch did."""
    values = make_record(setup={"kernels": "amx"}).model_dump(mode="json")
    values["schema_version"] = 1
    del values["setup"]["kernels"]
    assert RunRecord.model_validate(values).setup.kernels == "torch"


def test_the_second_versions_one_kind_of_compiled_code_has_a_name_of_its_own_now() -> None:
    values = make_record().model_dump(mode="json")
    values["schema_version"] = 2
    values["setup"]["kernels"] = "native"
    assert RunRecord.model_validate(values).setup.kernels == "avx512-bf16"


def test_what_the_eighth_version_called_avx512_multiplied_bf16() -> None:
    values = make_record(setup={"kernels": "avx512"}).model_dump(mode="json")
    assert RunRecord.model_validate(values).setup.kernels == "avx512", "today's has fp32 products"
    values["schema_version"] = 8
    assert RunRecord.model_validate(values).setup.kernels == "avx512-bf16"


def test_the_fourth_versions_records_know_of_no_energy_and_no_mistaken_field_of_it() -> None:
    values = make_record(energy=ENERGY, monitoring=MONITORING).model_dump(mode="json")
    values["schema_version"] = 4
    for field in ("energy", "monitoring"):
        with pytest.raises(ValidationError, match=f"{field} is not a field of schema_version 4"):
            RunRecord.model_validate(values)
        del values[field]
    old = RunRecord.model_validate(values)
    assert (old.energy, old.monitoring) == (None, None)


def test_older_records_do_not_say_what_was_taken_for_what() -> None:
    values = make_record().model_dump(mode="json")
    values["schema_version"] = 4
    del values["mistakes"]
    assert RunRecord.model_validate(values).mistakes is None


def test_the_sixth_versions_records_do_not_say_what_an_all_reduce_takes() -> None:
    values = make_record(all_reduce_seconds=1e-4).model_dump(mode="json") | {"schema_version": 6}
    with pytest.raises(ValidationError, match="all_reduce_seconds is not a field of schema_versi"):
        RunRecord.model_validate(values)
    del values["all_reduce_seconds"]
    assert RunRecord.model_validate(values).all_reduce_seconds is None


def test_the_ninth_versions_records_do_not_say_why_a_commit_is_unknown() -> None:
    environment = {
        "commit": None,
        "dirty": None,
        "commit_unknown_reason": "there is no git command",
    }
    values = make_record(environment=environment).model_dump(mode="json") | {"schema_version": 9}
    with pytest.raises(
        ValidationError, match="commit_unknown_reason is not a field of schema_vers"
    ):
        RunRecord.model_validate(values)
    del values["environment"]["commit_unknown_reason"]
    assert RunRecord.model_validate(values).environment.commit_unknown_reason is None


def test_the_eleventh_versions_records_know_no_kernels_of_clusters() -> None:
    values = make_record(setup={"kernels": "cluster"}).model_dump(mode="json")
    assert RunRecord.model_validate(values).setup.kernels == "cluster"
    with pytest.raises(ValidationError, match="cluster"):
        RunRecord.model_validate(values | {"schema_version": 11})


def test_the_twelfth_versions_records_compared_no_graphs() -> None:
    compared = ("images", "loss", "gradient", "parameter_gradient", "allowed", "weights")
    check = dict.fromkeys(compared, 0.1) | {"parameter": "stem", "graphs": 0.0, "last_batch": 0.0}
    values = make_record().model_dump(mode="json") | {"parity": check}
    parity = RunRecord.model_validate(values).parity
    assert parity is not None
    assert parity.graphs == 0
    with pytest.raises(
        ValidationError, match=r"parity\.graphs is not a field of schema_version 12"
    ):
        RunRecord.model_validate(values | {"schema_version": 12})
    del check["graphs"], check["last_batch"]
    assert RunRecord.model_validate(values | {"schema_version": 12}).parity is not None


@pytest.mark.parametrize("kernels", [["amx"], {"amx": 1}, 5, None], ids=repr)
@pytest.mark.parametrize("version", [2, 8, 11])
def test_kernels_that_are_no_name_are_refused(version: int, kernels: object) -> None:
    values = make_record().model_dump(mode="json") | {"schema_version": version}
    values["setup"]["kernels"] = kernels
    with pytest.raises(ValidationError, match="kernels"):
        RunRecord.model_validate(values)


def test_a_record_is_never_edited() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_record().final_accuracy = 1.0  # type: ignore[misc]


@given(st.lists(st.integers(9_900, 9_960)), st.integers(9_900, 9_960))
def test_the_target_is_reached_at_the_first_evaluation_that_has_it(
    correct: list[int], wanted: int
) -> None:
    evaluations = [
        Evaluation(epoch=epoch, samples=10_000, correct=right, loss=None, samples_seen=epoch)
        for epoch, right in enumerate(correct, start=1)
    ]
    reached = first_reached(evaluations, wanted / 10_000)
    before = correct if reached is None else correct[: reached - 1]
    assert all(right < wanted for right in before)
    assert reached is None or correct[reached - 1] >= wanted
