"""What a mirror takes in, keeps and drops, and that its tree is whole at every moment of a publication."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt import mirror
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.mirror import (
    KEY_NAME,
    PACKAGES,
    Layout,
    MirrorPlan,
    describe_deb,
    is_complete,
    make_plan,
    parse_secret_key,
    publish,
    read_published,
    rows,
    surplus,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.repository import (
    Package,
    RepositoryError,
)

NAME, UNIVERSAL = PACKAGES
KEY = "the key\n"


def newer(one: str, other: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode == 0


def package(version: str, name: str = NAME, content: str = "") -> Package:
    sha256 = hashlib.sha256(f"{name} {version} {content}".encode()).hexdigest()
    return Package(name, version, "all", sha256, len(version))


def packages(*versions: str, name: str = NAME) -> list[Package]:
    return [package(version, name) for version in versions]


def planned(published: Sequence[Package] = (), upstream: Sequence[Package] = (), **more: Any) -> dict[str, list[str]]:
    """Make a plan and return the versions in each of its lists."""
    settings = {"debs": [], "versions": [], "names": PACKAGES, "prune": False, **more}
    plan = make_plan(published, upstream, newer=newer, **settings)
    return {state: sorted(one.version for one in getattr(plan, state)) for state in plan._fields}


# What it takes in


@pytest.mark.parametrize(
    ("versions", "added"),
    [
        ([], ["2.19.1"]),
        (["2.18.0"], ["2.18.0"]),
        (["2.1*"], ["2.10.0", "2.18.0", "2.19.0", "2.19.1"]),
        (["2.19.*", "2.9.0"], ["2.19.0", "2.19.1", "2.9.0"]),
        (["2.1[89].0"], ["2.18.0", "2.19.0"]),
    ],
)
def test_versions_are_exact_or_patterns_or_else_the_newest(versions: list[str], added: list[str]) -> None:
    upstream = packages("2.9.0", "2.10.0", "2.19.1", "2.18.0", "2.19.0")
    assert planned(upstream=upstream, versions=versions) == {"added": added, "kept": [], "dropped": []}


def test_newest_is_taken_of_each_package() -> None:
    upstream = [*packages("2.18.0", "2.19.1"), *packages("2.18.0", name=UNIVERSAL)]
    assert planned(upstream=upstream)["added"] == ["2.18.0", "2.19.1"]


def test_packages_that_are_not_asked_for_are_left_out() -> None:
    upstream = [*packages("2.19.1"), *packages("2.18.0", name=UNIVERSAL)]
    assert planned(upstream=upstream, names=[UNIVERSAL])["added"] == ["2.18.0"]


def test_version_that_nobody_has_is_an_error() -> None:
    with pytest.raises(RepositoryError, match=r"_mirror_versions: no version 2.20.\*; upstream has 2.18.0, 2.19.1"):
        planned(upstream=packages("2.18.0", "2.19.1"), versions=["2.19.*", "2.20.*"])


def test_version_that_upstream_has_dropped_is_served_on() -> None:
    done = planned(packages("2.17.0"), packages("2.19.1"), versions=["2.17.0", "2.19.1"], prune=True)
    assert done == {"kept": ["2.17.0"], "added": ["2.19.1"], "dropped": []}


def test_files_are_taken_in_whatever_the_versions_are() -> None:
    done = planned(upstream=packages("2.19.1"), debs=packages("2.17.0"))
    assert done["added"] == ["2.17.0", "2.19.1"]


def test_file_that_upstream_has_as_well_is_taken_in_once() -> None:
    assert planned(upstream=packages("2.19.1"), debs=packages("2.19.1"))["added"] == ["2.19.1"]


def test_nothing_is_done_where_all_is_there() -> None:
    both = packages("2.18.0", "2.19.1")
    assert planned(both, both, versions=["2.*"]) == {"kept": ["2.18.0", "2.19.1"], "added": [], "dropped": []}


@pytest.mark.parametrize("source", ["upstream", "debs"])
def test_published_version_never_changes(source: str) -> None:
    other = package("2.19.1", content="rebuilt")
    with pytest.raises(RepositoryError, match=f"2.19.1 is in the mirror with sha256 .*{other.sha256}"):
        planned(packages("2.19.1"), **{source: [other]})


def test_file_that_differs_from_upstreams_is_an_error() -> None:
    with pytest.raises(RepositoryError, match="A published version never changes"):
        planned(upstream=packages("2.19.1"), debs=[package("2.19.1", content="rebuilt")])


# What it keeps


def test_old_versions_stay() -> None:
    done = planned(packages("2.17.0", "2.18.0"), packages("2.19.1"))
    assert done == {"kept": ["2.17.0", "2.18.0"], "added": ["2.19.1"], "dropped": []}


@pytest.mark.parametrize(
    ("versions", "kept"),
    [([], []), (["2.18.0", "2.19.*"], ["2.18.0"]), (["2.1[78].0", "2.19.1"], ["2.17.0", "2.18.0"])],
)
def test_pruning_keeps_what_would_be_taken_in_today(versions: list[str], kept: list[str]) -> None:
    done = planned(packages("2.17.0", "2.18.0"), packages("2.19.1"), versions=versions, prune=True)
    assert done["kept"] == kept
    assert done["added"] == ["2.19.1"]


def test_pruning_without_upstream_keeps_the_newest_and_the_files() -> None:
    done = planned(packages("2.16.0", "2.17.0", "2.18.0"), debs=packages("2.16.0"), prune=True)
    assert done == {"kept": ["2.16.0", "2.18.0"], "added": [], "dropped": ["2.17.0"]}


def test_pruning_drops_packages_that_are_not_asked_for() -> None:
    published = [*packages("2.18.0"), *packages("2.19.1", name=UNIVERSAL)]
    assert planned(published, packages("2.18.0"), names=[NAME], prune=True)["dropped"] == ["2.19.1"]


@pytest.mark.parametrize("prune", [False, True])
def test_mirror_never_becomes_empty(prune: bool) -> None:
    with pytest.raises(RepositoryError, match="would be empty"):
        planned(packages("2.18.0") if prune else [], names=[UNIVERSAL], prune=prune)


def test_table_has_the_newest_version_first() -> None:
    plan = MirrorPlan(kept=packages("2.9.0"), added=packages("2.10.0"), dropped=packages("2.8.0", name=UNIVERSAL))
    listed = [(row["package"], row["version"], row["state"]) for row in rows(plan, newer)]
    assert listed == [(NAME, "2.10.0", "added"), (NAME, "2.9.0", "kept"), (UNIVERSAL, "2.8.0", "dropped")]


# .deb files


def run(arguments: Sequence[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RepositoryError(done.stderr)
    return done.stdout


def deb(path: Path, name: str = NAME, version: str = "2.19.1", architecture: str = "all") -> Path:
    control = path.parent / "tree" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True, exist_ok=True)
    fields = {"Package": name, "Version": version, "Architecture": architecture, "Maintainer": "M", "Description": "D"}
    control.write_text("".join(f"{field}: {value}\n" for field, value in fields.items()))
    run(["dpkg-deb", "--build", "-Znone", str(control.parents[1]), str(path)])
    return path


def test_deb_says_what_it_is(tmp_path: Path) -> None:
    file = deb(tmp_path / "abcd.deb", version="1:2.19.1", architecture="amd64")
    found = describe_deb(file, run)
    assert found == (NAME, "1:2.19.1", "amd64", "abcd", file.stat().st_size)
    assert found.filename == f"pool/{NAME}/t/{NAME}/{NAME}_2.19.1_amd64.deb"


@pytest.mark.parametrize("other", [{"name": "coreutils"}, {"architecture": "arm64"}])
def test_other_packages_and_architectures_are_refused(tmp_path: Path, other: dict[str, str]) -> None:
    with pytest.raises(RepositoryError, match="only tensorflow-model-server and .* are taken in"):
        describe_deb(deb(tmp_path / "a.deb", **other), run)


def test_file_that_is_no_deb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_text("<html>")
    with pytest.raises(RepositoryError, match="a.deb"):
        describe_deb(tmp_path / "a.deb", run)


# The user's key

FINGERPRINT = "D52148A4B5B1800AEC1866F468D54E8F09B1D49F"


def listing(validity: str = "u", expires: str = "1858594349", capabilities: str = "scSC") -> str:
    """What gpg 2.4 prints, in these fields changed."""
    sec = f"sec:{validity}:3072:1:68D54E8F09B1D49F:1795522349:{expires}::u:::{capabilities}:::+:::23::0:"
    return (
        f"{sec}\nfpr:::::::::{FINGERPRINT}:\ngrp:::::::::BA28A9857AB4C992A0920A6A21D0281EA7A16751:\nuid:u::::1::2::M:\n"
    )


def test_expiry_of_a_good_key_is_read() -> None:
    assert parse_secret_key(listing(), FINGERPRINT, "home") == 1858594349
    assert parse_secret_key(listing(expires=""), FINGERPRINT, "home") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no primary secret key .* in home.*gpg --quick-generate-key"),
        (listing().replace(FINGERPRINT, "B" * 40), "no primary secret key"),
        (listing(validity="e"), f"has expired.*gpg --quick-set-expire {FINGERPRINT} 5y"),
        (listing(validity="r"), "no primary secret key .* that can sign"),
        (listing(capabilities="cC"), "no primary secret key .* that can sign"),
        (listing(capabilities="scSCD"), "no primary secret key .* that can sign"),
    ],
)
def test_key_that_cannot_sign_is_told_with_the_way_out(text: str, complaint: str) -> None:
    with pytest.raises(RepositoryError, match=complaint):
        parse_secret_key(text, FINGERPRINT, "home")


# The published tree


def digests(data: bytes) -> dict[str, str]:
    return {"SHA256": hashlib.sha256(data).hexdigest(), "SHA512": hashlib.sha512(data).hexdigest()}


def tree(root: Path, downloads: Path, content: Sequence[Package]) -> Path:
    """A tree as aptly writes it, by-hash links and all, with a line instead of a signature."""
    suite = root / "dists" / "stable"
    lines: dict[str, list[str]] = {"SHA256": [], "SHA512": []}
    for name in PACKAGES:
        mine = [one for one in content if one.name == name]
        for one in mine:
            file = root / one.filename
            file.parent.mkdir(parents=True, exist_ok=True)
            file.hardlink_to(downloads / f"{one.sha256}.deb")
        text = "\n".join(
            f"Package: {one.name}\nVersion: {one.version}\nArchitecture: {one.architecture}\nSHA256: {one.sha256}\n"
            f"Size: {one.size}\nFilename: {one.filename}\n"
            for one in mine
        )
        folder = suite / name / "binary-amd64"
        folder.mkdir(parents=True)
        (folder / "Packages").write_text(text)
        for kind, digest in {**digests(text.encode()), "MD5Sum": "ab"}.items():
            by_hash = folder / "by-hash" / kind
            by_hash.mkdir(parents=True)
            (by_hash / digest).hardlink_to(folder / "Packages")
            (by_hash / "Packages").symlink_to(by_hash / digest)
            if kind in lines:
                lines[kind].append(f" {digest} {len(text)} {name}/binary-amd64/Packages\n")
    release = "".join(f"{kind}:\n{''.join(listed)}" for kind, listed in lines.items())
    (suite / "Release").write_text(release)
    (suite / "Release.gpg").write_text("signature")
    begin, end = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n", "-----BEGIN PGP SIGNATURE-----\n"
    (suite / "InRelease").write_text(f"{begin}{release}{end}")
    return root


Publish = Callable[..., Layout]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "mirror")
    made.downloads.mkdir(parents=True)
    return made


@pytest.fixture
def put(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Publish:
    """Publish these packages."""

    def go(*content: Package) -> Layout:
        for one in content:
            if not layout.deb(one.sha256).exists():
                layout.deb(one.sha256).write_text(one.version)
        publish(layout, tree(layout.path / tmp_path_factory.mktemp("x").name, layout.downloads, content), KEY)
        return layout

    return go


def files(layout: Layout) -> list[str]:
    return sorted(str(file.relative_to(layout.public)) for file in layout.public.rglob("*") if file.is_file())


def test_mirror_that_is_not_there_holds_nothing(layout: Layout) -> None:
    assert read_published(layout) == []


def test_published_tree_holds_what_was_built_and_no_links(put: Publish, layout: Layout) -> None:
    content = [*packages("2.18.0", "2.19.1"), *packages("2.19.1", name=UNIVERSAL)]
    put(*content)
    assert sorted(read_published(layout)) == sorted(content)
    assert is_complete(layout, content, KEY)
    assert (layout.public / KEY_NAME).read_text() == KEY
    assert not [file for file in layout.public.rglob("*") if file.is_symlink()]
    assert not [name for name in files(layout) if "MD5Sum" in name]
    assert surplus(layout, content, []) == []


def test_everybody_can_read_the_tree(put: Publish, layout: Layout) -> None:
    put(*packages("2.18.0"))
    for file in layout.public.rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o755 if file.is_dir() else 0o644)


def test_client_with_the_index_before_still_finds_its_files(put: Publish, layout: Layout) -> None:
    first = files(put(*packages("2.18.0")))
    second = files(put(*packages("2.18.0", "2.19.1")))
    assert set(first) <= set(second)
    put(*packages("2.18.0", "2.19.1", "2.20.0"))
    by_hash = [name for name in first if "by-hash" in name and UNIVERSAL not in name]
    assert by_hash
    assert not set(by_hash) & set(files(layout))  # two publications later, nobody holds it


class Cut(BaseException):
    """The power went."""


def test_publication_that_is_cut_anywhere_leaves_one_whole_mirror(
    put: Publish, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut the run at each of its renames: what InRelease names is there each time, and the next run finishes."""
    before, after = packages("2.18.0"), packages("2.18.0", "2.19.1")
    put(*before)
    replace = Path.replace
    for steps in range(100):
        renames = 0

        def rename(source: Path, target: Path, steps: int = steps) -> Path:
            nonlocal renames
            if renames == steps:
                raise Cut
            renames += 1
            return replace(source, target)

        monkeypatch.setattr(Path, "replace", rename)
        try:
            put(*after)
        except Cut:
            held = read_published(layout)
            assert held == before
            assert is_complete(layout, held, KEY)
            continue
        break
    else:
        pytest.fail("the publication never came to its end")
    assert steps > 3
    assert read_published(layout) == after
    assert surplus(layout, after, []) == []


