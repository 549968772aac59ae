"""Each module imports only from those before it, in the order that the README gives."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def order() -> list[str]:
    text = (ROOT / "README.md").read_text()
    words = re.search(r"imports only from those before it:\n((?:`\w+`\s*)+)", text)
    assert words
    return re.findall(r"`(\w+)`", words[1])


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("relay"):
            _, _, module = (node.module or "").partition(".")
            found |= {module} if module else {alias.name for alias in node.names if alias.name != "__version__"}
    return found


def test_modules_import_only_what_stands_before_them() -> None:
    modules = order()
    assert set(modules) == {path.stem for path in (ROOT / "relay").glob("*.py")} - {"__init__", "__main__"}
    for position, module in enumerate(modules):
        assert imported(ROOT / "relay" / f"{module}.py") <= set(modules[:position]), module
