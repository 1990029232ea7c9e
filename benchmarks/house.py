"""Figures of the house: how the package is built, counted in its syntax trees. Standard library only.

    python benchmarks/house.py                       # this tree
    python benchmarks/house.py --source OTHER/src    # another one, such as an older commit's

Where a figure cannot be read off a syntax tree, a proxy stands in; the text below the table says which.
`tests/test_layers.py` holds the rules with the functions of this file.
"""

import argparse
import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "hifispeech"
# From the ground up: a module imports from its own layer and from those before it. "" is the package itself.
LAYERS = (
    ("errors", "version"),
    ("files", "paths"),
    ("audio",),
    ("weights",),
    ("models",),
    ("infer",),
    ("runs",),
    ("",),
    ("datasets",),
    ("train",),
    ("evaluate",),
    ("serve", "client"),
    ("listening",),
    ("cli",),
    ("__main__",),
)
# Parts of the runtime; none of their modules loads one of HEAVY when it is imported.
RUNTIME = ("", "errors", "version", "files", "paths", "audio", "infer", "runs", "weights", "serve", "cli")
HEAVY = ("torch", "scipy")
# Fields by which a record stands for one file of a folder run.
FILE_FIELDS = {"input", "output", "path", "result", "scratch", "source", "target", "task"}
FOLDER_RUN = {
    "file",
    "folder",
    "folder_work",
    "manifest",
    "one_file",
    "processes",
    "upsampler",
    "upscaler",
    "workers",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    """One module loads another; `at_import`: not in a function and not for type checkers only."""

    importer: str
    imported: str
    at_import: bool


def read_modules(source: Path) -> dict[str, ast.Module]:
    """Syntax trees of the package below `source`, by dotted name."""
    return {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8"), str(path)
        )
        for path in sorted((source / PACKAGE).rglob("*.py"))
    }


def imports(modules: dict[str, ast.Module], packages: set[str]) -> Iterator[Import]:
    """Every import statement, also those in functions; `packages` are the modules that are folders."""
    for name, tree in modules.items():
        late = {id(n) for node in ast.walk(tree) if _is_late(node) for n in ast.walk(node)}
        base = name if name in packages else name.rpartition(".")[0]
        for node in ast.walk(tree):
            for imported in _imported(node, base, modules):
                yield Import(name, imported, id(node) not in late)


def _is_late(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, Function)


