"""A host without a trace: after check mode on a fresh one, and after remove.yml (which leaves Debian's rsync)."""

PATHS = (
    "/etc/apt/keyrings/tensorflow-serving.gpg",
    "/etc/apt/sources.list.d/tensorflow-serving.sources",
    "/etc/apt/preferences.d/tensorflow-serving.pref",
    "/etc/apt/apt.conf.d/90tensorflow-serving-proxy",
    "/etc/apt/auth.conf.d/90tensorflow-serving-proxy.conf",
    "/etc/tensorflow-serving",
    "/etc/systemd/system/tensorflow-model-server.service",
    "/etc/systemd/system/multi-user.target.wants/tensorflow-model-server.service",
    "/usr/bin/tensorflow_model_server",
    "/var/lib/tensorflow-serving",
    "/etc/systemd/system/tfserving-versions.service",
    "/etc/systemd/system/tfserving-versions.timer",
    "/etc/systemd/system/timers.target.wants/tfserving-versions.timer",
    "/usr/local/sbin/tfserving-versions",
    "/var/lib/prometheus/node-exporter/tfserving-key.prom",
    "/var/lib/prometheus/node-exporter/tfserving-versions.prom",
)


def test_no_file_is_there(host):
    """Nor a link that leads nowhere."""
    assert host.run(f"ls -d {' '.join(PATHS)}").stdout == ""


def test_no_user_is_there(host):
    assert not host.user("tfserving").exists
    assert not host.group("tfserving").exists


def test_package_is_not_installed_and_apt_does_not_know_it(host):
    assert not host.package("tensorflow-model-server").is_installed
    assert host.check_output("apt-cache madison tensorflow-model-server") == ""


def test_nothing_listens(host):
    assert not host.socket("tcp://8500").is_listening
    assert not host.socket("tcp://8501").is_listening


def test_systemd_has_nothing_failed(host):
    assert host.check_output("systemctl list-units --state=failed --no-legend --plain") == ""
