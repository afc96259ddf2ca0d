"""The rules that keep pure modules pure and the tree readable; `tests/test_tidy.py` applies them.

**Kinds of module**, told apart by name and content, first match first:

- *adapter*: the name ends with `_grpc`, `_ray`, `_lmdb` or `_os`. The only modules that import such a library, or
  touch files, processes, threads and clocks. `ray` is imported in `*_ray.py` only, `grpc` in `*_grpc.py`, `lmdb` in
  `*_lmdb.py`.
- *command*: under `ops/cli/`. Reads arguments and environment, prints, and composes the rest.
- *composition*: the few modules of `COMPOSITION`. Drivers that join adapters with the rest.
- *facade*: an `__init__.py`. It may collect names of its own package; importing a name from it counts as importing
  the module that the name comes from.
- *driver*: imports asyncio, logging or OpenTelemetry, defines a coroutine outside a `Protocol`, or is one of
  `TASKLESS_DRIVERS`, which do all their work in callbacks. Moves data between pure modules and ports; runs unchanged
  in a deterministic event loop, so nothing in it may take an order or a value from outside: no `TaskGroup`,
  `asyncio.wait` or `as_completed` (all three keep tasks in sets), no clock, no threads, no randomness but a
  `random.Random` that it was given or seeded.
- *pure*: the rest. Time and randomness come as arguments; imports only pure modules, a short list of the standard
  library and a few libraries that compute.

What a rule bans is in the tables below, each with what to use in its place.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOMS = (
    "client",
    "clocks",
    "crdt",
    "drills",
    "global",
    "node",
    "ops",
    "regions",
    "services",
    "topology",
    "txn",
    "wire",
)
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

LIBRARIES = {
    "grpc": "grpc",
    "grpc_health": "grpc",
    "grpc_reflection": "grpc",
    "google.protobuf": "grpc",
    "isochrone.wire.etcd.generated": "grpc",
    "ray": "ray",
    "lmdb": "lmdb",
}
"""Library, and the suffix of the modules that may import it."""
ADAPTER_SUFFIXES = ("grpc", "ray", "lmdb", "os")
TASKLESS_DRIVERS = (
    "client/recipes.py",
    "drills/sim/changes.py",
    "drills/sim/clock.py",
    "drills/sim/faults.py",
    "drills/sim/network.py",
    "drills/sim/watch.py",
    "node/service.py",
    "node/session_watches.py",
    "node/watch_lines.py",
    "node/etcd_gathering.py",
    "node/settings.py",
)
"""Drivers that define no coroutine: called back by other drivers."""
COMPOSITION = ("node/node.py", "node/node_metrics.py", "client/client.py")
"""Drivers that may import adapters, to join them with the rest: what a node runs, and what an SDK client runs."""

PURE_IMPORTS = frozenset(
    {
        "abc",
        "array",
        "bisect",
        "collections",
        "csv",
        "dataclasses",
        "difflib",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "html",
        "io",
        "itertools",
        "json",
        "math",
        "operator",
        "pathlib",
        "random",
        "re",
        "string",
        "struct",
        "textwrap",
        "traceback",
        "types",
        "typing",
        "urllib.parse",
        "google_crc32c",
        "hpack",
        "msgpack",
        "pydantic",
        "pydantic_core",
        "yaml",
    }
)
"""What a pure module may import. `pathlib` names files, `io` and `csv` read text in memory; see `FILE_METHODS`."""
DRIVER_IMPORTS = PURE_IMPORTS | {"asyncio", "contextlib", "contextvars", "logging", "opentelemetry"}
COMPOSITION_IMPORTS = DRIVER_IMPORTS | {"os"}

DRIVER_BANS = {
    "asyncio.TaskGroup": "gather",
    "asyncio.wait": "gather or a queue",
    "asyncio.as_completed": "gather or a queue",
    "asyncio.to_thread": "a port",
    "asyncio.create_subprocess_exec": "a port",
    "asyncio.create_subprocess_shell": "a port",
    "asyncio.open_connection": "a port",
    "asyncio.start_server": "a port",
    "os.urandom": "a generator given as an argument",
}
FILE_METHODS = frozenset(
    {
        "read_text",
        "read_bytes",
        "write_text",
        "write_bytes",
        "mkdir",
        "rmdir",
        "unlink",
        "touch",
        "exists",
        "is_file",
        "is_dir",
        "stat",
        "iterdir",
        "glob",
        "rglob",
        "rename",
        "resolve",
        "cwd",
        "home",
        "expanduser",
    }
)
"""Methods of `pathlib.Path` that touch the file system."""
FILE_BUILTINS = frozenset({"open", "print", "input", "breakpoint"})

PLAIN_DATA = (
    "drills/history.py",
    "drills/report/figures.py",
    "drills/report/page.py",
    "drills/report/world.py",
    "drills/schema.py",
    "wire/codec.py",
    "wire/session_codec.py",
    "wire/status.py",
)
"""Pure modules that turn JSON, YAML or msgpack into typed values and back, and so may write `Any`."""

_LEFTOVERS = re.compile(r"\b(" + "FIX" + r"ME|X" + r"XX)\b")


class Kind(StrEnum):
    """Kind of module."""

    ADAPTER = "adapter"
    COMMAND = "command"
    COMPOSITION = "composition"
    FACADE = "facade"
    DRIVER = "driver"
    PURE = "pure"


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file. `path` is relative to the repository's root."""

    path: Path
    source: str
    tree: ast.Module

    @property
    def suffix(self) -> str:
        """What follows the last underscore of the name."""
        return self.path.stem.rpartition("_")[2] if "_" in self.path.stem else ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A breach of a rule."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


