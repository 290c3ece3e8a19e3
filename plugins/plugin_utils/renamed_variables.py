# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables that have another name now, or none."""

from __future__ import annotations

RENAMED: dict[str, str] = {}
"""Old name: what to write now."""
