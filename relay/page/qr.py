"""The QR code of a link, which the page draws. Pure."""

import segno

#: Maximum characters: a code of a longer text has so many modules that a phone can hardly read it from a screen.
TEXT_MOST = 500


def rows(text: str) -> list[str]:
    """Return the QR code of a text as a text for each row of modules: 1 is dark, 0 is light.

    This takes milliseconds, and up to 60 ms for a long text: run it in a thread.
    """
    code = segno.make_qr(text, error="l")
    return ["".join("1" if module else "0" for module in row) for row in code.matrix]
