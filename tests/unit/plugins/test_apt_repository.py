"""A repository is believed exactly as far as apt believes it, by the real apt and gpg."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from stub_http import StubServer, unused_port

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.repository import (
    Package,
    RepositoryError,
    Run,
    Upstream,
    download,
    parse_packages,
    write_settings,
)

pytestmark = pytest.mark.usefixtures("no_environment_proxy")

NAME = "tensorflow-model-server"
UNIVERSAL = f"{NAME}-universal"
CONTENT = b"a package"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def stanza(name: str = NAME, version: str = "2.19.1", architecture: str = "amd64", **changed: str | None) -> str:
    fields = {
        "Package": name,
        "Version": version,
        "Architecture": architecture,
        "Maintainer": "M",
        "Filename": f"pool/{name}_{version}.deb",
        "Size": str(len(CONTENT)),
        "SHA256": SHA256,
        "Description": "server\n more: of it\n .",
        **changed,
    }
    return "".join(f"{field}: {value}\n" for field, value in fields.items() if value is not None) + "\n"


# Reading an index


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_index_has_no_packages(text: str) -> None:
    assert parse_packages(text) == []


def test_packages_are_read() -> None:
    assert parse_packages(stanza() + stanza(version="1:2.18.0-1", architecture="all")) == [
        Package(NAME, "2.19.1", "amd64", SHA256, len(CONTENT)),
        Package(NAME, "1:2.18.0-1", "all", SHA256, len(CONTENT)),
    ]


def test_epoch_is_no_part_of_the_name_of_a_file() -> None:
    (package,) = parse_packages(stanza(version="1:2.19.1-1"))
    assert package.filename == f"pool/{NAME}/t/{NAME}/{NAME}_2.19.1-1_amd64.deb"


@pytest.mark.parametrize("changed", [{"SHA256": None}, {"Size": "many"}, {"Version": None}])
def test_unusable_package_is_named(changed: dict[str, Any]) -> None:
    with pytest.raises(RepositoryError, match=f"package {NAME} in an index"):
        parse_packages(stanza(**changed))


# Upstream


class Owner:
    """A key and its owner, in a GnuPG home of their own."""

    def __init__(self, home: Path, *options: str) -> None:
        home.mkdir(mode=0o700)
        self.home = home
        self.gpg(*options, "--quick-generate-key", f"Owner of {home.name} <o@example.com>", "rsa2048", "sign", "1y")
        self.keyring = home / "public.gpg"
        self.keyring.write_bytes(self.gpg("--export"))

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        unattended = ["--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase="]
        command = ["gpg", f"--homedir={self.home}", *unattended, *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    def sign(self, text: str, *options: str) -> bytes:
        return self.gpg(*options, "--clearsign", data=text.encode())


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Owner]]:
    """The pinned owner, another one, and one whose key has expired since it signed."""
    directory = tmp_path_factory.mktemp("o")
    made = {"pinned": Owner(directory / "p"), "other": Owner(directory / "x")}
    made["expired"] = Owner(directory / "e", "--faked-system-time=20200101T000000")
    yield made
    for owner in made.values():
        subprocess.run(["gpgconf", "--homedir", str(owner.home), "--kill", "all"], check=True)


def below(root: Path, urls: Sequence[str], proxy: str | None = None, no_proxy: Sequence[str] = ()) -> Run:
    """Return what runs apt below a root that is yet to be made."""
    settings = write_settings(root, urls, proxy, no_proxy, 5)
    environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(settings)}

    def run(arguments: Sequence[str], cwd: Path | None = None) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
        if done.returncode:
            raise RepositoryError(done.stderr)
        return done.stdout

    return run


def release(indices: Mapping[str, str], extra: str = "") -> str:
    listed = "".join(
        f" {hashlib.sha256(text.encode()).hexdigest()} {len(text)} {name}/binary-amd64/Packages\n"
        for name, text in indices.items()
    )
    head = f"Suite: stable\nCodename: stable\nComponents: {' '.join(indices)}\nArchitectures: amd64\n"
    return f"{head}Date: Wed, 01 Jan 2020 12:00:00 UTC\n{extra}SHA256:\n{listed}"


Publish = Callable[..., Upstream]
Sign = Callable[[str], bytes]


@pytest.fixture
def publish(owners: dict[str, Owner], serving: StubServer, tmp_path: Path) -> Publish:
    """Let a stub serve what each component has, signed by `sign`, and return it as an upstream."""

    def go(sign: Sign | None = None, extra: str = "", pinned: str = "pinned", **indices: str) -> Upstream:
        by_component = {name.replace("_", "-"): text for name, text in indices.items()}
        signed = (sign or owners["pinned"].sign)(release(by_component, extra))
        serving.answer("/dists/stable/InRelease", signed)
        for name, text in by_component.items():
            serving.answer(f"/dists/stable/{name}/binary-amd64/Packages", text.encode())
        serving.answer(f"/pool/{NAME}_2.19.1.deb", CONTENT)
        root = tmp_path / "apt"
        return Upstream(serving.url, "stable", owners[pinned].keyring, root, below(root, [serving.url]))

    return go


def test_all_versions_are_found_and_downloaded(publish: Publish, tmp_path: Path) -> None:
    upstream = publish(tensorflow_model_server=stanza() + stanza(version="2.18.0", architecture="all"))
    found = upstream.packages([NAME])
    assert [package.identity for package in found] == [(NAME, "2.19.1", "amd64"), (NAME, "2.18.0", "all")]
    (tmp_path / "in").mkdir()
    assert upstream.download(found[0], tmp_path / "in").read_bytes() == CONTENT


def test_package_of_another_digest_is_refused(publish: Publish, serving: StubServer, tmp_path: Path) -> None:
    upstream = publish(tensorflow_model_server=stanza())
    (package,) = upstream.packages([NAME])
    serving.answer(f"/pool/{NAME}_2.19.1.deb", CONTENT[::-1])
    with pytest.raises(RepositoryError, match="Hash Sum mismatch"):
        upstream.download(package, tmp_path)


def test_other_packages_and_architectures_are_never_taken_in(publish: Publish) -> None:
    intruders = stanza(name="coreutils", version="99") + stanza(name=UNIVERSAL) + stanza(architecture="arm64")
    upstream = publish(tensorflow_model_server=intruders + stanza(version="2.18.0"))
    assert [package.identity for package in upstream.packages([NAME])] == [(NAME, "2.18.0", "amd64")]


@pytest.mark.parametrize("indices", [{}, {"tensorflow_model_server_universal": ""}], ids=["no component", "empty"])
def test_package_that_upstream_does_not_have_is_an_error(publish: Publish, indices: dict[str, str]) -> None:
    upstream = publish(tensorflow_model_server=stanza(), **indices)
    with pytest.raises(RepositoryError, match="No packages found"):
        upstream.packages([NAME, UNIVERSAL])


def unsigned(owners: dict[str, Owner], text: str) -> bytes:
    return text.encode()


def signed_by_another(owners: dict[str, Owner], text: str) -> bytes:
    return owners["other"].sign(text)


def changed_after_signing(owners: dict[str, Owner], text: str) -> bytes:
    return owners["pinned"].sign(text.replace("stable", "Stable")).replace(b"Stable", b"stable")


def with_a_weak_digest(owners: dict[str, Owner], text: str) -> bytes:
    return owners["pinned"].sign(text, "--digest-algo=SHA1", "--allow-weak-digest-algos")


def after_unsigned_text(owners: dict[str, Owner], text: str) -> bytes:
    return text.encode() + b"\n" + owners["pinned"].sign(text)


@pytest.mark.parametrize(
    "sign", [unsigned, signed_by_another, changed_after_signing, with_a_weak_digest, after_unsigned_text]
)
def test_index_without_a_good_signature_of_the_pinned_key_is_refused(
    publish: Publish, owners: dict[str, Owner], sign: Callable[..., bytes]
) -> None:
    upstream = publish(lambda text: sign(owners, text), tensorflow_model_server=stanza())
    with pytest.raises(RepositoryError, match="(?s)suite stable: .*Nothing was changed"):
        upstream.packages([NAME])


def test_key_that_has_expired_since_it_signed_is_refused_in_apts_words(
    publish: Publish, owners: dict[str, Owner]
) -> None:
    def sign(text: str) -> bytes:
        return owners["expired"].sign(text, "--faked-system-time=20200102T000000")

    upstream = publish(sign, pinned="expired", tensorflow_model_server=stanza())
    with pytest.raises(RepositoryError, match=r"(?i)expired|EXPKEYSIG"):
        upstream.packages([NAME])


def test_index_that_release_does_not_vouch_for_is_refused(publish: Publish, serving: StubServer) -> None:
    upstream = publish(tensorflow_model_server=stanza())
    serving.answer(f"/dists/stable/{NAME}/binary-amd64/Packages", stanza(version="2.19.2").encode())
    with pytest.raises(RepositoryError, match="Hash Sum mismatch"):
        upstream.packages([NAME])


def test_upstream_that_cannot_be_reached_is_told_in_apts_words(publish: Publish) -> None:
    upstream = publish(tensorflow_model_server=stanza())._replace(uri=f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(RepositoryError, match="Could not connect"):
        upstream.packages([NAME])


@pytest.mark.parametrize(("until", "accepted"), [("Thu, 02 Jan 2020", False), ("Sat, 02 Jan 2100", True)])
def test_release_is_valid_until_it_says(publish: Publish, until: str, accepted: bool) -> None:
    upstream = publish(extra=f"Valid-Until: {until} 00:00:00 UTC\n", tensorflow_model_server=stanza())
    if accepted:
        assert len(upstream.packages([NAME])) == 1
    else:
        with pytest.raises(RepositoryError, match="expired"):
            upstream.packages([NAME])


# Files at a URL, and proxies


def test_file_of_the_right_digest_is_stored(serving: StubServer, tmp_path: Path) -> None:
    serving.answer("/a.deb", CONTENT)
    url = f"{serving.url}/a.deb"
    download(url, SHA256, tmp_path / "a.deb", below(tmp_path / "apt", [url]))
    assert (tmp_path / "a.deb").read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT[:4]], ids=["other", "cut"])
def test_file_of_another_digest_is_refused(serving: StubServer, tmp_path: Path, content: bytes) -> None:
    serving.answer("/a.deb", content)
    url = f"{serving.url}/a.deb"
    with pytest.raises(RepositoryError, match="/a.deb  Hash Sum mismatch"):
        download(url, SHA256, tmp_path / "a.deb", below(tmp_path / "apt", [url]))
    assert not (tmp_path / "a.deb").exists()


def test_downloads_go_through_the_proxy_save_where_no_proxy_says(
    serving: StubServer, proxy: StubServer, tmp_path: Path
) -> None:
    far, near = "http://packages.example.com/a.deb", f"{serving.url}/b.deb"
    proxy.answer(far, CONTENT)
    serving.answer("/b.deb", CONTENT)
    run = below(tmp_path / "apt", [far, near], proxy.url, ["127.0.0.1"])
    download(far, SHA256, tmp_path / "a.deb", run)
    download(near, SHA256, tmp_path / "b.deb", run)
    assert proxy.requests == [("GET", far)]


def test_password_of_the_proxy_is_shown_to_nobody(tmp_path: Path) -> None:
    address = f"127.0.0.1:{unused_port()}"
    url = "http://packages.example.com/a.deb"
    run = below(tmp_path / "apt", [url], f"http://user:s3cret@{address}")
    with pytest.raises(RepositoryError, match=address.replace(":", ".*")) as error:
        download(url, SHA256, tmp_path / "a.deb", run)
    assert "s3cret" not in str(error.value)
    settings = tmp_path / "apt" / "apt.conf"
    assert "s3cret" in settings.read_text()
    assert settings.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("proxy", ['http://s3cret";Acquire::AllowInsecureRepositories "true', "user:s3cret@a:3128"])
def test_proxy_that_apt_would_misread_is_refused_without_being_shown(tmp_path: Path, proxy: str) -> None:
    with pytest.raises(RepositoryError, match="has to be http://HOST:PORT") as error:
        below(tmp_path / "apt", [], proxy)
    assert "s3cret" not in str(error.value)
