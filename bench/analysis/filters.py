"""Conditions on rows in Python's syntax: ``device == "cuda" and processes > 1``.

Python parses the text but never runs it. `parse_filter` accepts comparisons of columns with
constants and with each other, ``in`` with a list of constants, ``and``, ``or``, ``not`` and
parentheses, and nothing else.

An absent value equals only ``None``, and is neither more nor less than any value.
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
"""Most characters of a condition: Python's parser must not be trusted with a huge text."""
DEEPEST = 30
"""Most levels of nesting."""

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
    """Names of the columns that the condition uses."""
    holds: _Test
    """Tells whether the condition holds for a row with these columns."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """One side of a comparison."""

    value: _Value
    shown: str
    """The operand as messages show it."""
    text: bool | None
    """Whether the value is text; False for a number; None for ``None``, which is neither."""


def parse_filter(text: str, columns: Sequence[str]) -> RowFilter:
    """Read a condition on rows that have these columns.

    Raises:
        UsageError: the text is no condition, or it uses a column that does not exist.
    """
    if len(text) > LONGEST:
        raise UsageError(f"--filter takes at most {LONGEST:,} letters, not {len(text):,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about Python's own syntax
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
    """Turns a syntax tree into functions of a row."""

    text: str
    """The whole condition."""
    columns: Sequence[str]
    """Columns that exist."""
    used: set[str]
    """Columns that the condition uses; it grows while parsing."""

    def test(self, node: ast.expr, depth: int) -> _Test:
        """Parse what is true or false."""
        if depth > DEEPEST:
            raise _refusal(self.text, "it is nested too deeply")
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                tests = [self.test(value, depth + 1) for value in values]
                return lambda row: all(test(row) for test in tests)
            case ast.BoolOp(values=values):
                tests = [self.test(value, depth + 1) for value in values]
                return lambda row: any(test(row) for test in tests)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                negated = self.test(operand, depth + 1)
                return lambda row: not negated(row)
            case ast.Compare(left=left, ops=ops, comparators=others):
                triples = zip([left, *others], ops, others, strict=False)
                tests = [self.comparison(first, op, second) for first, op, second in triples]
                return lambda row: all(test(row) for test in tests)
        raise self.unknown(node, "a comparison")

    def comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Test:
        """Parse a comparison of two values."""
        if isinstance(op, ast.In | ast.NotIn):
            return self.membership(left, right, isinstance(op, ast.In))
        operands = self.operand(left), self.operand(right)
        self.check_kinds(*operands)
        with_none = None in (operand.text for operand in operands)
        first, second = (operand.value for operand in operands)
        if isinstance(op, ast.Is | ast.IsNot) and not with_none:
            raise _refusal(self.text, "`is` is for None: compare with ==")
        if isinstance(op, ast.Eq | ast.Is):
            return lambda row: first(row) == second(row)
        if isinstance(op, ast.NotEq | ast.IsNot):
            return lambda row: first(row) != second(row)
        if with_none:
            raise _refusal(self.text, "nothing is more or less than None: compare with ==")
        return _ordered(_ORDER[type(op)], first, second)

    def membership(self, left: ast.expr, right: ast.expr, wanted: bool) -> _Test:
        """Parse ``in`` or, where not `wanted`, ``not in`` with a list of constants."""
        if not isinstance(right, ast.List | ast.Tuple):
            raise self.unknown(right, "a list of constants, as [1, 2],")
        operand = self.operand(left)
        constants = [self.constant(element) for element in right.elts]
        for constant in constants:
            self.check_kinds(operand, constant)
        value, values = operand.value, [constant.value({}) for constant in constants]
        return lambda row: (value(row) in values) is wanted

    def operand(self, node: ast.expr) -> _Operand:
        """Parse a column or a constant."""
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
        """Parse a text, a number or None."""
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

    def check_kinds(self, first: _Operand, second: _Operand) -> None:
        """Refuse a comparison of a text with a number."""
        if None not in (first.text, second.text) and first.text is not second.text:
            clauses = (
                f"{printable(operand.shown)} is {'a text' if operand.text else 'a number'}"
                for operand in (first, second)
            )
            raise UsageError(f"--filter: {' and '.join(clauses)}: they cannot be compared")

    def unknown(self, node: ast.expr, wanted: str) -> UsageError:
        """The error for syntax other than what is wanted."""
        source = ast.get_source_segment(self.text.strip(), node) or "this"
        return _refusal(self.text, f"{printable(source)[:40]!r} stands where {wanted} should")


def _ordered(before: Callable[[float, float], bool], first: _Value, second: _Value) -> _Test:
    def holds(row: Row) -> bool:
        left, right = first(row), second(row)
        # Both are texts or both numbers: `check_kinds` refuses the rest.
        return left is not None and right is not None and before(left, right)  # type: ignore[arg-type]

    return holds


def _refusal(text: str, why: str) -> UsageError:
    shown = printable(text)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return UsageError(f"--filter {shown!r}: {why}; write it {_EXAMPLE}")
