# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: nginx_word
short_description: Write a text as one word of nginx's configuration
version_added: 0.2.0
description:
  - Returns the text as it is, or in quotes and with backslashes where nginx needs them. Nothing in it ends the word or
    its directive, or starts a comment, a block or a variable.
  - Refuses what cannot be said so, control characters and dollar signs.
positional: pattern
options:
  _input:
    description: The text.
    type: str
    required: true
  pattern:
    description: Whether it is a regular expression, in which a dollar sign is no variable.
    type: bool
    default: false
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
line: "ssl_certificate {{ path | modelops.tensorflow_serving.nginx_word }};"
"""

RETURN = r"""
_value:
  description: The word.
  type: str
  sample: '"/etc/ssl/my \"own\".pem"'
"""

import re
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import control_characters

_BARE = re.compile(r"[A-Za-z0-9._:/@=-]+")


def nginx_word(text: str, pattern: bool = False) -> str:
    """Return what DOCUMENTATION describes. Raises AnsibleFilterError.

    Source: ngx_conf_read_token() in nginx's src/core/ngx_conf_file.c. Between double quotes it knows the backslash
    before itself and a quote, and no way to write a dollar sign that starts no variable.
    """
    for problem in control_characters("A value of nginx's configuration", text):
        raise AnsibleFilterError(problem)
    if "$" in text and not pattern:
        raise AnsibleFilterError(f"{text!r} has a dollar sign, which would start a variable of nginx")
    return text if _BARE.fullmatch(text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"nginx_word": nginx_word}
