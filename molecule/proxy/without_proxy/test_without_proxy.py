"""The repository cannot be reached, and the play says which variable is missing."""

from __future__ import annotations

from conftest import PROJECT, SERVING

INVENTORY = f"--inventory={PROJECT}/molecule/proxy/inventory"
SOURCE = "/etc/apt/sources.list.d/tensorflow-serving.sources"
KEYRING = "/etc/apt/keyrings/tensorflow-serving.gpg"


def test_key_that_cannot_be_fetched_fails_naming_the_variable(play):
    played = play(SERVING, INVENTORY, variables={"tfserving_apt_proxy": ""})
    assert played.failed
    assert {host: counts["failed"] for host, counts in played.recap.items()} == {
        "debian12": 1,
        "debian13a": 1,
        "debian13b": 1,
    }
    assert played.changed() == 0
    for scheme in ("http", "https"):
        assert (
            f"cannot get {scheme}://inside.lab/tensorflow-serving-apt/tensorflow-serving.release.pub.gpg"
            in played.words
        )
    assert "If this host needs a proxy for that, set tfserving_apt_proxy" in played.words


def test_lists_that_cannot_be_fetched_fail_naming_the_variable_and_leave_no_source(play, on, main_repository):
    """The key came another way."""
    key = {"tfserving_apt_key": str(main_repository.root / "tensorflow-serving.release.pub.gpg")}
    played = play(SERVING, INVENTORY, "--limit=debian12,debian13a", variables={"tfserving_apt_proxy": "", **key})
    assert played.failed
    assert "apt cannot use tensorflow-serving.sources, so nothing was changed" in played.words
    assert "If this host reaches it through a proxy only, set tfserving_apt_proxy (none is set)" in played.words
    assert "Could not resolve 'inside.lab'" in played.words
    for name in ("debian12", "debian13a"):
        assert played.recap[name]["failed"] == 1
        assert not on(name).file(SOURCE).exists
        assert not on(name).package("tensorflow-model-server").is_installed
        on(name).check_output("rm %s", KEYRING)


def test_wrong_password_fails_without_showing_it(play, on):
    wrong = "http://fleet:gu%2Fess%3Aed@proxy.lab:3129"
    played = play(SERVING, INVENTORY, "-vvv", "--diff", "--limit=debian13a", variables={"tfserving_apt_proxy": wrong})
    assert played.failed
    assert "tfserving_apt_proxy" in played.words
    # The command line of this very play, which -vvv does not print, is the only place that has it.
    assert "ess%3Aed" not in played.text
    assert "gu/ess:ed" not in played.text
    assert not on("debian13a").file(SOURCE).exists
