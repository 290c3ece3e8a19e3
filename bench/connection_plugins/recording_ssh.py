"""ssh that records what the host answers."""

from __future__ import annotations

from ansible.plugins.connection import ssh

from bench.recorded_calls import Recording

DOCUMENTATION = ssh.DOCUMENTATION  # its options


class Connection(Recording, ssh.Connection):
    pass
