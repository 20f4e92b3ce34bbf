"""Changes of one place of a Python file that a test should notice: comparisons, constants, operators, calls and others.

Docstrings, annotations, decorators, strings, messages of errors and of logs, and tolerances below `SMALLEST` are no
places.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SMALLEST = 1e-3
FLIPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult,
}  # fmt: skip
SILENT = {"warn", "warning", "info", "debug", "error", "warn_once", "did_you_mean"}
"""Calls whose arguments are messages."""
ALIKE = {"max", "min", "zip", "isinstance"}
"""Calls whose arguments are not swapped: the result would be the same, or no program."""


@dataclass(frozen=True)
class Mutant:
    """A change of one place; ``line`` is where it was at the draw, the rest finds it again in later code."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    code: str
    nth: int


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every change of this node itself, by its kind."""

    def changed(**fields: Any) -> ast.AST:
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    match node:
        case ast.Compare(ops=[op]) if type(op) in FLIPS:
            yield "comparison", changed(ops=[FLIPS[type(op)]()])
        case ast.BoolOp(op=op):
            yield "and/or", changed(op=FLIPS[type(op)]())
        case ast.BinOp(op=op, left=left, right=right) if type(op) in FLIPS:
            yield "operator", changed(op=FLIPS[type(op)]())
            if isinstance(right, ast.Constant) and isinstance(op, ast.Add | ast.Sub):
                yield "dropped term", left
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield "dropped sign", operand
        case ast.Constant(value=bool(value)):
            yield "constant", changed(value=not value)
        case ast.Constant(value=int(value)):
            yield "constant", changed(value=value + 1)
        case ast.Constant(value=float(value)) if value == 0 or abs(value) >= SMALLEST:
            yield "constant", changed(value=value * 1.5 or 1.0)
        case ast.Call(func=func, args=arguments, keywords=keywords):
            if (
                len(arguments) == 1
                and not keywords
                and not isinstance(arguments[0], ast.Starred | ast.GeneratorExp)
            ):
                yield "dropped call", arguments[0]
            if not arguments and not keywords and isinstance(func, ast.Attribute):
                yield "dropped call", func.value
            alike = getattr(func, "id", "") in ALIKE
            if (
                len(arguments) >= 2
                and not alike
                and not any(isinstance(a, ast.Starred) for a in arguments[:2])
            ):
                yield "swapped arguments", changed(args=[arguments[1], arguments[0], *arguments[2:]])
            for keyword in keywords:
                if keyword.arg:
                    yield "dropped argument", changed(keywords=[k for k in keywords if k is not keyword])
        case ast.Expr(value=ast.Call()):
            yield "dropped statement", ast.Pass()


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """A node below this one, the kind of its change, and what it becomes."""
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.UnaryOp):
        yield node.test, "negated condition", ast.UnaryOp(ast.Not(), node.test)
    if isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield test, "negated condition", ast.UnaryOp(ast.Not(), test)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _is_silent(node.value):
        return
    for kind, after in changes(node) if hasattr(node, "lineno") else ():
        yield node, kind, after
    hidden = {"annotation", "returns", "decorator_list", "type_params", "bases"}
    for name, value in ast.iter_fields(node):
        children = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, ast.AST)]
        for child in children if name not in hidden else ():
            if isinstance(child, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
                continue
            if not (isinstance(child, ast.Call) and _is_silent(child)):
                yield from places(child)


def _is_silent(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in SILENT or name.endswith("Error") or name in {"TypeVar", "ClassVar", "cast"}


def mutants_of(path: Path) -> list[tuple[Mutant, str]]:
    """All mutants of a file, each with the file's text."""
    text = path.read_text(encoding="utf-8")
    lines = text.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found: list[tuple[Mutant, str]] = []
    for node, kind, after in places(ast.parse(text)):
        first = starts[node.lineno - 1] + node.col_offset
        last = starts[node.end_lineno - 1] + node.end_col_offset
        whole = text.encode()
        old = whole[first:last].decode()
        new = ast.unparse(after)
        if isinstance(after, ast.expr):
            new = f"({new})"
        code = lines[node.lineno - 1].decode().strip()
        same = sum((m.kind, m.before, m.after, m.code) == (kind, old, new, code) for m, _ in found)
        mutant = Mutant(str(path.relative_to(ROOT)), node.lineno, kind, old, new, code, same)
        rows = "\n" * (old.count("\n") - new.count("\n"))  # so that later lines keep their numbers
        new = f"{new[:-1]}{rows})" if isinstance(after, ast.expr) else new + rows
        found.append((mutant, (whole[:first] + new.encode() + whole[last:]).decode()))
    return found
