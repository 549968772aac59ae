"""The pages of documentation, for the tests that run and compare what they say.

`python -m tests.support.pages` writes their generated parts again.
"""

import re
from collections.abc import Callable
from pathlib import Path

from relay.settings import SECTIONS, Settings
from relay.states import diagram
from relay.store import keys
from tests.bench import sizing
from tests.support import chart

ROOT = Path(__file__).parents[2]
FRONT = ROOT / "README.md"
API = ROOT / "relay" / "api" / "README.md"
CODE = ROOT / "relay" / "README.md"
OPERATORS = ROOT / "deploy" / "README.md"
SCALING = ROOT / "deploy" / "scaling.md"


def shell_blocks(page: Path, heading: str) -> list[str]:
    """Return the blocks of shell lines below a heading of the second level.  Raises KeyError if there are none."""
    found = all_shell_blocks(page)[heading]
    assert found
    return found


def all_shell_blocks(page: Path) -> dict[str, list[str]]:
    """Return every block of shell lines, by the heading of the second level above it."""
    sections = re.split(r"^## (.+)\n", page.read_text(), flags=re.MULTILINE)
    blocks = {
        heading: re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        for heading, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    return {heading: found for heading, found in blocks.items() if found}


def settings_table() -> str:
    """Return all settings as a Markdown table."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for title, names in SECTIONS.items():
        lines.append(f"| **{title}** | | |")
        lines += [_settings_row(name) for name in names]
    return "\n".join(lines)


def _settings_row(name: str) -> str:
    field = Settings.model_fields[name]
    default = "" if field.default_factory else field.default
    shown = f"{default:g}" if isinstance(default, float) else str(default)
    meaning = (field.description or "").replace("|", "\\|")
    return f"| `RELAY_{name.upper()}` | {shown} | {meaning} |"


#: What stands between `<!-- NAME -->` and `<!-- /NAME -->`, by page and name.
GENERATED: dict[tuple[Path, str], Callable[[], str]] = {
    (CODE, "states"): lambda: f"```mermaid\n{diagram()}\n```",
    (CODE, "keys"): keys.table,
    (OPERATORS, "settings"): settings_table,
    (SCALING, "scale"): sizing.page,
}


def with_part(page: str, name: str, content: str) -> str:
    """Return the page with new content in one of its marked parts.  Raises ValueError if it has no such part."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if not re.search(f"{begin}.*?{end}", page, re.DOTALL):
        raise ValueError(f"no lines {begin.strip()} and {end} in it")
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}{content}\n{end}", page, flags=re.DOTALL)


def write() -> None:
    """Write the generated parts of all pages, and of the Helm chart's schema."""
    for (page, name), content in GENERATED.items():
        page.write_text(with_part(page.read_text(), name, content()))
    chart.SCHEMA.write_text(chart.with_settings(chart.SCHEMA.read_text()))


if __name__ == "__main__":
    write()
