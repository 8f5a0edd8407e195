"""Parses and evaluates conditions on a record's fields, as `wer <= 0.3`.

A condition has Python's syntax and SQL's logic: true, false, or unknown if a field is missing.
It is compiled from a few kinds of nodes of Python's syntax tree, and never run as Python.
None stands for unknown everywhere.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from beam_asr.errors import ExpressionError, for_message

MAX_CHARACTERS = 4000  # characters
MAX_DEPTH = 40  # levels of parentheses, operators and calls within each other
MAX_WHOLE_NUMBER = 2**64  # of whole numbers that are written in an expression
MAX_BITS = 1023  # of whole numbers in arithmetic; a float has no more
SHOWN = 24  # characters of the place that a message shows
MAX_SHOWN_CHARACTERS = 200  # of the expression

ALLOWED = (
    "Allowed are fields (wer, scores.wer), numbers, 'texts', True, False, None; and, or, not, "
    "parentheses; <, <=, >, >=, ==, !=, in, not in, is None, is not None; +, -, *, /, % of "
    "numbers; and len(x), lower(x), abs(x), min(x, y), max(x, y), startswith(x, 'a'), "
    "endswith(x, 'a')"
)
SUGGESTED_OPERATORS = {
    "=<": "<=",
    "=>": ">=",
    "&&": "and",
    "||": "or",
    "<>": "!=",
    "=": "==",
    "!": "not",
}
SUGGESTED_SYNTAX: dict[type[ast.AST], str] = {
    ast.BitAnd: "write and",
    ast.BitOr: "write or",
    ast.Invert: "write not",
}
SUGGESTED_CONSTANTS = {"true": "True", "false": "False", "null": "None"}
LISTS = "a list goes behind in, not in, or into startswith, endswith"
BREAK = re.compile(r"[\0\n\r\f]")

Fields = Mapping[str, Any]
Part = Callable[[Fields], Any]


class Expression:
    """A condition on the fields of a record, created by `parse` and pickled as its text.

    Attributes:
        text: as it was written.
        names: the fields that it reads, in the order in which they occur.
    """

    def __init__(self, text: str):
        self.text = text
        compiler = _Compiler(text)
        self._condition = compiler.condition(compiler.tree)
        self.names = tuple(compiler.names)

    def matches(self, fields: Fields) -> bool:
        """Returns whether it is true of a record, not false or unknown; never raises.

        Args:
            fields: of the record, as JSON has them.
        """
        return self._condition(fields) is True

    def values(self, fields: Fields) -> dict[str, Any]:
        """Returns the fields that it reads of a record, by name; None for missing ones."""
        return {name: _look_up(fields, name.split(".")) for name in self.names}

    def missing(self, fields: Fields) -> list[str]:
        """Returns those of ``names`` that a record lacks; a field that is null is not missing."""
        return [name for name in self.names if not _has(fields, name.split("."))]

    def __reduce__(self) -> tuple[Any, ...]:
        return Expression, (self.text,)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def parse(text: str) -> Expression:
    """Parses an expression.

    Raises:
        ExpressionError: it is invalid, too long, too deep, or holds what is not allowed.
    """
    return Expression(text)


class _Compiler:
    """Compiles nodes of the tree to functions of a record's fields.

    Attributes:
        tree: of the expression.
        names: the fields so far; a dict for its order.
    """

    def __init__(self, text: str):
        self.text = text.strip()
        self.names: dict[str, None] = {}
        self.tree = self._tree()

    def condition(self, node: ast.expr) -> Part:
        """Compiles a condition: true, false or unknown."""
        if isinstance(node, ast.BoolOp):
            logic = _all if isinstance(node.op, ast.And) else _any
            parts = [self.condition(operand) for operand in node.values]
            return lambda fields: logic(part(fields) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            part = self.condition(node.operand)
            return lambda fields: _not(part(fields))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool):
            return _constant(node.value)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return _truth(self._field(node))
        if isinstance(node, ast.Call) and _called(node) in ("startswith", "endswith"):
            return self._call(node)
        if isinstance(node, (ast.Constant, ast.Call, ast.BinOp, ast.UnaryOp)):
            self.value(node)  # its errors come first
            raise self._error(node, "this is no condition; compare it, as in len(text) > 0")
        raise self._not_allowed(node, node)

    def value(self, node: ast.expr) -> Part:
        """Compiles a value that can be compared."""
        if isinstance(node, ast.Constant):
            return _constant(self._literal(node))
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._field(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.BinOp):
            return self._arithmetic(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            part = self._number(node.operand)
            return lambda fields: _calculated(operator.sub, 0, part(fields))
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            raise self._error(node, LISTS)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.Invert)):
            raise self._not_allowed(node.op, node)
        return self.condition(node)

    def _comparison(self, node: ast.Compare) -> Part:
        """Compiles all links of a chain; each operand is evaluated once."""
        nodes = [node.left, *node.comparators]
        links = []
        for number, (kind, left, right) in enumerate(zip(node.ops, nodes, nodes[1:])):
            links.append((number, self._link(kind, left, right)))
        parts = [
            _constant([self._literal(element) for element in node.elts])
            if isinstance(node, (ast.List, ast.Tuple, ast.Set))
            else self.value(node)
            for node in nodes
        ]

        def compare(fields: Fields) -> bool | None:
            values = [part(fields) for part in parts]
            return _all(link(values[number], values[number + 1]) for number, link in links)

        return compare

    def _link(self, kind: ast.cmpop, left: ast.expr, right: ast.expr) -> Callable[[Any, Any], Any]:
        groups = (ast.List, ast.Tuple, ast.Set)
        membership = isinstance(kind, (ast.In, ast.NotIn))
        wrong = left if isinstance(left, groups) else right
        if isinstance(wrong, groups) and not (membership and wrong is right):
            raise self._error(wrong, LISTS)
        if membership:
            if isinstance(right, ast.Constant) and not isinstance(right.value, str):
                raise self._error(right, "in needs a list, a text or a field")
            among = _among if isinstance(right, groups) else _inside
            return among if isinstance(kind, ast.In) else lambda a, b: _not(among(a, b))
        nothing = _is_none(left) or _is_none(right)
        if isinstance(kind, (ast.Is, ast.IsNot)) and not nothing:
            raise self._error(right, "is goes with None alone; write ==")
        if nothing and isinstance(kind, (ast.Eq, ast.Is)):
            return lambda a, b: a is b
        if nothing and isinstance(kind, (ast.NotEq, ast.IsNot)):
            return lambda a, b: a is not b
        if nothing:
            raise self._error(right, "None has no order; write is None or is not None")
        return COMPARISONS[type(kind)]

    def _arithmetic(self, node: ast.BinOp) -> Part:
        calculate = ARITHMETIC.get(type(node.op))
        if calculate is None:
            raise self._not_allowed(node.op, node)
        left, right = self._number(node.left), self._number(node.right)
        return lambda fields: _calculated(calculate, left(fields), right(fields))

    def _number(self, node: ast.expr) -> Part:
        """Compiles an operand of arithmetic, unless it is known not to be a number."""
        if isinstance(node, ast.Constant) and not _is_number(self._literal(node)):
            raise self._error(node, "this is no number")
        if isinstance(node, (ast.BoolOp, ast.Compare)) or (
            isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        ):
            raise self._error(node, "a condition is no number")
        return self.value(node)

    def _call(self, node: ast.Call) -> Part:
        name = _called(node)
        if name not in CALLS:
            raise self._error(node, f"there is no function {name!r}" if name else "no such call")
        function, minimum, maximum = CALLS[name]
        if node.keywords or not minimum <= len(node.args) <= maximum:
            count = f"{minimum}" if minimum == maximum else f"{minimum} or more"
            raise self._error(node, f"{name} takes {count} in its parentheses")
        parts = [
            self._affixes(argument)
            if number and name in ("startswith", "endswith")
            else self.value(argument)
            for number, argument in enumerate(node.args)
        ]
        return lambda fields: function(*(part(fields) for part in parts))

    def _affixes(self, node: ast.expr) -> Part:
        """Compiles the texts that a text may start or end with: one or several."""
        if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return self.value(node)
        texts = [self._literal(element) for element in node.elts]
        for element, text in zip(node.elts, texts, strict=True):
            if not isinstance(text, str):
                raise self._error(element, "this is no text")
        return _constant(tuple(texts))

    def _literal(self, node: ast.expr) -> Any:
        """Returns a value that is written in the expression."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._literal(node.operand)
            if _is_number(value):
                return -value
        elif isinstance(node, ast.Constant):
            value = node.value
            if value is None or isinstance(value, (bool, str)):
                return value
            if _is_number(value):
                if isinstance(value, float) and math.isinf(value):
                    raise self._error(node, "this number is too large")
                if isinstance(value, int) and value > MAX_WHOLE_NUMBER:
                    raise self._error(node, "this number is too large")
                return value
        raise self._error(node, "this is neither a number, a text, True, False nor None")

    def _field(self, node: ast.expr) -> Part:
        """Compiles a field, or a field of an object within it."""
        path: list[str] = []
        inner = node
        while isinstance(inner, ast.Attribute):
            path.insert(0, inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            raise self._error(node, "only a field has others within it, as scores.wer")
        path.insert(0, inner.id)
        if any(name.startswith("__") for name in path):
            raise self._error(node, "no field's name may begin with __ here")
        if path[0] in SUGGESTED_CONSTANTS:
            raise self._error(node, f"write {SUGGESTED_CONSTANTS[path[0]]}")
        self.names[".".join(path)] = None
        return lambda fields: _look_up(fields, path)

    def _tree(self) -> ast.expr:
        """Parses the text to a tree that is no deeper than a recursion may be."""
        if len(self.text) > MAX_CHARACTERS:
            raise ExpressionError(
                f"the expression has {len(self.text)} characters; at most {MAX_CHARACTERS} are "
                "allowed"
            )
        broken = BREAK.search(self.text)
        if broken:
            raise self._at(broken.start(), "an expression is one line")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a backslash that means nothing
                tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            place = (error.offset or 0) - 1
            raise self._unreadable(place if place >= 0 else len(self.text)) from None
        except (ValueError, RecursionError, MemoryError):  # by the depth, on some versions
            raise self._at(0, "this cannot be read") from None
        for node, level in _levels(tree):
            if level > MAX_DEPTH:
                raise self._error(node, f"this is nested more than {MAX_DEPTH} deep")
        return tree

    def _unreadable(self, place: int) -> ExpressionError:
        for wrong, right in SUGGESTED_OPERATORS.items():
            for start in (place, place - 1):
                if start >= 0 and self.text.startswith(wrong, start):
                    return self._at(start, f"write {right}")
        missing = not self.text[place:].strip()
        return self._at(place, "something is missing" if missing else "this cannot be read")

    def _not_allowed(self, kind: ast.AST, node: ast.expr) -> ExpressionError:
        return self._error(node, SUGGESTED_SYNTAX.get(type(kind), "this is not allowed"))

    def _error(self, node: ast.expr, reason: str) -> ExpressionError:
        before = self.text.encode()[: node.col_offset]  # the tree counts bytes
        return self._at(len(before.decode()), reason)

    def _at(self, place: int, reason: str) -> ExpressionError:
        shown = self.text[place : place + SHOWN]
        where = f"at character {place + 1} ({shown!r})" if shown.strip() else "at its end"
        text = for_message(self.text, MAX_SHOWN_CHARACTERS, gap="")
        return ExpressionError(f"{text!r}, {where}: {reason}. {ALLOWED}")


def _levels(tree: ast.expr) -> Iterator[tuple[ast.expr, int]]:
    """Yields all expressions of a tree with their depths, without recursion."""
    waiting: list[tuple[ast.AST, int]] = [(tree, 1)]
    while waiting:
        node, level = waiting.pop()
        if isinstance(node, ast.expr):
            yield node, level
        waiting.extend((child, level + 1) for child in ast.iter_child_nodes(node))


def _constant(value: Any) -> Part:
    return lambda fields: value  # noqa: ARG005


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _look_up(fields: Any, path: list[str]) -> Any:
    """Returns the value of a field; None also for NaN, which tables have for missing values."""
    for key in path:
        if not isinstance(fields, Mapping):
            return None
        fields = fields.get(key)
    return None if isinstance(fields, float) and fields != fields else fields


def _has(fields: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(fields, Mapping) or key not in fields:
            return False
        fields = fields[key]
    return True


def _truth(part: Part) -> Part:
    """Compiles a field to a condition: a value other than true and false is unknown."""

    def truth(fields: Fields) -> bool | None:
        value = part(fields)
        return value if isinstance(value, bool) else None

    return truth


def _all(values: Iterable[bool | None]) -> bool | None:
    known = True
    for value in values:
        if value is False:
            return False
        known = known and value is True
    return True if known else None


def _any(values: Iterable[bool | None]) -> bool | None:
    known = True
    for value in values:
        if value is True:
            return True
        known = known and value is False
    return False if known else None


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _is_number(value: Any) -> bool:
    """Returns whether a value is a number for arithmetic, which True and False are not."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return value.bit_length() <= MAX_BITS
    return isinstance(value, float) and value == value


def _calculated(calculate: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    if not (_is_number(left) and _is_number(right)):
        return None
    try:
        value = calculate(left, right)
    except ArithmeticError:  # by zero; beyond what a float can be
        return None
    return value if _is_number(value) else None


def _equal(left: Any, right: Any) -> bool | None:
    """Compares two values; different kinds are not equal, objects and lists are unknown."""
    if isinstance(left, (bool, int, float, str)) and isinstance(right, (bool, int, float, str)):
        return bool(left == right)
    return None


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    """Returns a comparison of two numbers, or of two texts."""

    def ordered(left: Any, right: Any) -> bool | None:
        if _is_number(left) and _is_number(right):
            return compare(left, right)
        return compare(left, right) if isinstance(left, str) and isinstance(right, str) else None

    return ordered


def _among(value: Any, literals: list[Any]) -> bool | None:
    """Returns whether a value equals one of the literals; None among them equals null."""
    return _any(
        value is None if literal is None else _equal(value, literal) for literal in literals
    )


def _inside(value: Any, whole: Any) -> bool | None:
    """Returns whether a value is in a list, a text in a text, or a key in an object."""
    if isinstance(whole, (list, tuple)):
        return _any(_equal(value, element) for element in whole)
    if isinstance(whole, (str, Mapping)) and isinstance(value, str):
        return value in whole
    return None


def _len(value: Any) -> int | None:
    return len(value) if isinstance(value, (str, list, tuple, Mapping)) else None


def _lower(value: Any) -> str | None:
    return value.lower() if isinstance(value, str) else None


def _abs(value: Any) -> Any:
    return abs(value) if _is_number(value) else None


def _extreme(choose: Callable[[Iterable[Any]], Any]) -> Callable[..., Any]:
    """Returns the minimum or maximum of some numbers or texts, or of a list of them."""

    def extreme(*values: Any) -> Any:
        if len(values) == 1 and isinstance(values[0], (list, tuple)):
            values = tuple(values[0])
        alike = all(map(_is_number, values)) or all(isinstance(value, str) for value in values)
        return choose(values) if values and alike else None

    return extreme


def _edge(has: Callable[[str, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def edge(value: Any, part: Any) -> bool | None:
        known = isinstance(value, str) and isinstance(part, (str, tuple))
        return has(value, part) if known else None

    return edge


COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool | None]] = {
    ast.Eq: _equal,
    ast.NotEq: lambda left, right: _not(_equal(left, right)),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
# Each with the minimum and maximum number of its arguments.
CALLS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "len": (_len, 1, 1),
    "lower": (_lower, 1, 1),
    "abs": (_abs, 1, 1),
    "min": (_extreme(min), 1, MAX_CHARACTERS),
    "max": (_extreme(max), 1, MAX_CHARACTERS),
    "startswith": (_edge(str.startswith), 2, 2),
    "endswith": (_edge(str.endswith), 2, 2),
}