Resolve = Callable[[str], Kind | None]
"""Kind of the project's module with this full name, or from which a facade takes it; None if there is none such."""


def parse(path: Path, source: str) -> Module:
    """Parse the text of a file."""
    return Module(path, source, ast.parse(source))


def kind_of(module: Module) -> Kind:
    """What kind of module a file of a room is."""
    if module.suffix in ADAPTER_SUFFIXES:
        return Kind.ADAPTER
    if module.path.parts[:2] == ("ops", "cli"):
        return Kind.COMMAND
    if module.path.as_posix() in COMPOSITION:
        return Kind.COMPOSITION
    if module.path.name == "__init__.py":
        return Kind.FACADE
    if module.path.as_posix() in TASKLESS_DRIVERS:
        return Kind.DRIVER
    names = {name.partition(".")[0] for name, _ in imports_of(module)}
    if names & {"asyncio", "logging", "opentelemetry"} or _defines_coroutine(module.tree):
        return Kind.DRIVER
    return Kind.PURE


def imports_of(module: Module) -> Iterator[tuple[str, int]]:
    """Full names of what a file imports, with lines; `from a import b` gives `a.b`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield "." * node.level + f"{node.module or ''}.{alias.name}", node.lineno


def check_room_module(module: Module, resolve: Resolve) -> list[Finding]:
    """Every rule for a file of a room."""
    kind = kind_of(module)
    found = check_any_module(module)
    found += _check_libraries(module)
    found += _check_imports(module, kind, resolve)
    if kind in (Kind.PURE, Kind.DRIVER, Kind.COMPOSITION):
        found += _check_randomness(module)
        found += _check_files(module)
        found += _check_names(module, DRIVER_BANS, f"a {kind} module")
    if kind is Kind.PURE and module.path.as_posix() not in PLAIN_DATA:
        found += _check_any(module)
    return found


def check_any_module(module: Module) -> list[Finding]:
    """The rules for every file, tests among them."""
    return [
        *_check_bare_imports(module),
        *_check_size(module),
        *_check_leftovers(module),
        *_check_swallowed(module),
    ]


def check_test_module(module: Module) -> list[Finding]:
    """The rules for tests: those for every file, no skipping, no sleeping but between two looks at real processes."""
    bans = {f"pytest.{name}": "a test that runs" for name in ("skip", "importorskip", "xfail")}
    bans |= {f"pytest.mark.{name}": "a test that runs" for name in ("skip", "skipif", "xfail")}
    if module.path.parts[:2] not in (("tests", "integration"), ("tests", "support")):
        bans |= {"time.sleep": "virtual time, or a condition awaited"}
    return [*check_any_module(module), *_check_names(module, bans, "a test")]


def _defines_coroutine(tree: ast.AST) -> bool:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            return True
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases):
            continue
        if _defines_coroutine(node):
            return True
    return False


def _check_bare_imports(module: Module) -> Iterator[Finding]:
    for name, line in imports_of(module):
        if name.startswith("."):
            yield Finding(module.path, line, "a relative import; write isochrone.<room>")
        elif name.partition(".")[0] in ROOMS:
            yield Finding(module.path, line, f"a bare import of a room: {name}; write isochrone.<room>")


def _check_libraries(module: Module) -> Iterator[Finding]:
    for name, line in imports_of(module):
        for library, suffix in LIBRARIES.items():
            if _is_within(name, library) and module.suffix != suffix:
                yield Finding(module.path, line, f"imports {library}, which only *_{suffix}.py may")


def _check_imports(module: Module, kind: Kind, resolve: Resolve) -> Iterator[Finding]:
    allowed = {
        Kind.PURE: PURE_IMPORTS,
        Kind.DRIVER: DRIVER_IMPORTS,
        Kind.COMPOSITION: COMPOSITION_IMPORTS,
    }.get(kind)
    if allowed is None:
        return
    for name, line in imports_of(module):
        if _is_within(name, "isochrone"):
            target = resolve(name) or resolve(name.rpartition(".")[0])
            if target is None or target is Kind.FACADE or _may_import(kind, target):
                continue
            yield Finding(module.path, line, f"a {kind} module imports the {target} {name}")
        elif not any(_is_within(name, root) for root in allowed):
            yield Finding(module.path, line, f"a {kind} module imports {name}")


def _may_import(kind: Kind, target: Kind) -> bool:
    match kind:
        case Kind.PURE:
            return target is Kind.PURE
        case Kind.DRIVER:
            return target in (Kind.PURE, Kind.DRIVER, Kind.COMPOSITION)
        case _:
            return target is not Kind.COMMAND


def _is_within(name: str, root: str) -> bool:
    return name == root or name.startswith(root + ".")


def _check_names(module: Module, bans: dict[str, str], where: str) -> Iterator[Finding]:
    """Uses and imports of banned dotted names."""
    for name, line in imports_of(module):
        if name in bans:
            yield Finding(module.path, line, f"{name} in {where}; use {bans[name]}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in bans:
            yield Finding(module.path, node.lineno, f"{name} in {where}; use {bans[name]}")


def _check_randomness(module: Module) -> Iterator[Finding]:
    for name, line in imports_of(module):
        if name.startswith("random."):
            yield Finding(module.path, line, f"imports {name}; write random.Random, so that the seed is in sight")
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="random"), attr=attribute) if attribute != "Random":
                yield Finding(module.path, node.lineno, f"random.{attribute} uses the global generator; pass one in")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="random"), attr="Random"), args=[], keywords=[]):
                yield Finding(module.path, node.lineno, "random.Random() without a seed")


def _check_files(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FILE_BUILTINS:
                yield Finding(module.path, node.lineno, f"{name}() outside adapters and commands")
            case ast.Call(func=ast.Attribute(attr=name)) if name in FILE_METHODS:
                yield Finding(module.path, node.lineno, f".{name}() touches the file system; only adapters may")


def _check_any(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == "Any":
            yield Finding(module.path, node.lineno, "Any in a pure module")


def _check_size(module: Module) -> Iterator[Finding]:
    lines = len(module.source.splitlines())
    if lines > FILE_LINES_MAX:
        yield Finding(module.path, lines, f"{lines} lines; at most {FILE_LINES_MAX}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                message = f"{node.name} has {length} lines; at most {FUNCTION_LINES_MAX}"
                yield Finding(module.path, node.lineno, message)


def _check_leftovers(module: Module) -> Iterator[Finding]:
    for number, text in enumerate(module.source.splitlines(), 1):
        if match := _LEFTOVERS.search(text):
            yield Finding(module.path, number, f"{match[0]} is left over")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield Finding(module.path, node.lineno, "NotImplementedError: a stub")


def _check_swallowed(module: Module) -> Iterator[Finding]:
    for node in ast.walk(module.tree):
        match node:
            case ast.ExceptHandler(type=caught, body=body) if _is_broad(caught) and all(map(_does_nothing, body)):
                yield Finding(module.path, node.lineno, "swallows every exception")
            case ast.Call(func=function, args=arguments) if ast.unparse(function) in (
                "suppress",
                "contextlib.suppress",
            ):
                if any(_is_broad(argument) for argument in arguments):
                    yield Finding(module.path, node.lineno, "suppresses every exception")


def _is_broad(caught: ast.expr | None) -> bool:
    match caught:
        case None | ast.Name(id="Exception" | "BaseException"):
            return True
        case ast.Tuple(elts=elements):
            return any(map(_is_broad, elements))
    return False


def _does_nothing(statement: ast.stmt) -> bool:
    match statement:
        case ast.Pass() | ast.Continue() | ast.Expr(value=ast.Constant()) | ast.Return(value=None):
            return True
    return False
