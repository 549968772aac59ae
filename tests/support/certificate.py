"""A self-signed certificate for 127.0.0.1."""

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate and its key, and return the paths of the two files. Skip the test if openssl is missing."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl on PATH: TLS was not tested")
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
