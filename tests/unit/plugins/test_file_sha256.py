"""The digest of a file on the controller, and where the role finds the password in a package's URL."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.modelops.tensorflow_serving.plugins.lookup.file_sha256 import LookupModule

ROLE_VARS = Path(__file__).resolve().parents[3] / "roles/tfserving_package/vars/main.yml"


def look_up(path: Path | str, tmp: Path, monkeypatch: pytest.MonkeyPatch, **variables: Any) -> str:
    """Ask in a run of Ansible's that has tmp for its own files."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp))
    lookup = LookupModule(loader=DataLoader())
    return lookup.run([str(path)], variables)[0]


def test_file_is_read_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deb, first, second = tmp_path / "x.deb", tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    deb.write_bytes(b"one")
    one, two = (hashlib.sha256(data).hexdigest() for data in (b"one", b"two"))
    assert look_up(deb, first, monkeypatch) == one
    deb.write_bytes(b"two")
    assert look_up(deb, first, monkeypatch) == one
    assert look_up(deb, second, monkeypatch) == two
    (tmp_path / "y.deb").write_bytes(b"two")
    assert look_up(tmp_path / "y.deb", first, monkeypatch) == two


def test_file_is_found_as_by_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/x.deb").write_bytes(b"one")
    found = look_up("x.deb", tmp_path, monkeypatch, ansible_search_path=[str(tmp_path)])
    assert found == hashlib.sha256(b"one").hexdigest()


def test_missing_file_has_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_up(tmp_path / "none.deb", tmp_path, monkeypatch) == ""


@pytest.mark.parametrize(
    ("deb", "url", "credentials"),
    [
        ("https://host/x.deb", "https://host/x.deb", ""),
        ("https://u:p@host:8443/x.deb", "https://host:8443/x.deb", "u:p"),
        ("https://u:p@q@host/x.deb", "https://host/x.deb", "u:p@q"),
        ("https://host/a@b/x.deb", "https://host/a@b/x.deb", ""),
        ("https://u:p@host/a@b/x.deb?c=@", "https://host/a@b/x.deb?c=@", "u:p"),
    ],
)
def test_url_of_a_package_is_shown_without_user_and_password(deb: str, url: str, credentials: str) -> None:
    role = yaml.safe_load(ROLE_VARS.read_text())
    templar = Templar(DataLoader(), variables={"tfserving_package_deb": deb})
    assert rendered(templar, role["__tfserving_package_deb_url"]) == url
    assert rendered(templar, role["__tfserving_package_deb_credentials"]) == credentials


def rendered(templar: Templar, text: str) -> str:
    try:
        from ansible.template import trust_as_template  # since ansible-core 2.19
    except ImportError:
        return str(templar.template(text))
    return str(templar.template(trust_as_template(text)))
