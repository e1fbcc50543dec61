"""The rules that keep the code readable: sizes, directions of imports, and what never appears in the library."""

import ast
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "dexworld"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(
    path
    for folder in ("client", "tests", "benchmarks", "examples", "tools", ".ci")
    for path in (ROOT / folder).rglob("*.py")
)
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 66

# What each part may import, besides itself. `base` is the modules directly in the package.
BASE = {"hands", "geometry", "actions", "forecast", "options", "pictures", "track", "errors", "writing"}
LAYERS = {
    "base": set(),
    "robots": {"base"},
    "data": {"base", "robots"},
    "models": {"base"},
    "planning": {"base", "robots"},
    "sim": {"base", "data", "robots"},
    "baselines": {"base", "models", "robots"},
    "training": {"base", "data", "models", "baselines"},
    "evaluation": {"base", "data", "models", "planning", "robots", "sim", "baselines"},
    "video": {"base", "data", "models", "sim", "training", "evaluation"},
    "studies": {"base", "data", "models", "baselines", "planning", "robots", "sim", "training", "evaluation", "video"},
    "report": {"base", "data", "models", "planning", "robots", "sim", "training", "evaluation", "video", "studies"},
    "serving": {"base", "data", "models", "planning", "robots", "sim", "baselines", "evaluation"},
    "studio": {"base", "data", "models", "planning", "robots", "sim", "evaluation", "video", "report"},
    "cli": {
        *("base", "data", "models", "planning", "robots", "sim", "baselines", "training", "evaluation"),
        *("video", "studies", "report", "serving", "studio"),
    },
}
# The one place that reads another project's torch files, and only as plain tensors.
RESTRICTED_LOAD = PACKAGE / "models" / "release_file.py"
# The one place that calibrates cameras, by an extra.
CALIBRATION = PACKAGE / "data" / "camera" / "calibration.py"
FORBIDDEN_PACKAGES = {"torchvision", "timm", "decord", "lerobot", "scipy", "cv2", "pickle", "lpips", "smplx"}
MACHINE_PATH = re.compile(r"""["'](/(?:home|root|work|mnt|data|checkpoint|scratch|Users|tmp)(?:/|["']))""")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def layer_of(module: str) -> str:
    """The layer of a dotted module name below the package, e.g. `sim.render` -> `sim`."""
    first = module.split(".")[0]
    return "base" if first in BASE or first == "" else first


def layer_of_file(path: Path) -> str:
    """The layer that a source file belongs to; the package's own __init__.py is `base`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "base" if parts == ("__init__",) else layer_of(parts[0])


def imported_modules(path: Path, tree: ast.Module) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import in a file, those inside functions included."""
    found = []
    package = ("dexworld", *path.relative_to(PACKAGE).parent.parts) if path.is_relative_to(PACKAGE) else ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *([node.module] if node.module else [])])
            # `from dexworld import sim` imports dexworld.sim; for deeper modules the origin says enough
            names = [alias.name for alias in node.names] if origin == "dexworld" else [None]
            found += [(node.lineno, f"{origin}.{name}" if name else origin) for name in names]
    return found


def hold(rule, paths) -> None:
    """Fail with every complaint that `rule(path, tree)` yields for the files, as file:line complaint."""
    found = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{name_of(path)}:{line} {complaint}" for line, complaint in rule(path, tree)]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_every_module_has_a_place_in_the_flow_of_data():
    assert len(SOURCES) > 10
    unplaced = {layer_of_file(path) for path in SOURCES} - set(LAYERS)
    assert not unplaced, f"{sorted(unplaced)}: a new top-level module or folder needs a row in LAYERS (or in BASE)"


def test_imports_follow_the_flow_of_data():
    def rule(path, tree):
        own = layer_of_file(path)
        for line, module in imported_modules(path, tree):
            if module.split(".")[0] == "dexworld":
                target = layer_of(module.removeprefix("dexworld").removeprefix("."))
                if target not in {own, *LAYERS[own]}:
                    yield line, f"imports {module}, but {own} may import only {sorted(LAYERS[own])}"

    hold(rule, SOURCES)


def test_the_robots_client_needs_nothing_of_dexworld():
    allowed = {*sys.stdlib_module_names, "numpy", "websockets", "msgpack", "dexworld_client"}

    def rule(path, tree):
        for line, module in imported_modules(path, tree):
            if module.split(".")[0] not in allowed:
                yield line, f"imports {module}"

    hold(rule, (ROOT / "client").rglob("*.py"))


