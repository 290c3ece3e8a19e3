"""Where the role tfserving_package finds the password in a package's URL."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE_VARS = Path(__file__).resolve().parents[3] / "roles/tfserving_package/vars/main.yml"


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
