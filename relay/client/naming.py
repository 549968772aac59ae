"""Names from strangers: made safe to write to a disk, and safe to show on a terminal. Pure."""

import re
import unicodedata

from relay.errors import Problem
from relay.file_names import file_name
from relay.names import NAME_MAX, check_name

#: Names that Windows gives to devices, with any extension.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
#: Maximum characters of a line from the relay that are shown.
_LINE_MAX = 300


def safe_name(*candidates: str) -> str:
    """Return the first name that can be made safe as a file's name in any directory; `download` if none can.

    It has no separators and no controls, does not begin with a dot (a hidden file), a dash (a command's flag) or a
    space, is no device of Windows, and has at most 255 bytes.
    """
    for candidate in candidates:
        base = re.split(r"[/\\]", candidate)[-1].strip()
        name = re.sub(r"^[.\-\s]+", "_", base)
        name = f"_{name}" if _RESERVED.fullmatch(name) else name
        try:
            return check_name(shortened(name, NAME_MAX))
        except (Problem, UnicodeEncodeError):
            continue
    return "download"


def name_in(disposition: str) -> str:
    """Return the file name in a `Content-Disposition`, decoded as latin-1; empty if it has none that is allowed."""
    return file_name(disposition)


def shortened(name: str, most: int) -> str:
    """Return the name with its stem cut, so that it has at most `most` bytes."""
    data = name.encode(errors="surrogateescape")
    if len(data) <= most:
        return name
    stem, dot, extension = name.rpartition(".")
    ending = (dot + extension) if stem and len(extension.encode()) <= 16 else ""  # noqa: PLR2004
    kept = (stem if ending else name).encode(errors="surrogateescape")[: most - len(ending.encode())]
    return kept.decode(errors="ignore") + ending


def shown(text: str, most: int = _LINE_MAX) -> str:
    """Return a text that does nothing to a terminal: one line, without controls, escapes and changes of direction."""
    return "".join(c if _is_plain(c) else "\N{REPLACEMENT CHARACTER}" for c in text[:most])


def _is_plain(character: str) -> bool:
    return character == " " or unicodedata.category(character)[0] not in "CZ"
