"""Check mode on a fresh host says what it would do and does none of it."""

import pytest


@pytest.mark.parametrize(
    "path",
    [
        "/etc/apt/keyrings/tensorflow-serving.gpg",
        "/etc/apt/sources.list.d/tensorflow-serving.sources",
        "/etc/apt/apt.conf.d/90tensorflow-serving-proxy",
        "/etc/tensorflow-serving",
        "/etc/systemd/system/tensorflow-model-server.service",
        "/usr/bin/tensorflow_model_server",
        "/var/lib/tensorflow-serving",
    ],
)
def test_check_mode_left_no_file_behind(host, path):
    assert not host.file(path).exists


def test_check_mode_created_no_user(host):
    assert not host.user("tfserving").exists
    assert not host.group("tfserving").exists
