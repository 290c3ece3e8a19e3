#!/usr/bin/env python3
"""Train the two example models on real handwritten digits and export them, ready to be published.

A version that is already there is left alone (`--force` makes it again), so that running this twice costs nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

MIN_ACCURACY = 0.95
MLP_DIRECTORY = "saved"
CUSTOM_DIRECTORY = "saved_with_signature"
SAMPLE_FILES = ("digits.json", "request.json", "request_with_signature.json")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument(
        "--output", type=Path, default=here, metavar="DIR", help="where to write (default: %(default)s)"
    )
    parser.add_argument("--version", type=positive, default=1, metavar="N", help="version to export (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of training (default: 0)")
    parser.add_argument("--force", action="store_true", help="make again what is already there")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def is_complete(version: Path) -> bool:
    return (
        (version / "saved_model.pb").is_file()
        and (version / "variables" / "variables.index").is_file()
        and any((version / "variables").glob("variables.data-*"))
    )


def make_samples(output: Path) -> None:
    import digits

    output.mkdir(parents=True, exist_ok=True)
    _, held_out = digits.load()
    digits.write_samples(held_out, *(output / name for name in SAMPLE_FILES))
    print(f"wrote {', '.join(SAMPLE_FILES)} to {output}")


def make_model(version: Path, seed: int) -> None:
    """Train one model and make the version appear whole, by a rename: a server may be watching the directory."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about the hardware
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same results on more machines
    import models

    recipe = models.CUSTOM if version.parent.name == CUSTOM_DIRECTORY else models.MLP
    model, accuracy = models.train(recipe, seed)
    if accuracy < MIN_ACCURACY:
        sys.exit(
            f"{version}: not exported, the model gets {accuracy:.1%} of the held-out digits right and "
            f"{MIN_ACCURACY:.0%} is asked for; try another --seed"
        )
    version.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=version.parent) as beside:
        exported = Path(beside, "new")
        recipe.export(model, exported)
        if version.exists():
            version.rename(Path(beside, "old"))
        exported.rename(version)
    print(f"exported {version}: {accuracy:.1%} of the held-out digits right")


def main() -> None:
    options = parse_arguments()
    versions = [options.output / name / str(options.version) for name in (MLP_DIRECTORY, CUSTOM_DIRECTORY)]
    wanted = [version for version in versions if options.force or not is_complete(version)]
    samples_wanted = options.force or not all((options.output / name).is_file() for name in SAMPLE_FILES)

    # TensorFlow and scikit-learn take seconds to import: only where there is work.
    if samples_wanted:
        make_samples(options.output)
    for version in wanted:
        make_model(version, options.seed)
    if not samples_wanted and not wanted:
        print(f"nothing to do: {' and '.join(map(str, versions))} are there (--force makes them again)")


if __name__ == "__main__":
    main()
