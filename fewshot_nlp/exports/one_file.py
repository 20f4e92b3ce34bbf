"""A module and what it uses of this package as one file, which needs no part of the package."""

import ast
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __name__.partition(".")[0]


def one_file(module: str) -> str:
    """The source of a module, in place of whose imports from the package stand the functions that it uses.

    Functions, classes and constants are taken over with those that they use in turn; annotations are not looked into,
    as they are never evaluated.

    Args:
        module: its dotted name; it and what it uses import the package's names by ``from ... import``.
    """
    files: dict[str, _Module] = {}
    seen: set[tuple[str, str]] = set()
    bodies: dict[str, None] = {}
    imports: dict[str, None] = {}

    def take(place: str, name: str) -> None:
        found = files[place] = files.get(place) or _Module(place)
        if name in found.inside:
            take(*found.inside[name])
        elif name in found.outside:
            imports[found.outside[name]] = None
        elif name in found.defined and (place, name) not in seen:
            seen.add((place, name))
            for part in sorted(_names(found.defined[name])):
                take(place, part)
            bodies[ast.unparse(_bare(found.defined[name]))] = None

    top = files[module] = _Module(module)
    for name in sorted({n for part in top.rest for n in _names(part)}):
        if name not in top.defined:
            take(module, name)
    head = [
        f'"""{ast.get_docstring(top.tree)}\n"""',
        "from __future__ import annotations",
        "\n".join(imports),
    ]
    return "\n\n".join([*head, *bodies, *(ast.unparse(part) for part in top.rest)]) + "\n"


class _Module:
    """The parts of a module: what it defines, and where what it imports comes from."""

    def __init__(self, name: str) -> None:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        self.tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        self.inside: dict[str, tuple[str, str]] = {}
        self.outside: dict[str, str] = {}
        self.defined: dict[str, ast.stmt] = {}
        self.rest: list[ast.stmt] = []
        for part in self.tree.body[1:]:  # after the docstring
            if isinstance(part, ast.ImportFrom) and str(part.module).startswith(PACKAGE):
                self.inside |= {n.asname or n.name: (str(part.module), n.name) for n in part.names}
            elif isinstance(part, ast.Import | ast.ImportFrom):
                self._import(part)
            else:
                self.rest.append(part)
                names = [part.name] if isinstance(part, ast.FunctionDef | ast.ClassDef) else _assigned(part)
                self.defined |= dict.fromkeys(names, part)

    def _import(self, part: ast.Import | ast.ImportFrom) -> None:
        for name in part.names:
            alone = (
                ast.Import([name]) if isinstance(part, ast.Import) else ast.ImportFrom(part.module, [name], 0)
            )
            self.outside[name.asname or name.name.partition(".")[0]] = ast.unparse(
                ast.fix_missing_locations(alone)
            )


def _assigned(part: ast.stmt) -> list[str]:
    targets = (
        part.targets
        if isinstance(part, ast.Assign)
        else [part.target]
        if isinstance(part, ast.AnnAssign)
        else []
    )
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _names(part: ast.AST) -> set[str]:
    """The names that code reads, but in annotations."""
    return {node.id for node in ast.walk(_bare(part)) if isinstance(node, ast.Name)}


def _bare(part: ast.AST) -> ast.AST:
    """A copy without annotations; fields of classes keep a placeholder."""
    copy: ast.AST = _Bare().visit(ast.parse(ast.unparse(part)))
    return copy


class _Bare(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant("Any")
        return self.generic_visit(node)
