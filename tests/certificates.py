"""Certificates that are nobody's but their own, for targets and servers of tests."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    """Files, as PEM."""

    file: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server that has it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.file, self.key)
        return context


def self_signed(folder: Path, names: str = "DNS:localhost") -> Certificate:
    """A new one for names, as OpenSSL writes them: ``DNS:example.test,IP:127.0.0.1``."""
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-addext", f"subjectAltName={names}", "-keyout", str(made.key), "-out", str(made.file)),
        ],
        check=True,
        capture_output=True,
    )
    return made
