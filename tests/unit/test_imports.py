"""Folders import only from the folders below them, and no modules import each other in a circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "relay"
#: The folders from which each folder may import. Every folder may also import from itself and from the root modules.
LAYERS: dict[str, set[str]] = {
    "store": set(),
    "server": set(),
    "cluster": {"store"},
    "transfer": {"cluster", "store", "server"},
    "operations": {"cluster", "store"},
    "page": set(),
    "api": {"page", "operations", "transfer", "store", "server"},
    "client": set(),
    "cli": {"client", "page", "operations", "transfer", "cluster", "store", "server", "api"},
}
#: The root modules that are not shared vocabulary but assemble the folders.
ASSEMBLY = {"relay.app", "relay.__main__"}


def modules() -> dict[str, Path]:
    """Map the dotted name of each module to its file. A package is the module of its `__init__.py`."""
    files = sorted(PACKAGE.rglob("*.py"))
    paths = {file.parent if file.name == "__init__.py" else file.with_suffix(""): file for file in files}
    return {".".join(("relay", *path.relative_to(PACKAGE).parts)): file for path, file in paths.items()}


def imported(file: Path) -> Iterator[str]:
    """Yield the dotted names of relay's modules that a file imports."""
    names = modules()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "relay":
            parent = str(node.module)
            for alias in node.names:
                yield f"{parent}.{alias.name}" if f"{parent}.{alias.name}" in names else parent


def folder(module: str) -> str:
    """Return the folder that a module is in, or an empty string for a root module."""
    parts = module.split(".")
    return parts[1] if parts[1:] and parts[1] in LAYERS else ""


def test_every_folder_has_a_layer() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(LAYERS)


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_imports_only_from_the_folders_below_it(module: str) -> None:
    if module in ASSEMBLY:
        return
    allowed = LAYERS[folder(module)] | {folder(module)} if folder(module) else set()
    for other in imported(modules()[module]):
        may_assemble = folder(module) == "cli" and other in ASSEMBLY
        assert (folder(other) in {*allowed, ""} and other not in ASSEMBLY) or may_assemble, other


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({name: set(imported(file)) - {name} for name, file in modules().items()}).prepare()


@pytest.mark.parametrize("name", sorted(set(LAYERS)))
def test_a_folder_says_what_it_is_for_what_it_may_import_and_where_to_begin(name: str) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / name / "__init__.py").read_text())) or ""
    assert "Begin with `" in said
    says = said.partition("May import: ")[2]
    missing = [layer for layer in LAYERS[name] if f"`{layer}`" not in says]
    assert not missing or "everything" in says