def _imported(node: ast.AST, base: str, modules: dict[str, ast.Module]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = base.split(".")[: len(base.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in modules else module


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: `infer` of `hifispeech.infer.live.stream`."""
    return [*module.split("."), ""][1]


def upward(found: list[Import]) -> list[tuple[str, str]]:
    """Pairs (importer, imported) against `LAYERS`."""
    height = {part: level for level, layer in enumerate(LAYERS) for part in layer}
    pairs = {(i.importer, i.imported) for i in found if i.imported.split(".")[0] == PACKAGE}
    return sorted(pair for pair in pairs if height[part_of(pair[0])] < height[part_of(pair[1])])


def graph_of(found: Iterable[Import]) -> dict[str, set[str]]:
    """What each module imports."""
    graph: dict[str, set[str]] = {}
    for one in found:
        if one.importer != one.imported:
            graph.setdefault(one.importer, set()).add(one.imported)
    return graph


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """What `start` imports, directly or through others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph.get(waiting.pop(), set()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def circles(found: list[Import]) -> list[list[str]]:
    """Groups of modules that import one another, directly or not (strongly connected components)."""
    graph = graph_of(found)
    reach = {name: reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in there if name in reach.get(other, ())))
        for name, there in reach.items()
        if name in there
    }
    return sorted(list(group) for group in groups)


def packages_of(source: Path) -> set[str]:
    """Dotted names of the folders with an `__init__.py`."""
    files = (source / PACKAGE).rglob("__init__.py")
    return {".".join(file.parent.relative_to(source).parts) for file in files}


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_rename(call: ast.Call) -> bool:
    """`os.replace(a, b)`, `os.rename(a, b)`, `path.replace(b)`, `path.rename(b)`; no `text.replace(a, b)`."""
    if (
        not isinstance(call.func, ast.Attribute)
        or call.func.attr not in ("replace", "rename")
        or call.keywords
    ):
        return False
    is_os = isinstance(call.func.value, ast.Name) and call.func.value.id == "os"
    return len(call.args) == (2 if is_os else 1)


def is_record_of_a_file(node: ast.AST) -> bool:
    """A class with annotated fields, of which one names a file."""
    if not isinstance(node, ast.ClassDef):
        return False
    fields = (field.target for field in node.body if isinstance(field, ast.AnnAssign))
    return any(isinstance(target, ast.Name) and target.id in FILE_FIELDS for target in fields)


def body_lines(node: Function) -> int:
    """Lines from the first statement after the docstring to the end: without signature and docstring."""
    first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
    return (node.end_lineno or 0) - first.lineno + 1


def names_constant(tree: ast.AST, *texts: str) -> bool:
    found = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return found.issuperset(texts)


def comment_share(paths: list[Path]) -> float:
    """Lines with a comment, in per cent of all lines."""
    lines = comments = 0
    for path in paths:
        text = path.read_text(encoding="utf-8")
        lines += text.count("\n")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments += sum(token.type == tokenize.COMMENT for token in tokens)
    return 100 * comments / lines


def figures(source: Path) -> dict[str, str]:
    """Every figure as text, by its name."""
    modules, packages = read_modules(source), packages_of(source)
    found = list(imports(modules, packages))
    paths = sorted((source / PACKAGE).rglob("*.py"))
    rooms = Counter(path.parent.relative_to(source).as_posix() for path in paths)
    room, files = rooms.most_common(1)[0]
    trees = modules.values()
    every = [(node, f"{name}.{node.name}") for name, tree in modules.items() for node in functions(tree)]
    lengths = [(node.end_lineno or 0) - node.lineno + 1 for node, _ in every]
    outside_io = {n: t for n, t in modules.items() if not n.startswith(f"{PACKAGE}.audio.io")}
    run = [t for n, t in modules.items() if n.rpartition(".")[2] in FOLDER_RUN and ".batch." not in n]
    return {
        "import circles": str(len(circles(found))),
        "upward arrows": str(len(upward(found))),
        "files in the largest room": f"{files} ({room})",
        "atomic writers": str(sum(any(map(is_rename, calls(f))) for t in trees for f in functions(t))),
        "file loops": str(sum(any(_reads_blocks(c) for c in calls(t)) for t in outside_io.values())),
        "PCM codecs": str(
            sum(names_constant(t, "<i2", "<f4") for n, t in modules.items() if not n.endswith(".encode"))
        ),
        "classes": str(sum(isinstance(node, ast.ClassDef) for t in trees for node in ast.walk(t))),
        "wrappers round one file of a folder run": str(
            sum(is_record_of_a_file(node) for t in run for node in ast.walk(t))
        ),
        "median function, lines": f"{statistics.median(lengths):g} (of {len(lengths)})",
        "longest function, lines": "{} ({})".format(
            *max(zip(lengths, (name for _, name in every), strict=True))
        ),
        "longest body, lines": "{} ({})".format(*max((body_lines(node), name) for node, name in every)),
        "comments, % of lines": f"{comment_share(paths):.1f}",
    }


def _reads_blocks(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "blocks"


NOTES = """\
Circles: groups of modules that import one another, imports in functions and for type checkers included; that
a submodule loads its packages does not count. Arrows: pairs of modules against LAYERS. Atomic writers:
functions that rename a file. File loops: modules outside `audio.io` that go through a reader's blocks. PCM
codecs: modules that name both sample types, "<i2" and "<f4", but for the encoders of files. Wrappers: classes
of the modules of a folder run with an annotated field that names a file or stands for one. The lines of a
function include signature and docstring, those of its body neither."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    default = Path(__file__).resolve().parents[1] / "src"
    parser.add_argument("--source", type=Path, default=default, help="folder that holds the package")
    parser.add_argument("--list", action="store_true", help="also name the circles and the upward arrows")
    args = parser.parse_args()
    print("| figure | value |\n|---|---|")
    for name, value in figures(args.source).items():
        print(f"| {name} | {value} |")
    print(f"\n{NOTES}")
    if args.list:
        found = list(imports(read_modules(args.source), packages_of(args.source)))
        print(*(f"circle: {', '.join(group)}" for group in circles(found)), sep="\n")
        print(*(f"upward: {importer} -> {imported}" for importer, imported in upward(found)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
