"""What both clients share: their options, the digits they send and the table they print."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Digit:
    label: int
    pixels: list[list[float]]


def parse_arguments(description: str | None, port: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="localhost", help="host to ask (default: %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="port to ask (default: %(default)s)")
    parser.add_argument("--model", default="MLP", help="name of the served model (default: %(default)s)")
    parser.add_argument(
        "--signature", default="serving_default", help="signature to call, `call` for MLP_custom (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=10, help="number of digits to send (default: %(default)s)")
    parser.add_argument(
        "--digits",
        type=Path,
        default=Path(__file__).resolve().parent / "digits.json",
        help="file that train.py wrote (default: %(default)s)",
    )
    options = parser.parse_args()
    if options.count < 1:
        parser.error("--count must be at least 1")
    return options


def read_digits(path: Path, count: int) -> list[Digit]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"{path} is missing: run train.py first, or name the file with --digits")
    return [Digit(**digit) for digit in content["digits"][:count]]


def print_table(digits: Sequence[Digit], predictions: Sequence[Sequence[float]]) -> None:
    """Print one line a digit; a prediction holds the probability of each of the ten classes."""
    print("label  predicted  probability")
    right = 0
    for digit, probabilities in zip(digits, predictions, strict=True):
        predicted = max(range(len(probabilities)), key=probabilities.__getitem__)
        right += predicted == digit.label
        print(f"{digit.label:>5}  {predicted:>9}  {probabilities[predicted]:>11.4f}")
    print(f"{right} of {len(digits)} right")