def test_what_no_index_names_is_surplus(put: Publish, layout: Layout) -> None:
    old, new, given = package("2.18.0"), package("2.19.1"), package("2.17.0")
    put(old, new)
    layout.deb(given.sha256).write_text("a file of the user's")
    (layout.downloads / "cut.part").write_text("half")
    (layout.public / f".InRelease{mirror.NEW}").write_text("half")
    put(new)
    names = [file.name for file in surplus(layout, [new], [given.sha256])]
    assert sorted(names) == sorted([".InRelease.new", old.basename, f"{old.sha256}.deb", "cut.part"])


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_published_package_that_is_damaged_is_noticed(put: Publish, layout: Layout, damage: str) -> None:
    (one,) = packages("2.18.0")
    put(one)
    (layout.public / one.filename).unlink()
    if damage == "cut":
        (layout.public / one.filename).write_text("2.1")
    assert not is_complete(layout, [one], KEY)


@pytest.mark.parametrize("name", ["Release", "Release.gpg"])
def test_index_that_is_missing_is_noticed(put: Publish, layout: Layout, name: str) -> None:
    put(*packages("2.18.0"))
    (layout.suite / name).unlink()
    assert not is_complete(layout, packages("2.18.0"), KEY)


def test_key_that_has_another_form_now_is_noticed(put: Publish, layout: Layout) -> None:
    put(*packages("2.18.0"))
    assert not is_complete(layout, packages("2.18.0"), "the key, prolonged\n")


@pytest.mark.parametrize("content", ["", "<html>", "index", None])
def test_damaged_index_is_told_with_the_way_out(put: Publish, layout: Layout, content: str | None) -> None:
    put(*packages("2.18.0"))
    if content is None:
        for file in layout.suite.rglob("by-hash/SHA256/*"):
            file.unlink()
    elif content == "index":
        for file in layout.suite.rglob("by-hash/SHA256/*"):
            file.unlink()
            file.write_text("")
    else:
        layout.in_release.unlink()
        layout.in_release.write_text(content)
    with pytest.raises(RepositoryError, match="is damaged: .*Remove that directory and rerun the playbook"):
        read_published(layout)
