"""Hosts that reach nothing but the mirror serve as all others do."""

import packages
import pytest
from conftest import PROJECT  # noqa: F401 - puts the lab's code on the path

MODELS = ("MLP", "MLP_custom")


@pytest.fixture
def name(host):
    return host.check_output("hostname")


def test_host_reaches_the_mirror_and_not_the_world(host):
    assert host.run("timeout 5 bash -c '</dev/tcp/packages.lab/80'").rc == 0
    assert host.run("timeout 5 bash -c '</dev/tcp/192.0.2.1/80'").rc != 0
    assert "default" not in host.check_output("ip route")


@pytest.mark.parametrize("model", MODELS)
def test_held_out_digits_are_predicted_right(server, digits, model):
    assert server.versions(model) == {1: "AVAILABLE"}
    assert server.accuracy(model, digits) >= 0.95


def test_package_comes_from_where_the_inventory_says(host, name):
    """With the variant auto, the CPU decides which of the two packages comes from the mirror."""
    (package,) = (one for one in packages.COMPONENTS if host.package(one).is_installed)
    assert host.package(package).version == "2.19.1"
    installed = host.check_output("apt-cache policy %s", package).partition("***")[2]
    assert (f"http://packages.lab/mirror stable/{package} amd64" in installed) is (name == "debian13a")


def test_host_with_a_file_has_no_source_and_no_key(host, name):
    expected = name == "debian13a"
    assert host.file("/etc/apt/sources.list.d/tensorflow-serving.sources").exists is expected
    assert host.file("/etc/apt/keyrings/tensorflow-serving.gpg").exists is expected