def test_the_robots_client_has_fewer_than_400_lines_of_code():
    """Without docstrings, comments and blank lines."""
    between = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    count = 0
    for path in (ROOT / "client" / "src").rglob("*.py"):
        lines, begins = set(), True
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type in (tokenize.NL, tokenize.COMMENT):
                    continue
                if token.type not in between and not (begins and token.type == tokenize.STRING):
                    lines.update(range(token.start[0], token.end[0] + 1))
                begins = token.type in between
        count += len(lines)
    assert 300 < count < 400


def test_no_modules_import_each_other_in_a_circle():
    modules = {".".join(("dexworld", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in SOURCES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    imports = {}
    for name, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wanted = {each for _, each in imported_modules(path, tree)} | set(imported_names(path, tree))
        imports[name] = (wanted & set(modules)) - {name}
    reached = {name: reachable(imports, name) for name in imports}
    circles = {frozenset({name, *(each for each in reached[name] if name in reached[each])}) for name in imports}
    assert not [sorted(circle) for circle in circles if len(circle) > 1]


def imported_names(path, tree):
    """`package.name` of every `from package import name`, which may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reachable(imports, start):
    """Every module that `start` imports, directly or not."""
    seen, waiting = set(), [start]
    while waiting:
        for each in imports[waiting.pop()] - seen:
            seen.add(each)
            waiting.append(each)
    return seen


def test_a_file_name_stands_once_in_the_package():
    names = Counter(path.name for path in SOURCES if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_no_file_and_no_function_outgrows_a_reader():
    def rule(path, tree):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            yield lines, f"lines are more than {MAX_FILE_LINES}; split the file at a noun"
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    yield node.lineno, f"{node.name} has {length} lines; a screen holds {MAX_FUNCTION_LINES}"

    hold(rule, SOURCES + SCRIPTS)


def test_heavy_or_unsafe_packages_are_never_imported():
    def rule(path, tree):
        for line, module in imported_modules(path, tree):
            if module.split(".")[0] in FORBIDDEN_PACKAGES - ({"cv2"} if path == CALIBRATION else set()):
                yield line, f"imports {module}"

    hold(rule, SOURCES)


def test_nothing_is_unpickled_and_no_error_is_swallowed():
    def rule(path, tree):
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                yield node.lineno, "has a bare except"
            if isinstance(node, ast.Call):
                if ast.unparse(node.func) == "torch.load" and not (
                    path == RESTRICTED_LOAD and "weights_only=True" in map(ast.unparse, node.keywords)
                ):
                    yield node.lineno, "calls torch.load; weights are safetensors"
                for keyword in node.keywords:
                    if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                        yield node.lineno, "allows pickles"

    hold(rule, SOURCES)


def test_the_library_never_prints():
    def rule(path, tree):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                yield node.lineno, "prints; use logging, or hand the text to the command line"

    hold(rule, [path for path in SOURCES if layer_of_file(path) != "cli"])


def test_modules_and_public_things_have_a_docstring():
    def rule(path, tree):
        if tree.body and not ast.get_docstring(tree):  # an empty __init__.py only marks a package
            yield 1, "has no module docstring"
        for node in public(tree.body) if path in shipped else []:
            for each in [node, *(public(node.body) if isinstance(node, ast.ClassDef) else [])]:
                if not ast.get_docstring(each):
                    yield each.lineno, f"{each.name} has no docstring"

    shipped = {*SOURCES, *(ROOT / "client" / "src").rglob("*.py")}
    hold(rule, [path for path in SOURCES + SCRIPTS if not path.is_relative_to(ROOT / "tests")])


def public(nodes):
    """The classes, functions and methods among the nodes whose names don't begin with an underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in nodes if isinstance(node, kinds) and not node.name.startswith("_")]


def test_no_path_of_somebodys_machine_is_written_down():
    def rule(path, tree):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE_PATH.search(line):
                yield number, f"has a machine's path: {line.strip()}"

    hold(rule, [path for path in SOURCES + SCRIPTS if path != Path(__file__).resolve()])


def test_the_import_reader_sees_relative_and_nested_imports():
    path = PACKAGE / "sim" / "render.py"
    tree = ast.parse("def f():\n    from . import robot\n    from ..data import store\nfrom dexworld import models\n")
    modules = [module for _, module in imported_modules(path, tree)]
    assert sorted(modules) == ["dexworld.data", "dexworld.models", "dexworld.sim"]
    assert [layer_of(module.removeprefix("dexworld.")) for module in sorted(modules)] == ["data", "models", "sim"]
    assert layer_of("hands") == layer_of("") == "base"
