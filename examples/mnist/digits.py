"""Real handwritten digits in MNIST's format, from the data set that comes with scikit-learn (no download)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

# The split is the same for every model, version and --seed: no version has ever seen the digits it is tested with.
SPLIT_SEED = 0
SAMPLES_PER_CLASS = 4
REQUEST_SIZE = 3


@dataclass(frozen=True)
class Digits:
    """Pixels of shape (n, 28, 28), float32 in 0..1, and the digit that each picture shows."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]


def load() -> tuple[Digits, Digits]:
    """Return the digits to train with and those held out, with every class in both in the same proportion."""
    pixels8, labels = load_digits(return_X_y=True)
    # 8x8 levels of 0..16 become 24x24 of 0..1 inside MNIST's empty border; sixteenths are exact with four decimals.
    blocks = np.kron(pixels8.reshape(-1, 8, 8) / 16, np.ones((3, 3)))
    pixels = np.pad(blocks, ((0, 0), (2, 2), (2, 2))).astype(np.float32)
    train_x, held_x, train_y, held_y = train_test_split(
        pixels, labels, test_size=0.25, random_state=SPLIT_SEED, stratify=labels
    )
    return Digits(train_x, train_y), Digits(held_x, held_y)


def with_moved_copies(digits: Digits) -> Digits:
    """Add every picture moved by one pixel to each side (into the empty border), so that a model learns more of few."""
    moves = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    pixels = np.concatenate([np.roll(digits.pixels, move, axis=(1, 2)) for move in moves])
    return Digits(pixels, np.tile(digits.labels, len(moves)))


def write_samples(held_out: Digits, samples: Path, request: Path, request_with_signature: Path) -> None:
    """Write held-out digits for the clients, and the first of them as bodies ready to post to either model."""
    random = np.random.default_rng(SPLIT_SEED)
    of_each_class = [
        random.choice(np.flatnonzero(held_out.labels == digit), SAMPLES_PER_CLASS, replace=False) for digit in range(10)
    ]
    chosen = random.permutation(np.concatenate(of_each_class))
    pixels = np.round(held_out.pixels[chosen].astype(float), 4)
    pictures = [
        {"label": int(label), "pixels": picture.tolist()}
        for label, picture in zip(held_out.labels[chosen], pixels, strict=True)
    ]
    first = pixels[:REQUEST_SIZE]

    _write_json(samples, {"digits": pictures})
    _write_json(request, {"instances": first.tolist()})
    _write_json(request_with_signature, {"signature_name": "call", "instances": first[..., np.newaxis].tolist()})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(content) + "\n", encoding="utf-8")
    beside.replace(path)
