"""ssh that is answered from a recording, with all that Ansible does but for the ssh client itself."""

from __future__ import annotations

from ansible.plugins.connection import ssh

from bench.recorded_calls import Replaying

DOCUMENTATION = ssh.DOCUMENTATION  # its options


class Connection(Replaying, ssh.Connection):
    pass
