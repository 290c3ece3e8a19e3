# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """Options that say which package a host should have."""

    DOCUMENTATION = r"""
options:
  directory:
    description: Directory on the host, of root's own, that holds the previous package while a change is not over.
    type: path
    required: true
  variant:
    description: Which build. V(auto) is V(optimized) where the CPU has SSE4.1, SSE4.2, AVX, AVX2 and FMA, else
      V(universal).
    type: str
    choices: [auto, optimized, universal]
    default: auto
  version:
    description: An exact version, or one with V(*) for any text, such as V(2.19.*), which is satisfied by what is
      installed when it fits. Empty for whatever is installed, and else the newest.
    type: str
    default: ""
  deb_sha256:
    description: SHA256 of the C(.deb) that should be installed, for one that is given and does not come from apt.
    type: str
"""
