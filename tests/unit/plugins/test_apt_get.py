"""What apt complains of is told once, with the reason why a download failed in front."""

from __future__ import annotations

import pytest

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._apt.apt_get import complaints

FETCHED = "Get:1 http://a.example.com stable InRelease [1290 B]\nReading package lists...\n"
REFUSED = (
    "Err:2 http://a.example.com stable InRelease\n"
    "  The following signatures were invalid: EXPKEYSIG 544B7F63BF9E4D5F Owner\n"
)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("", ""),
        (FETCHED, ""),
        (f"{FETCHED}E: Unable to locate package x\n", "E: Unable to locate package x"),
        ("W: one\nE: two\nN: a notice\nW: one\nEE: x\n \n", "W: one E: two"),
        ("E: one\r\n\nE: one\n", "E: one"),
        (
            f"{FETCHED}{REFUSED}{REFUSED}Reading package lists...\nE: The repository is not signed.\n",
            "The following signatures were invalid: EXPKEYSIG 544B7F63BF9E4D5F Owner. E: The repository is not signed.",
        ),
    ],
)
def test_complaints_are_told_once(output: str, told: str) -> None:
    assert complaints(output) == told
