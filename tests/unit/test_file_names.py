"""The file name in an upload's Content-Disposition: RFC 6266 and 8187, and what is not safe."""

import pytest

from relay.file_names import file_name, split_file_name, with_file_name

EURO = "€ rates.txt"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", ""),
        ("attachment", ""),
        ("attachment; filename=a.txt", "a.txt"),
        ('attachment; filename="a b.txt"', "a b.txt"),
        ('Attachment ; FileName = "a.txt" ; size=3', "a.txt"),
        ('inline; filename="a;b=\\"c\\".txt"', 'a;b="c".txt'),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.txt", EURO),
        ("attachment; filename*=utf-8'en'%e2%82%ac%20rates.txt", EURO),
        ("attachment; filename*=iso-8859-1''%a3%20rates", "£ rates"),
        # RFC 6266 section 4.3: filename* wins, in either order, if it can be read.
        ("attachment; filename=EURO.txt; filename*=UTF-8''%e2%82%ac%20rates.txt", EURO),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.txt; filename=EURO.txt", EURO),
        ("attachment; filename*=UTF-8''%ff; filename=a.txt", "a.txt"),
        ("attachment; filename*=UTF-16''a; filename=a.txt", "a.txt"),
        # Clients send UTF-8 as it is; what is not UTF-8 is ISO-8859-1.
        (f'attachment; filename="{EURO}"'.encode().decode("latin-1"), EURO),
        ('attachment; filename="\xe9.txt"', "é.txt"),
        ('attachment; filename="100%25.txt"', "100%25.txt"),  # not percent-encoded
        ("attachment; filename*=UTF-8''e%CC%81", "é"),  # NFC
        # RFC 6266 section 4.3: folders are dropped.
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\dir\\\\a.txt"', "a.txt"),
        ("attachment; filename*=UTF-8''..%2F..%5Ca.txt", "a.txt"),
        # What is not safe is ignored.
        ('attachment; filename=".."', ""),
        ('attachment; filename="a/."', ""),
        ('attachment; filename="a/"', ""),
        ('attachment; filename=""', ""),
        ('attachment; filename="a\tb"', ""),
        ("attachment; filename*=UTF-8''a%0d%0aSet-Cookie:x", ""),
        ("attachment; filename*=UTF-8''a%00.txt", ""),
        ("attachment; filename*=UTF-8''a%E2%80%AEfdp.exe", ""),
        ("attachment; filename*=UTF-8''a%E2%81%A6fdp.exe", ""),
        ("attachment; filename=" + "x" * 256, ""),
        ("attachment; filename=" + "x" * 255, "x" * 255),
        # What is malformed is ignored whole.
        ('attachment; filename="a', ""),
        ('attachment; filename="a"b', ""),
        ("attachment; filename=a b", ""),
        ("attachment filename=a", ""),
        ("attachment; filename=a;", ""),
        ("; filename=a", ""),
        ("attachment; x=" + "y" * 4000 + "; filename=a", ""),
        ("attachment" + ";" * 100_000, ""),
    ],
)
def test_the_name_in_a_content_disposition(header: str, name: str) -> None:
    assert file_name(header) == name


@pytest.mark.parametrize("media_type", ["", "text/plain", "text/plain; charset=utf-8", "a; filename*=UTF-8''b; c"])
@pytest.mark.parametrize("name", ["", "a.txt", EURO, "x" * 255, "a'b;c=%.txt"])
def test_a_media_type_carries_a_name(media_type: str, name: str) -> None:
    assert split_file_name(with_file_name(media_type, name)) == (media_type, name)


@pytest.mark.parametrize("name", ["%2e%2e", "%ff", "%0a", "a%2Fb", "%E2%80%AE", "x" * 256])
def test_an_uploader_cannot_smuggle_a_bad_name_in_its_content_type(name: str) -> None:
    bad = f"text/plain; filename*=UTF-8''{name}"
    assert split_file_name(bad) == (bad, "")
