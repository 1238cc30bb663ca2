"""What the reports of all ranks say together."""

from __future__ import annotations

from bench.measure.rank_reports import find_difference, find_miscount, find_refusal


def said(rank: int, **facts: str) -> dict[str, object]:
    return {"rank": rank, "local": 0, "processes": 3, "facts": facts}


def test_the_field_and_the_rank_that_differ_are_named() -> None:
    told = [said(2, code="a", threads="1"), said(0, code="a", threads="2"), said(1, threads="2")]
    told[2]["facts"] = {"code": "a", "threads": "2"}
    assert find_difference(told) == (
        "the ranks do not agree on threads: 1 on rank 2, 2 on ranks 0 and 1; start all of the same "
        "code with the same options"
    )
    assert find_difference(told[1:]) is None


def test_refusals_that_are_alike_are_one_and_others_have_a_rank() -> None:
    told = [{"rank": 1, "refusal": "no"}, {"rank": 0, "refusal": "no"}]
    assert find_refusal(told) == "no"
    assert find_refusal([told[0], said(0)]) == "rank 1: no"
    assert find_refusal([said(0)]) is None


def test_ranks_of_different_launches_and_ranks_given_twice_are_found() -> None:
    assert find_miscount([said(0), said(1), said(2)]) is None
    twice = find_miscount([said(0), said(1), said(1)])
    assert twice is not None
    assert twice.startswith("two processes say that they are rank 1")
    other = said(1) | {"processes": 4}
    counted = find_miscount([said(0), other])
    assert counted is not None
    assert "4 on rank 1, 3 on rank 0" in counted
