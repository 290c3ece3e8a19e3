#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

# The work is done by the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: host_lock
short_description: Lock a host, so that one run at a time changes it
version_added: 0.2.0
description:
  - Takes the lock of a host, the file C(/run/tensorflow-serving.lock), or fails where another run has it, and says who
    is at work, since when, and until when the lock counts. The same run may take it again.
  - The lock expires, so that a run that was killed blocks nobody for ever. The run that has it renews it whenever it
    publishes a version. One of a run on the same controller that has ended counts for nothing, and a reboot of the host
    removes it.
  - Release it at the end of a block and under its C(rescue), so that a run that fails leaves none. A host that cannot
    be reached any more keeps it until it expires.
options:
  state:
    description: Whether to take the lock or to release it, where this run has it.
    type: str
    choices: [taken, released]
    default: taken
  minutes:
    description: How long the lock counts when it is not renewed.
    type: int
    default: 60
  looked_at:
    description: When this run looked at the host, in seconds since the epoch by the host's clock. See
      RV(looked_before).
    type: float
  takeover:
    description: Whether to take the lock from a run that has it, because that run is known to have ended.
    type: bool
    default: false
  failure:
    description: What has failed on the host, under C(rescue). The task fails with these words once the lock is
      released, so that the host counts as failed.
    type: str
attributes:
  check_mode:
    description: Takes no lock; another run at work is a warning.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Acquire the host lock before a block
  modelops.tensorflow_serving.host_lock:
    minutes: 120

- name: Release the host lock at the end of that block
  modelops.tensorflow_serving.host_lock:
    state: released

- name: Release it under rescue, too
  modelops.tensorflow_serving.host_lock:
    state: released
    failure: "{{ ansible_failed_result.msg | default('See above') }}"
"""

RETURN = r"""
looked_before:
  description: Whether another run has had the lock since O(looked_at), so that the host has to be looked at again.
  returned: with O(state=taken)
  type: bool
"""
