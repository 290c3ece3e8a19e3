"""A key and certificates are loaded as a server does before they reach it, and the key is shown nowhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.tls_files import tls_problems

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the keys")


def make(folder: Path, name: str, *more: str) -> dict[str, str]:
    """Return a new key and its certificate."""
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(  # noqa: S603
        [
            "openssl",
            "req",
            "-x509",
            *curve,
            *(more or ["-noenc"]),
            "-subj",
            f"/CN={name}",
            "-keyout",
            key,
            "-out",
            cert,
        ],  # noqa: S607
        check=True,
        capture_output=True,
    )
    return {"server_key": key.read_text(), "server_cert": cert.read_text()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make(tmp_path_factory.mktemp("tls"), "one")


def test_key_and_certificate_that_belong_together_are_taken(pair: dict[str, str]) -> None:
    assert tls_problems(**pair, custom_ca="", client_verify=False) == []
    assert tls_problems(**pair, custom_ca=pair["server_cert"], client_verify=True) == []


def refusal(**changed: Any) -> str:
    """Return the one problem of a key and certificates."""
    given = {"custom_ca": "", "client_verify": False, **changed}
    (problem,) = tls_problems(**given)
    assert not [line for line in given["server_key"].splitlines()[1:-1] if line in problem]
    return problem


def test_key_of_another_certificate_is_refused(pair: dict[str, str], tmp_path: Path) -> None:
    said = refusal(server_key=make(tmp_path, "other")["server_key"], server_cert=pair["server_cert"])
    assert said == "tfserving_service_ssl: server_key is not the key of server_cert."


def test_key_with_a_password_is_refused(tmp_path: Path) -> None:
    assert "server_key has a password" in refusal(**make(tmp_path, "locked", "-passout", "pass:secret"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"server_key": ""}, "server_key is empty"),
        ({"server_cert": ""}, "server_cert is empty"),
        ({"server_cert": "nonsense"}, "is not PEM that TLS can use"),
        ({"custom_ca": "nonsense"}, "custom_ca is no certificate in PEM"),
        ({"client_verify": True}, "client_verify is true without custom_ca"),
    ],
)
def test_what_tls_cannot_use_is_refused(pair: dict[str, str], change: dict[str, Any], words: str) -> None:
    assert words in refusal(**{**pair, **change})
