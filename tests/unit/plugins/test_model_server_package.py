"""Which package a host should have, and what it means when its program does not run."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import (
    CPU_FLAGS,
    OPTIMIZED,
    TIMED_OUT,
    UNIVERSAL,
    Host,
    Package,
    PackageChange,
    PackageError,
    check_given,
    describe_unknown,
    diagnose,
    is_change_needed,
    is_undone_by,
    matches,
    missing_cpu_flags,
    parse_dpkg_query,
    parse_fields,
    parse_madison,
    parse_removals,
    wanted_package,
)

KNOWN = {OPTIMIZED: ["2.20.0", "2.19.10", "2.19.9", "2.18.0"], UNIVERSAL: ["2.20.0", "2.19.9"]}
DIGEST = "a" * 64


def host_with(name: str, version: str, **more: object) -> Host:
    """A host on which one package is wholly installed."""
    return replace(Host(known=KNOWN), installed=[Package(name, version)], present=[name], **more)  # type: ignore[arg-type]


def processor(*flags: str) -> str:
    return f"processor\t: 0\nmodel name\t: avx avx2\nflags\t\t: fpu {' '.join(flags)} sse4a\nvmx flags\t: avx2 fma\n\n"


@pytest.mark.parametrize(
    ("cpuinfo", "missing"),
    [
        (processor(*CPU_FLAGS), []),
        (processor("sse4_1", "sse4_2", "avx"), ["avx2", "fma"]),
        (processor("avx512f", "fma4"), list(CPU_FLAGS)),
        (processor(*CPU_FLAGS) + processor(*CPU_FLAGS[:-1]), ["fma"]),
        ("", list(CPU_FLAGS)),
        ("Features : fp asimd\n", list(CPU_FLAGS)),
    ],
)
def test_missing_flags_are_those_that_not_every_processor_has(cpuinfo: str, missing: list[str]) -> None:
    assert missing_cpu_flags(cpuinfo) == missing


@pytest.mark.parametrize(
    ("version", "pattern", "fits"),
    [
        ("2.19.1", "", True),
        ("2.19.1", "2.19.1", True),
        ("2.19.10", "2.19.1", False),
        ("2.19.1", "2.19.*", True),
        ("2.19", "2.19.*", False),
        ("2.190.1", "2.19.*", False),
        ("2x19.1", "2.19.*", False),
        ("1:2.19.1+b1~rc0", "1:2.*+b1~*", True),
        ("2.19.1", "*", True),
    ],
)
def test_star_stands_for_any_text_and_all_else_for_itself(version: str, pattern: str, fits: bool) -> None:
    assert matches(version, pattern) is fits


def test_madison_is_read_newest_first_and_each_version_once() -> None:
    output = (
        "tensorflow-model-server |     2.19.1 | http://packages.lab/a stable/tensorflow-model-server amd64 Packages\n"
        "tensorflow-model-server |     2.19.1 | http://packages.lab/b stable/tensorflow-model-server amd64 Packages\n"
        "tensorflow-model-server |     2.18.0 | http://packages.lab/a stable/tensorflow-model-server amd64 Packages\n"
    )
    assert parse_madison(output) == {OPTIMIZED: ["2.19.1", "2.18.0"], UNIVERSAL: []}
    assert parse_madison("") == {OPTIMIZED: [], UNIVERSAL: []}


@pytest.mark.parametrize(
    ("line", "installed", "unfinished", "held"),
    [
        ("2.19.1\tinstall\tok\tinstalled", True, False, False),
        ("2.19.1\thold\tok\tinstalled", True, False, True),
        ("2.19.1\tinstall\tok\thalf-configured", False, True, False),
        ("2.19.1\tinstall\treinstreq\thalf-installed", False, True, False),
        ("2.19.1\tinstall\treinstreq\tinstalled", False, True, False),
    ],
)
def test_package_counts_as_installed_when_dpkg_has_finished_it(
    line: str, installed: bool, unfinished: bool, held: bool
) -> None:
    expected = [Package(OPTIMIZED, "2.19.1")] if installed else []
    output = f"{OPTIMIZED}\t{line}\n{UNIVERSAL}\t\tunknown\tok\tnot-installed\n"
    assert parse_dpkg_query(output) == (expected, [OPTIMIZED], unfinished, [OPTIMIZED] if held else [])


def test_removed_package_owns_nothing() -> None:
    assert parse_dpkg_query(f"{OPTIMIZED}\t2.19.1\thold\tok\tconfig-files\n") == ([], [], False, [])


def test_auto_picks_by_the_cpu_and_others_are_as_told() -> None:
    assert wanted_package(Host(known=KNOWN), "auto", "") == Package(OPTIMIZED, "2.20.0")
    old = Host(known=KNOWN, missing_cpu_flags=["fma"])
    assert wanted_package(old, "auto", "") == Package(UNIVERSAL, "2.20.0")
    assert wanted_package(old, "optimized", "") == Package(OPTIMIZED, "2.20.0")


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("", "2.20.0"),
        ("2.19.*", "2.19.10"),
        ("2.18.0", "2.18.0"),
        ("2.17.*", None),
        ("2.17.0", None),
        ("2.1", None),
    ],
)
def test_fresh_host_gets_the_newest_that_fits(version: str, wanted: str | None) -> None:
    found = wanted_package(Host(known=KNOWN), "optimized", version)
    assert (found.version if found else None) == wanted


@pytest.mark.parametrize(
    ("installed", "version", "wanted"),
    [
        ("2.18.0", "", "2.18.0"),
        ("2.19.9", "2.19.*", "2.19.9"),
        ("2.18.0", "2.19.*", "2.19.10"),
        ("2.20.0", "2.18.0", "2.18.0"),
        # No longer in apt's lists.
        ("2.17.0", "2.17.0", "2.17.0"),
        ("2.17.0", "2.*", "2.17.0"),
    ],
)
def test_installed_version_that_fits_stays(installed: str, version: str, wanted: str) -> None:
    assert wanted_package(host_with(OPTIMIZED, installed), "auto", version) == Package(OPTIMIZED, wanted)


def test_variant_is_replaced_in_its_version_where_there_is_one() -> None:
    assert wanted_package(host_with(OPTIMIZED, "2.19.9"), "universal", "") == Package(UNIVERSAL, "2.19.9")
    assert wanted_package(host_with(OPTIMIZED, "2.18.0"), "universal", "") == Package(UNIVERSAL, "2.20.0")
    assert wanted_package(host_with(OPTIMIZED, "2.19.9"), "universal", "2.20.*") == Package(UNIVERSAL, "2.20.0")


def test_killed_change_without_a_pinned_version_is_finished_as_it_was_meant() -> None:
    change = PackageChange(Package(UNIVERSAL, "2.19.9"), Package(OPTIMIZED, "2.19.9"), is_installed=False)
    host = Host(known=KNOWN, change=change)
    assert wanted_package(host, "universal", "") == Package(UNIVERSAL, "2.19.9")
    assert wanted_package(host, "universal", "2.20.0") == Package(UNIVERSAL, "2.20.0")


def failed(new: Package, previous: Package | None) -> PackageChange:
    return PackageChange(new, previous, is_failed=True)


def test_failed_version_comes_last_when_no_version_is_asked_for() -> None:
    old, broken = Package(OPTIMIZED, "2.17.0"), Package(OPTIMIZED, "2.20.0")
    host = host_with(OPTIMIZED, "2.20.0", change=failed(broken, old))
    back = replace(host, rollback_target=old)
    assert wanted_package(back, "auto", "") == old
    assert is_undone_by(back, old)
    assert wanted_package(host, "auto", "") == Package(OPTIMIZED, "2.19.10")
    assert wanted_package(host, "auto", "2.20.0") == broken
    assert not is_undone_by(host, old)
    assert is_change_needed(host, broken)
    first = Host(known=KNOWN, change=failed(broken, None))
    assert wanted_package(first, "auto", "") == Package(OPTIMIZED, "2.19.10")


def test_rollback_target_can_be_asked_for_though_apt_does_not_know_it() -> None:
    old = Package(OPTIMIZED, "2.17.0", DIGEST)
    killed = PackageChange(Package(UNIVERSAL, "2.19.9"), old)
    host = Host(known=KNOWN, change=killed, rollback_target=old)
    assert wanted_package(host, "universal", "") == killed.new
    assert wanted_package(host, "optimized", "2.17.0") == Package(OPTIMIZED, "2.17.0")
    assert wanted_package(host, "auto", "", DIGEST) == old
    assert not is_undone_by(host, killed.new)
    assert is_undone_by(host, Package(OPTIMIZED, "2.17.0"))


def test_removals_are_read_from_a_simulation() -> None:
    output = (
        "Reading package lists...\nThe following packages will be REMOVED:\n  less python3\n"
        "Remv less [590-2]\nPurg python3:amd64 [3.13]\nInst tensorflow-model-server (2.19.1 lab [all])\n"
    )
    assert parse_removals(output) == ["less", "python3"]


def test_given_package_is_known_once_it_is_installed() -> None:
    assert wanted_package(host_with(OPTIMIZED, "2.19.9"), "auto", "", DIGEST) is None
    given = Package(OPTIMIZED, "2.19.9", DIGEST)
    host = replace(host_with(OPTIMIZED, "2.19.9"), installed=[given])
    assert wanted_package(host, "auto", "2.19.*", DIGEST) == given
    with pytest.raises(PackageError, match="tfserving_package_version is 2.20.0"):
        wanted_package(host, "auto", "2.20.0", DIGEST)


@pytest.mark.parametrize(
    ("given", "variant", "version", "words"),
    [
        (Package("nginx", "1.2"), "auto", "", "holds nginx 1.2; it has to be tensorflow-model-server or"),
        (Package(OPTIMIZED, "2.19.9"), "universal", "", "tfserving_package_variant is universal"),
        (Package(OPTIMIZED, "2.19.9"), "auto", "2.20.*", "tfserving_package_version is 2.20"),
        (Package(OPTIMIZED, "2.19.9"), "auto", "", "lacks avx2, fma"),
    ],
)
def test_given_package_that_contradicts_the_variables_is_refused(
    given: Package, variant: str, version: str, words: str
) -> None:
    host = Host(missing_cpu_flags=["avx2", "fma"] if "lacks" in words else [])
    with pytest.raises(PackageError, match=words):
        check_given(host, given, variant, version)


def test_given_package_that_agrees_is_taken() -> None:
    check_given(Host(missing_cpu_flags=["fma"]), Package(UNIVERSAL, "2.19.9"), "universal", "2.19.*")


def test_host_with_exactly_the_wanted_package_needs_no_change() -> None:
    wanted = Package(OPTIMIZED, "2.19.9")
    good = host_with(OPTIMIZED, "2.19.9")
    done = PackageChange(wanted, Package(OPTIMIZED, "2.18.0"), is_installed=True)
    assert not is_change_needed(good, wanted)
    assert not is_change_needed(replace(good, change=done), wanted)
    assert is_change_needed(good, None)
    assert is_change_needed(good, Package(OPTIMIZED, "2.18.0"))
    assert is_change_needed(replace(good, is_unfinished=True), wanted)
    assert is_change_needed(replace(good, present=[OPTIMIZED, UNIVERSAL]), wanted)
    assert is_change_needed(replace(good, change=replace(done, is_installed=False)), wanted)
    assert is_change_needed(Host(known=KNOWN), wanted)


@pytest.mark.parametrize("previous", [None, Package(OPTIMIZED, "2.18.0", DIGEST)])
def test_change_is_the_same_after_it_was_written_and_read(previous: Package | None) -> None:
    change = PackageChange(Package(UNIVERSAL, "2.19.9"), previous, is_installed=True, is_held=True)
    assert PackageChange.of(replace(change, is_failed=True).as_dict()).is_failed
    assert PackageChange.of(change.as_dict()) == change


def died_of(script: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_illegal_instruction_is_told_as_what_the_cpu_lacks() -> None:
    code, output = died_of("kill -ILL $$")
    assert diagnose(code, output, ["avx2", "fma"]) == (
        "this CPU lacks avx2, fma (SIGILL): set tfserving_package_variant to universal"
    )
    assert "an instruction that the build uses (SIGILL)" in diagnose(128 + signal.SIGILL, "", [])


@pytest.mark.parametrize(
    ("output", "lack"),
    [
        ("server: libc.so.6: version `GLIBC_2.99' not found (required by server)", "GLIBC_2.99 is missing"),
        ("server: libstdc++.so.6: version `GLIBCXX_3.4.99' not found (required by x)", "GLIBCXX_3.4.99 is missing"),
        (
            "server: error while loading shared libraries: libgomp.so.1: cannot open shared object file: No such file",
            "the library libgomp.so.1 is missing",
        ),
    ],
)
def test_missing_symbol_and_library_are_told_as_a_newer_distribution(output: str, lack: str) -> None:
    text = diagnose(1, output, [])
    assert f"built for a newer distribution than this host's ({lack})" in text
    assert "choose an older tfserving_package_version or upgrade the host" in text


def test_other_ends_are_told_in_the_program_s_own_words() -> None:
    assert diagnose(7, "no such\nluck\n", []) == "no such luck (exit status 7)"
    assert diagnose(-signal.SIGSEGV, "", []) == "it printed nothing (signal 11)"
    assert diagnose(TIMED_OUT, "thinking", []) == "it timed out: thinking"


def test_unknown_version_is_answered_with_the_known_ones() -> None:
    text = describe_unknown(Host(known=KNOWN), "optimized", "2.99", is_key_expired=False)
    assert text.startswith("apt does not know tensorflow-model-server 2.99. It knows tensorflow-model-server 2.20.0, ")
    assert "and tensorflow-model-server-universal 2.20.0, 2.19.9." in text
    assert "Set tfserving_package_version to one of these" in text
    only = Host(known={OPTIMIZED: [], UNIVERSAL: ["2.19.9"]})
    assert "set tfserving_package_variant to it" in describe_unknown(only, "auto", "", is_key_expired=False)


def test_expired_key_is_answered_with_the_ways_on() -> None:
    text = describe_unknown(Host(), "auto", "", is_key_expired=True)
    for word in ("It knows no version", "tfserving_package_deb_sha256", "a mirror", "wait for the renewed key"):
        assert word in text


def test_fields_are_read_by_name() -> None:
    fields = {"Package": "p", "Version": "1:2", "Architecture": "all"}
    assert parse_fields("Package: p\nVersion: 1:2\nArchitecture: all\n") == fields
