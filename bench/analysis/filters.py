"""Which rows are wanted: ``device == "cuda" and processes > 1``, as Python would have it.

The text is parsed by Python and never run: of its syntax there are comparisons of columns with
constants and with each other, ``in`` with a list of constants, ``and``, ``or``, ``not`` and
parentheses, and nothing else gets past `parse_filter`.

A value that is absent equals ``None`` and nothing else, and is neither more nor less than anything.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.analysis.columns import Row
from bench.analysis.headings import is_text
from bench.analysis.units import Cell
from bench.text import printable
from mnist_cnn.errors import UsageError, near_match

LONGEST = 1_000
"""Letters of a condition: nobody types more, and Python's parser need not be trusted with it."""
DEEPEST = 30
"""Levels of ``not`` and parentheses within each other."""

_Value = Callable[[Row], Cell]
_Test = Callable[[Row], bool]
_ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EXAMPLE = 'as: device == "cuda" and processes > 1'


@dataclass(frozen=True, slots=True)
class RowFilter:
    """A condition on a row."""

    columns: frozenset[str]
    """Those that it is about."""
    holds: _Test
    """Whether it holds for a row that has these columns."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """One side of a comparison."""

    value: _Value
    shown: str
    text: bool | None
    """Whether it is text rather than a number; None for ``None``, which is neither."""


def parse_filter(text: str, columns: Sequence[str]) -> RowFilter:
    """Read a condition on rows that have these columns.

    Raises:
        UsageError: it is none, or about a column that there is not.
    """
    if len(text) > LONGEST:
        raise UsageError(f"--filter takes at most {LONGEST:,} letters, not {len(text):,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about Python
            tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise _refusal(text, printable(error.msg)) from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise _refusal(text, "it cannot be parsed") from error
    reader = _FilterParser(text, columns, set())
    holds = reader.test(tree.body, 0)
    return RowFilter(frozenset(reader.used), holds)


@dataclass(frozen=True, slots=True)
class _FilterParser:
    text: str
    columns: Sequence[str]
    used: set[str]

    def test(self, node: ast.expr, depth: int) -> _Test:
        """What is true or false."""
        if depth > DEEPEST:
            raise _refusal(self.text, "it is nested too deeply")
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                parts = [self.test(value, depth + 1) for value in values]
                return lambda row: all(part(row) for part in parts)
            case ast.BoolOp(values=values):
                parts = [self.test(value, depth + 1) for value in values]
                return lambda row: any(part(row) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                part = self.test(operand, depth + 1)
                return lambda row: not part(row)
            case ast.Compare(left=left, ops=ops, comparators=others):
                pairs = zip([left, *others], ops, others, strict=False)
                parts = [self.comparison(one, op, other) for one, op, other in pairs]
                return lambda row: all(part(row) for part in parts)
        raise self.unknown(node, "a comparison")

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Test:
        """One of two values."""
        if isinstance(op, ast.In | ast.NotIn):
            return self.membership(left, right, isinstance(op, ast.In))
        one, other = self.operand(left), self.operand(right)
        self.check_kinds(one, other)
        first, second = one.value, other.value
        if isinstance(op, ast.Is | ast.IsNot) and None not in (one.text, other.text):
            raise _refusal(self.text, "`is` is for None: compare with ==")
        if isinstance(op, ast.Eq | ast.Is):
            return lambda row: first(row) == second(row)
        if isinstance(op, ast.NotEq | ast.IsNot):
            return lambda row: first(row) != second(row)
        if None in (one.text, other.text):
            raise _refusal(self.text, "nothing is more or less than None: compare with ==")
        return _ordered(_ORDER[type(op)], first, second)

    def membership(self, left: ast.expr, right: ast.expr, wanted: bool) -> _Test:
        """Whether a value is, or is not, one of a list of constants."""
        if not isinstance(right, ast.List | ast.Tuple):
            raise self.unknown(right, "a list of constants, as [1, 2],")
        one = self.operand(left)
        constants = [self.constant(element) for element in right.elts]
        for constant in constants:
            self.check_kinds(one, constant)
        value, values = one.value, [constant.value({}) for constant in constants]
        return lambda row: (value(row) in values) is wanted

    def operand(self, node: ast.expr) -> _Operand:
        """A column or a constant."""
        if not isinstance(node, ast.Name):
            return self.constant(node)
        name = node.id
        if name not in self.columns:
            raise UsageError(
                f"--filter: there is no column {name!r}{near_match(name, self.columns)}; texts are "
                "written in quotes"
            )
        self.used.add(name)
        return _Operand(lambda row: row[name], name, is_text(name))

    def constant(self, node: ast.expr) -> _Operand:
        """A text, a number or None."""
        match node:
            case ast.Constant(value=None):
                return _Operand(lambda _: None, "None", None)
            case ast.Constant(value=str() as text):
                return _Operand(lambda _: text, repr(text), True)
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return _Operand(lambda _: number, str(number)[:20], False)
            case ast.UnaryOp(
                op=ast.USub(), operand=ast.Constant(value=int() | float() as number)
            ) if not isinstance(number, bool):
                return _Operand(lambda _: -number, f"-{number}"[:20], False)
        raise self.unknown(node, "a column, a number, a text in quotes or None")

    def check_kinds(self, one: _Operand, other: _Operand) -> None:
        """Refuse what could never be true."""
        if None not in (one.text, other.text) and one.text is not other.text:
            kinds = ("a text" if side.text else "a number" for side in (one, other))
            shown = (printable(side.shown) for side in (one, other))
            (first, second), (of_first, of_second) = shown, kinds
            raise UsageError(
                f"--filter: {first} is {of_first} and {second} is {of_second}: they cannot be "
                "compared"
            )

    def unknown(self, node: ast.expr, wanted: str) -> UsageError:
        """Where something else stands than what could stand there."""
        there = ast.get_source_segment(self.text.strip(), node) or "this"
        return _refusal(self.text, f"{printable(there)[:40]!r} stands where {wanted} should")


def _ordered(before: Callable[[float, float], bool], first: _Value, second: _Value) -> _Test:
    def holds(row: Row) -> bool:
        one, other = first(row), second(row)
        # Both are of one kind: `check_kinds` has seen to it.
        return one is not None and other is not None and before(one, other)  # type: ignore[arg-type]

    return holds


def _refusal(text: str, why: str) -> UsageError:
    shown = printable(text)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return UsageError(f"--filter {shown!r}: {why}; write it {_EXAMPLE}")
