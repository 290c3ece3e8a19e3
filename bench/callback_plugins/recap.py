"""Writes the counts of the recap as JSON, by host, to the file in the environment variable TFSERVING_BENCH_RECAP."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recap
type: aggregate
short_description: Writes the counts of the recap as JSON
description: To the file that the environment variable TFSERVING_BENCH_RECAP names.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recap"

    def v2_playbook_on_stats(self, stats: Any) -> None:
        counts = {host: stats.summarize(host) for host in stats.processed}
        Path(os.environ["TFSERVING_BENCH_RECAP"]).write_text(json.dumps(counts))
