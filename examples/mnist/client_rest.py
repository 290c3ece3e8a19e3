#!/usr/bin/env python3
"""Ask a served example model for handwritten digits over REST. Needs only `requests`."""

from __future__ import annotations

import sys
from typing import Any

import requests
from client_common import TIMEOUT_SECONDS, parse_arguments, print_table, read_digits


def ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """Return the server's JSON answer, or exit with what went wrong."""
    try:
        response = requests.request(method, url, json=body, timeout=TIMEOUT_SECONDS)
    except requests.RequestException as error:
        sys.exit(f"{url} cannot be reached: {error}")
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        sys.exit(f"{url} answered {response.status_code}, and not in JSON: {response.text[:200]!r}")
    if not response.ok:
        sys.exit(f"{url} answered {response.status_code}: {answer.get('error', answer)}")
    return answer


def input_rank(model_url: str, signature: str) -> int:
    """Ask the model how many dimensions its input has: MLP takes (n, 28, 28), MLP_custom (n, 28, 28, 1)."""
    signatures = ask("GET", f"{model_url}/metadata")["metadata"]["signature_def"]["signature_def"]
    if signature not in signatures:
        sys.exit(f"{model_url} has no signature {signature!r}; it has: {', '.join(sorted(signatures))}")
    (model_input,) = signatures[signature]["inputs"].values()
    return len(model_input["tensor_shape"]["dim"])


def main() -> None:
    options = parse_arguments(__doc__, port=8501)
    digits = read_digits(options.digits, options.count)
    model_url = f"http://{options.host}:{options.port}/v1/models/{options.model}"

    instances: list[Any] = [digit.pixels for digit in digits]
    if input_rank(model_url, options.signature) == 4:
        instances = [[[[pixel] for pixel in row] for row in picture] for picture in instances]
    answer = ask("POST", f"{model_url}:predict", {"signature_name": options.signature, "instances": instances})
    print_table(digits, answer["predictions"])


if __name__ == "__main__":
    main()
