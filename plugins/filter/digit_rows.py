# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: digit_rows
short_description: Put class probabilities beside the true labels
version_added: 0.1.0
description:
  - Returns one row for each instance with its true label, the predicted label (the class of the highest probability)
    and that probability.
options:
  _input:
    description: For each instance its class probabilities.
    type: list
    elements: list
    required: true
  labels:
    description: For each instance its true class, an index into the probabilities.
    type: list
    elements: int
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
rows: "{{ [[0.1, 0.9], [0.7, 0.3]] | modelops.tensorflow_serving.digit_rows([1, 1]) }}"
"""

RETURN = r"""
_value:
  description: The rows.
  type: list
  elements: dict
  sample: [{"label": 1, "predicted": 1, "probability": "0.9000", "right": true}]
"""

from typing import Any, Callable


def digit_rows(predictions: list[list[float]], labels: list[int]) -> list[dict[str, Any]]:
    """Return the rows that DOCUMENTATION describes. Raises ValueError when the lengths differ."""
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels")
    rows = []
    for label, probabilities in zip(labels, predictions):
        best = max(probabilities)
        predicted = probabilities.index(best)
        rows.append({"label": label, "predicted": predicted, "probability": f"{best:.4f}", "right": predicted == label})
    return rows


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"digit_rows": digit_rows}
