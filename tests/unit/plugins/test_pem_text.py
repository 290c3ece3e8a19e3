"""PEM text is taken as it is given, or from a file on the controller, and the error names the variable."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
LOOK_UP = "{{ lookup('modelops.tensorflow_serving.pem_text', item, variable='the_key') }}"
TOLD = "told={{ it.results | map(attribute='msg') | to_json | b64encode }}."


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What Ansible makes of each given text, in a playbook beside these files: the text, or the error."""
    folder = tmp_path_factory.mktemp("playbook")
    for name, content in {"x.pem": f"{PEM}\n\n", "files/tls/y.pem": PEM, "x.der": "0secret"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    given = ["", PEM, f"Bag Attributes\n{PEM}\n", "x.pem", "tls/y.pem", "none.pem", "x.der", "MIIEsecret\nMIIEsecret"]
    tasks = [
        {"debug": {"msg": LOOK_UP}, "loop": given, "ignore_errors": True, "register": "it"},
        {"debug": {"msg": TOLD}},
    ]
    (folder / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory=localhost,", folder / "play.yml"],
        capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
    )  # fmt: skip
    told = re.search(r"told=(\S+)\.", done.stdout)
    assert told, done.stdout + done.stderr
    return dict(zip(given, json.loads(base64.b64decode(told[1]))))


@pytest.mark.parametrize("given", ["", PEM, f"Bag Attributes\n{PEM}\n"])
def test_pem_text_and_nothing_stay_as_they_are(texts: dict[str, str], given: str) -> None:
    assert texts[given] == given


@pytest.mark.parametrize("given", ["x.pem", "tls/y.pem"])
def test_file_is_found_as_by_copy(texts: dict[str, str], given: str) -> None:
    assert texts[given] == PEM


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("none.pem", "the_key is none.pem, and no such file can be read on the controller. Give PEM text, or"),
        ("x.der", "the_key is x.der, which is no PEM file"),
        ("MIIEsecret\nMIIEsecret", "the_key is neither PEM text, which has a line"),
    ],
)
def test_what_is_no_pem_is_told_with_its_variable_and_no_text_is_shown(
    texts: dict[str, str], given: str, told: str
) -> None:
    assert told in texts[given]
    assert "secret" not in texts[given]
