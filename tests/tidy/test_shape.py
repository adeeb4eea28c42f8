"""The repository keeps its shape: sizes, docstrings, kernel references, the `operator` trap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = [
    path
    for folder in ("services", "operator")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "/pb/" not in str(path)
]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
KERNELS = ROOT / "services/thanostack/lib/kernels"
REFERENCES = ROOT / "services/thanostack/testing/reference"

# A ratchet: what was too big when the bound was set may only shrink, and goes when it fits.
BASELINE: dict[str, int] = {}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body
    has_doc = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    first = body[1] if has_doc and len(body) > 1 else body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def width(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    named = [a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
    return len([name for name in named if name not in {"self", "cls"}])


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = [d.func for d in function.decorator_list if isinstance(d, ast.Call)]
    return any(isinstance(call, ast.Name) and call.id == "kernel" for call in calls)


def names_bound_in(path: Path) -> set[str]:
    """Return the functions of a module, and other names that it gives them."""
    tree = parsed(path)
    aliases = [t for n in tree.body if isinstance(n, ast.Assign) for t in n.targets]
    return {f.name for f in functions(tree)} | {t.id for t in aliases if isinstance(t, ast.Name)}


def check(too_big: dict[str, int]) -> None:
    """Compare with the baseline: nothing new, nothing grown, nothing stale."""
    grown = {k: v for k, v in too_big.items() if v > BASELINE.get(k, 0)}
    assert not grown, f"too big: {grown}"


def test_modules_open_with_a_docstring():
    written = [p for p in CODE if p.read_text().strip()]
    missing = [name_of(p) for p in written if not ast.get_docstring(parsed(p))]
    assert missing == []


def test_modules_are_short():
    sizes = {name_of(p): p.read_text().count("\n") for p in CODE}
    check({name: size for name, size in sizes.items() if size > 600})


def test_functions_are_short_and_narrow():
    too_big = {}
    for path in CODE:
        in_kernels = path.parent == KERNELS
        for function in functions(parsed(path)):
            where = f"{name_of(path)}:{function.name}"
            if body_lines(function) > (90 if in_kernels else 70):
                too_big[where] = body_lines(function)
            if width(function) > 12 or (is_kernel(function) and width(function) > 9):
                too_big[where + " parameters"] = width(function)
    check(too_big)


def test_classes_are_short():
    too_big = {}
    for path in CODE:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno > 400:
                too_big[f"{name_of(path)}:{node.name}"] = (node.end_lineno or 0) - node.lineno
    check(too_big)


def test_test_modules_and_functions_are_short():
    too_big = {name_of(p): p.read_text().count("\n") for p in TESTS}
    too_big = {name: size for name, size in too_big.items() if size > 800}
    for path in TESTS:
        for function in functions(parsed(path)):
            if body_lines(function) > 60:
                too_big[f"{name_of(path)}:{function.name}"] = body_lines(function)
    check(too_big)


def test_every_kernel_has_a_reference():
    """A kernel without a plain-Python twin cannot be proved equal to anything."""
    missing = []
    for path in sorted(KERNELS.glob("*.py")):
        kernels = {f.name for f in functions(parsed(path)) if is_kernel(f)}
        twin = REFERENCES / path.name
        known = names_bound_in(twin) if twin.exists() else set()
        missing += [f"{path.stem}.{name}" for name in sorted(kernels - known)]
    assert missing == []


def test_every_kernel_is_called_in_a_property_test():
    text = "\n".join(p.read_text() for p in (ROOT / "tests").rglob("*.py"))
    found = [f for p in sorted(KERNELS.glob("*.py")) for f in functions(parsed(p))]
    assert [f.name for f in found if is_kernel(f) and f.name not in text] == []


def test_operator_is_a_namespace_folder():
    """`operator/__init__.py` would shadow the standard library and stop the interpreter."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_module_at_an_import_root_shadows_the_standard_library():
    roots = [ROOT, ROOT / "services", ROOT / "operator"]
    names = {p.stem for root in roots if root.exists() for p in root.iterdir() if p.suffix == ".py"}
    assert not names & sys.stdlib_module_names


def test_pytest_imports_by_path():
    assert "--import-mode=importlib" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", [p for p in CODE if "/kernels/" not in str(p)], ids=name_of)
def test_no_leftovers(path):
    """No task notes without an issue number, no debugging."""
    text = path.read_text()
    assert "TODO" not in text
    assert "breakpoint()" not in text
    assert "XXX" not in text


def test_only_known_file_types_are_committed():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    strange = [f for f in listed if f.endswith((".pyc", ".so", ".nbi", ".nbc", ".orig", ".rej"))]
    assert strange == []
