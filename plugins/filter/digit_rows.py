# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: digit_rows
short_description: Put what models predicted beside the true labels
version_added: 0.1.0
description:
  - Returns one row for each model and digit with the true label, the predicted label (the class of the highest
    probability) and that probability.
options:
  _input:
    description: Results of M(modelops.tensorflow_serving.predict), each with class probabilities for every digit. The
      model is the C(name) of the loop's item.
    type: list
    elements: dict
    required: true
  labels:
    description: The true class of each digit, an index into the probabilities.
    type: list
    elements: int
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
rows: "{{ predictions.results | modelops.tensorflow_serving.digit_rows([7, 2]) }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
  elements: dict
  sample:
    - {model: MLP, version: 1, digit: 1, label: 7, predicted: 7, probability: "0.9987", right: true}
"""

from typing import Any, Callable


def digit_rows(results: list[dict[str, Any]], labels: list[int]) -> list[dict[str, Any]]:
    """Return the rows that DOCUMENTATION describes. Raises ValueError when an answer lacks digits."""
    rows = []
    for result in results:
        if len(result["predictions"]) != len(labels):
            raise ValueError(f"{len(result['predictions'])} predictions for {len(labels)} labels")
        for digit, (label, probabilities) in enumerate(zip(labels, result["predictions"]), start=1):
            best = max(probabilities)
            predicted = probabilities.index(best)
            rows.append(
                {
                    "model": result["item"]["name"],
                    "version": result["version"],
                    "digit": digit,
                    "label": label,
                    "predicted": predicted,
                    "probability": f"{best:.4f}",
                    "right": predicted == label,
                }
            )
    return rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"digit_rows": digit_rows}
