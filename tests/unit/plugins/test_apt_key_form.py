"""tfserving_apt_key is a URL, a file on the controller or the key itself, and is taken for what it is."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible.plugins.test.core import TestModule as CoreTests
from signing_key_files import signing_key

VARS = Path(__file__).resolve().parents[3] / "roles/tfserving_apt/vars/main.yml"
BASE64 = base64.b64encode(signing_key()).decode()


@pytest.mark.parametrize(
    ("key", "form"),
    [
        ("https://storage.googleapis.com/tensorflow-serving-apt/tensorflow-serving.release.pub.gpg", "url"),
        ("http://mirror/key.gpg", "url"),
        ("files/key.gpg", "file"),
        ("~/key", "file"),
        ("/srv/" + "/".join(["a-long-path"] * 30), "file"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQEN\n", "text"),
        (BASE64, "text"),
        ("\n".join(BASE64[at : at + 64] for at in range(0, len(BASE64), 64)) + "\n", "text"),
    ],
)
def test_key_is_taken_for_what_it_is(key: str, form: str) -> None:
    environment = jinja2.Environment()  # noqa: S701 - no HTML
    environment.tests.update(CoreTests().tests())
    template = environment.from_string(yaml.safe_load(VARS.read_text())["__tfserving_apt_key_form"])
    assert template.render(tfserving_apt_key=key) == form
