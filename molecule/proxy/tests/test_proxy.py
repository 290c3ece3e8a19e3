"""Key and packages came through the proxy, and nothing else did; its password is where it belongs."""

from __future__ import annotations

import pytest
from conftest import AUTH_PROXY, AUTH_PROXY_PASSWORD, LAB, PROJECT, SERVING

INVENTORY = f"--inventory={PROJECT}/molecule/proxy/inventory"
CONF = "/etc/apt/apt.conf.d/90tensorflow-serving-proxy"
AUTH = "/etc/apt/auth.conf.d/90tensorflow-serving-proxy.conf"
REPOSITORY = "inside.lab/tensorflow-serving-apt"
ENCODED_PASSWORD = AUTH_PROXY.partition("fleet:")[2].partition("@")[0]


def test_both_models_are_served(server, digits):
    for model in ("MLP", "MLP_custom"):
        assert server.versions(model) == {1: "AVAILABLE"}
        assert server.accuracy(model, digits) >= 0.95


def test_key_lists_and_packages_went_through_the_proxy(proxy_log, auth_proxy_log, on):
    """With TLS to the repository, a proxy sees only where to."""
    for log, host in ((proxy_log, "debian12"), (auth_proxy_log, "debian13a")):
        asked = log.requests_since(0)
        address = on(host).check_output("hostname -I").split()[0]
        assert f"GET http://{REPOSITORY}/tensorflow-serving.release.pub.gpg" in asked
        assert f"GET http://{REPOSITORY}/dists/stable/InRelease" in asked
        assert any(one.startswith(f"GET http://{REPOSITORY}/pool/") and one.endswith(".deb") for one in asked)
        assert any(address in line for line in log.lines())
    assert "CONNECT inside.lab:443" in auth_proxy_log.requests_since(0)


def test_nothing_else_went_through_the_proxy(proxy_log, auth_proxy_log):
    asked = [*proxy_log.requests_since(0), *auth_proxy_log.requests_since(0)]
    assert [one for one in asked if "inside.lab" not in one] == []


def test_web_server_saw_the_proxies_only(web_log, on):
    own = {"127.0.0.1", "127.0.0.2", *on("infra").check_output("hostname -I").split()}
    seen = {line.split()[0] for line in web_log.lines() if "inside.lab" in line}
    assert seen
    assert seen <= own


def test_password_is_readable_by_root_only(host):
    name = host.check_output("hostname")
    assert ENCODED_PASSWORD not in host.file(CONF).content_string
    if name == "debian12":
        assert not host.file(AUTH).exists
        return
    auth = host.file(AUTH)
    assert (auth.user, auth.mode) == ("root", 0o600)
    assert f"login fleet password {AUTH_PROXY_PASSWORD}\n" in auth.content_string
    places = "/etc /home /opt /root /run /srv /tmp /usr/local /var"
    for word in (AUTH_PROXY_PASSWORD, ENCODED_PASSWORD):
        # A pattern that does not match itself, as sudo writes this command into the journal.
        found = host.run(f"grep --recursive --files-with-matches '{word[0]}[{word[1]}]{word[2:]}' {places} 2>/dev/null")
        assert set(found.stdout.split()) == ({AUTH} if word == AUTH_PROXY_PASSWORD else set())


def test_users_of_apt_are_not_disturbed(host):
    policy = host.run("runuser -u nobody -- apt-cache policy tensorflow-model-server")
    assert policy.rc == 0
    assert policy.stderr == ""


@pytest.fixture(scope="module")
def changed_password_file(play, on):
    """Play with the password file lost: all of it is shown that a play can show."""
    on("debian13a").check_output("rm %s %s /etc/apt/keyrings/tensorflow-serving.gpg", AUTH, CONF)
    return play(SERVING, INVENTORY, "-vvv", "--diff", "--limit=debian13a")


def test_password_is_not_in_the_output(changed_password_file, on):
    played = changed_password_file
    assert not played.failed, played.text
    assert on("debian13a").file(AUTH).exists
    for word in (AUTH_PROXY_PASSWORD, ENCODED_PASSWORD):
        assert word not in played.text


def test_host_in_no_proxy_is_reached_directly(play, on, main_repository, proxy_log):
    mark = proxy_log.mark()
    variables = {**main_repository.variables(), "tfserving_apt_key": f"{main_repository.url()}/"
                 "tensorflow-serving.release.pub.gpg", "tfserving_apt_no_proxy": [".lab"]}  # fmt: skip
    on("debian12").check_output("rm /etc/apt/keyrings/tensorflow-serving.gpg")
    played = play(SERVING, INVENTORY, "--limit=debian12", variables=variables)
    assert not played.failed, played.text
    assert 'Acquire::http::Proxy::packages.lab "DIRECT";' in on("debian12").file(CONF).content_string
    assert proxy_log.requests_since(mark) == []


def test_controller_uses_the_proxy_of_its_environment(play, on, proxy_log):
    """It does not know inside.lab either."""
    address = (LAB / "infra.address").read_text().strip()
    mark = proxy_log.mark()
    on("debian13a").check_output("rm /etc/apt/keyrings/tensorflow-serving.gpg")
    proxy = {"http_proxy": f"http://{address}:3128", "no_proxy": ""}
    played = play(
        SERVING, INVENTORY, "--limit=debian13a", env=proxy, variables={"tfserving_apt_key_fetch": "controller"}
    )
    assert not played.failed, played.text
    assert f"GET http://{REPOSITORY}/tensorflow-serving.release.pub.gpg" in proxy_log.requests_since(mark)


def test_emptied_variable_removes_the_setting(play, on, main_repository):
    variables = {**main_repository.variables(), "tfserving_apt_proxy": ""}
    played = play(SERVING, INVENTORY, "--limit=debian12,debian13a", variables=variables)
    assert not played.failed, played.text
    for name in ("debian12", "debian13a"):
        for path in (CONF, AUTH):
            assert not on(name).file(path).exists
    assert play(SERVING, INVENTORY, "--limit=debian12,debian13a", variables=variables).changed() == 0
