"""Bad input ends in a clear error before anything is changed, and what is served goes on being served.

One case of each place that checks; what else is wrong in a catalogue or a SavedModel is told by unit tests.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import PROJECT, SERVING

SAVED = PROJECT / "examples" / "mnist" / "saved"


def model(source: Path, **more) -> dict:
    return {"name": "MLP", "source": str(source), **more}


def catalog(*models: dict) -> dict:
    return {"tfserving_models_catalog": list(models)}


def missing_source(tmp: Path) -> dict:
    return catalog(model(tmp / "nowhere"))


def published_version_that_changed(tmp: Path) -> dict:
    shutil.copytree(SAVED / "1", tmp / "1")
    (tmp / "1" / "assets" / "more.txt").write_text("more\n")
    return catalog(model(tmp))


def misspelt_policy(tmp: Path) -> dict:
    return catalog(model(SAVED, model_version_policy={"latest": {"num_version": 2}}))


def unknown_variant(tmp: Path) -> dict:
    return {"tfserving_package_variant": "fastest"}


def version_that_is_none(tmp: Path) -> dict:
    return {"tfserving_package_version": "newest"}


def given_package_without_its_digest(tmp: Path) -> dict:
    return {"tfserving_package_deb": "https://example.com/tensorflow-model-server.deb"}


def given_package_that_is_missing(tmp: Path) -> dict:
    return {"tfserving_package_deb": str(tmp / "no.deb"), "tfserving_package_deb_sha256": "0" * 64}


def directory_of_others(tmp: Path) -> dict:
    return {"tfserving_package_data_path": "/srv"}


def models_where_the_login_account_can_write(tmp: Path) -> dict:
    return {"tfserving_models_base_path": "/home/deploy/models"}


def models_that_the_unit_cannot_see(tmp: Path) -> dict:
    return {"tfserving_models_base_path": "/root/models"}


def equal_ports(tmp: Path) -> dict:
    return {"tfserving_service_port": 8501}


def host_that_is_not_amd64(tmp: Path) -> dict:
    return {"ansible_facts": {"architecture": "aarch64", "os_family": "Debian", "distribution": "Debian"}}


def host_that_is_not_debian(tmp: Path) -> dict:
    return {"ansible_facts": {"architecture": "x86_64", "os_family": "RedHat", "distribution": "Rocky"}}


def other_key(tmp: Path) -> dict:
    return {"tfserving_apt_key_fingerprint": "0123456789ABCDEF0123456789ABCDEF01234567"}


def short_key_id(tmp: Path) -> dict:
    return {"tfserving_apt_key_fingerprint": "544B7F63BF9E4D5F"}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (missing_source, ["tfserving_models_catalog", "model MLP", "nowhere is not a directory"]),
        (published_version_that_changed, ["model MLP: version 1 is published with sha256", "as version 2"]),
        (misspelt_policy, ["tfserving_models_catalog", "num_version"]),
        (unknown_variant, ["tfserving_package_variant", "universal"]),
        (version_that_is_none, ["tfserving_package_version is newest", '"2.19.*"']),
        (given_package_without_its_digest, ["tfserving_package_deb_sha256 is empty", "64 hex digits"]),
        (given_package_that_is_missing, ["tfserving_package_deb", "no.deb, which is no file on the controller"]),
        (directory_of_others, ["/srv is too broad", "tfserving_package_data_path"]),
        (
            models_where_the_login_account_can_write,
            ["/home/deploy decides what root does", "tfserving_models_base_path"],
        ),
        (
            models_that_the_unit_cannot_see,
            ["/root/models lies where the unit sees nothing", "tfserving_models_base_path"],
        ),
        (equal_ports, ["tfserving_service_port", "tfserving_service_rest_api_port", "two different ports"]),
        (host_that_is_not_amd64, ["debian12 is Debian on aarch64", "amd64"]),
        (host_that_is_not_debian, ["debian12 is Rocky on x86_64", "Debian and Ubuntu"]),
        (other_key, ["pinned is 0123456789ABCDEF0123456789ABCDEF01234567", "Nothing was changed"]),
        (short_key_id, ["tfserving_apt_key_fingerprint", "40 hex digits"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_input_changes_nothing(play, tmp_path, bad, words):
    played = play(SERVING, "--limit=debian12", variables=bad(tmp_path))
    assert played.failed
    for word in words:
        assert word in played.words
    assert played.recap["debian12"]["changed"] == 0
    assert played.recap["debian12"]["failed"] == 1


def test_what_was_served_is_still_served(server, digits):
    assert server.versions("MLP") == {1: "AVAILABLE"}
    assert server.accuracy("MLP", digits) >= 0.95
