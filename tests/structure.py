"""Holds the shape of the code, as `make lint` runs it: python tests/structure.py.

Files of at most 250 lines, functions of at most 50 lines of code and 20 at the 90th percentile, at most 8 arguments
except in networks' constructors (data classes have none to count), at most 20 modules at the top of the package, no
circle of imports, and no import inside a function except in one function of each command, or of an optional package.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "score_lightning"
FILE, FUNCTION, PERCENTILE, ARGUMENTS, MODULES = 250, 50, 20, 8, 20
FOREIGN = (
    "wandb", "lmdb", "diffusers", "azula", "denoising_diffusion_pytorch", "ema_pytorch", "smalldiffusion", "matplotlib",
    "torch_fidelity", "torchmetrics", "torchvision", "sklearn", "lightning", "tifffile",
    "imagecodecs", "datasets", "pyarrow",
)  # fmt: skip
"""Packages that are optional, or take long to import and are not always needed."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[tuple[Function, ast.ClassDef | None]]:
    """Every function in a file, with the class that it is a method of."""
    for node in ast.walk(tree):
        owner = node if isinstance(node, ast.ClassDef) else None
        if isinstance(node, ast.ClassDef | ast.Module):
            yield from ((child, owner) for child in node.body if isinstance(child, Function))
        elif isinstance(node, Function):
            yield from ((child, None) for child in ast.walk(node) if isinstance(child, Function) and child is not node)


def lines_of_code(function: Function, lines: list[str]) -> int:
    """Lines of a function's body without docstring, blank lines and comments."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return 0
    span = lines[body[0].lineno - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in span)


def arguments(function: Function) -> int:
    """Arguments of a function, without self and cls."""
    a = function.args
    names = [arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
    return sum(name not in ("self", "cls") for name in names)


def imports(node: ast.AST) -> Iterator[str]:
    """The absolute names of modules that one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_checked_only(node: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def inner_imports(path: Path, tree: ast.Module) -> Iterator[str]:
    """What is wrong with imports inside functions."""
    command = path.parent == PACKAGE or 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    lazy = set()
    for function, _ in functions(tree):
        for node in ast.walk(function):
            names = list(imports(node))
            if not names or names[0].split(".")[0] in FOREIGN:
                continue
            lazy.add(function.name)
            if not command:
                yield f"{place(path)}:{node.lineno}: imports {names[0]} inside {function.name}"
    if command and len(lazy) > 1:
        yield f"{place(path)}: {', '.join(sorted(lazy))} import what they need; in a command one function does"


def place(path: Path) -> str:
    """A path as messages show it."""
    return str(path.relative_to(ROOT))


def circles(files: dict[Path, ast.Module]) -> Iterator[str]:
    """Modules that import each other at import time, directly or through others."""
    names = {module_name(path): path for path in files}
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        statements = [node for node in files[path].body if not is_checked_only(node)]
        found = {module for node in statements for module in imports(node)}
        edges[name] = {module for module in found if module in names and module != name}
    visited: dict[str, int] = {}

    def visit(name: str, trail: list[str]) -> Iterator[str]:
        visited[name] = 1
        for other in sorted(edges[name]):
            if visited.get(other) == 1:
                yield f"circle of imports: {' -> '.join([*trail[trail.index(other) :], other])}"
            elif other not in visited:
                yield from visit(other, [*trail, other])
        visited[name] = 2

    for name in sorted(edges):
        if name not in visited:
            yield from visit(name, [name])


def module_name(path: Path) -> str:
    """The dotted name of a file's module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def problems() -> Iterator[str]:
    """Everything that is out of shape, one line each."""
    files = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    sizes = []
    for path, tree in files.items():
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > FILE:
            yield f"{place(path)}: {len(lines)} lines, at most {FILE}"
        for function, owner in functions(tree):
            sizes.append(lines_of_code(function, lines))
            if sizes[-1] > FUNCTION:
                count = sizes[-1]
                yield f"{place(path)}:{function.lineno}: {function.name} has {count} lines of code, at most {FUNCTION}"
            network = owner is not None and path.parent.name == "networks" and function.name == "__init__"
            if arguments(function) > ARGUMENTS and not network:
                count = arguments(function)
                yield f"{place(path)}:{function.lineno}: {function.name} has {count} arguments, at most {ARGUMENTS}"
        yield from inner_imports(path, tree)
    percentile = statistics.quantiles(sizes, n=10)[-1]
    if percentile > PERCENTILE:
        yield f"a tenth of the functions has more than {percentile:.0f} lines of code, at most {PERCENTILE}"
    modules = [path for path in files if path.parent == PACKAGE]
    if len(modules) > MODULES:
        yield f"score_lightning/ has {len(modules)} modules at the top, at most {MODULES}"
    yield from circles(files)


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) if found else "the code is in shape")
    sys.exit(bool(found))
