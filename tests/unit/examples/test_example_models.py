"""What train.py exports is what TensorFlow Serving needs, and what the documentation promises."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Callable

import numpy as np
import pytest

Run = Callable[..., subprocess.CompletedProcess]
Load = Callable[[str], ModuleType]

MODELS = [
    pytest.param("saved", "serving_default", (28, 28), id="MLP"),
    pytest.param("saved_with_signature", "call", (28, 28, 1), id="MLP_custom"),
]


def predict_as_served(directory: Path, signature_name: str, pictures: np.ndarray) -> np.ndarray:
    """Predict as the server does: a session, the restore operation and the signature's tensor names.

    tf.saved_model.load rebuilds the objects by another way and predicts well with models that fail when served.
    """
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(directory)).signature_def
        (model_input,) = signatures[signature_name].inputs.values()
        (model_output,) = signatures[signature_name].outputs.values()
        return session.run(model_output.name, {model_input.name: pictures})


@pytest.mark.parametrize(("directory", "signature_name", "shape"), MODELS)
def test_signature_has_the_documented_name_shape_and_type(
    trained: Path, directory: str, signature_name: str, shape: tuple[int, ...]
) -> None:
    import tensorflow as tf

    signature = tf.saved_model.load(str(trained / directory / "1")).signatures[signature_name]
    (model_input,) = signature.structured_input_signature[1].values()
    (model_output,) = signature.structured_outputs.values()
    assert (model_input.shape.as_list(), model_input.dtype) == ([None, *shape], tf.float32)
    assert (model_output.shape.as_list(), model_output.dtype) == ([None, 10], tf.float32)


@pytest.mark.parametrize(("directory", "signature_name", "shape"), MODELS)
def test_model_as_served_recognizes_held_out_digits(
    trained: Path, load_example: Load, directory: str, signature_name: str, shape: tuple[int, ...]
) -> None:
    _, held_out = load_example("digits").load()
    probabilities = predict_as_served(trained / directory / "1", signature_name, held_out.pixels.reshape(-1, *shape))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.mean(probabilities.argmax(axis=1) == held_out.labels) >= 0.95


@pytest.mark.parametrize(("directory", "signature_name", "shape"), MODELS)
def test_model_as_served_recognizes_the_sample_digits(
    trained: Path, directory: str, signature_name: str, shape: tuple[int, ...]
) -> None:
    samples = json.loads((trained / "digits.json").read_text())["digits"]
    pictures = np.array([sample["pixels"] for sample in samples], dtype=np.float32).reshape(-1, *shape)
    probabilities = predict_as_served(trained / directory / "1", signature_name, pictures)
    assert np.mean(probabilities.argmax(axis=1) == [sample["label"] for sample in samples]) >= 0.95


def test_tf_saved_model_save_makes_a_model_that_cannot_predict(tmp_path: Path, load_example: Load) -> None:
    """The reason for the other ways of exporting; should this ever pass, the example's warnings are out of date."""
    import tensorflow as tf

    tf.saved_model.save(load_example("models").build_mlp(), str(tmp_path))
    picture = np.zeros((1, 28, 28), dtype=np.float32)
    with pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"):
        predict_as_served(tmp_path, "serving_default", picture)


def test_sample_digits_are_held_out_and_show_every_class(trained: Path, load_example: Load) -> None:
    training, held_out = load_example("digits").load()
    samples = json.loads((trained / "digits.json").read_text())["digits"]
    assert sorted(sample["label"] for sample in samples) == sorted(list(range(10)) * 4)
    known = {picture.tobytes(): label for picture, label in zip(held_out.pixels, held_out.labels)}
    for sample in samples:
        picture = np.array(sample["pixels"], dtype=np.float32)
        assert picture.shape == (28, 28)
        assert known[picture.tobytes()] == sample["label"]
    assert known.keys().isdisjoint(picture.tobytes() for picture in training.pixels)


def test_request_bodies_hold_the_first_sample_digits(trained: Path) -> None:
    samples = json.loads((trained / "digits.json").read_text())["digits"]
    request = json.loads((trained / "request.json").read_text())
    with_signature = json.loads((trained / "request_with_signature.json").read_text())
    assert request == {"instances": [sample["pixels"] for sample in samples[:3]]}
    assert with_signature["signature_name"] == "call"
    assert np.array(with_signature["instances"]).shape == (3, 28, 28, 1)
    assert np.array_equal(np.squeeze(with_signature["instances"], axis=-1), request["instances"])


def test_second_run_changes_nothing_and_imports_nothing_heavy(trained: Path, tmp_path: Path, run_script: Run) -> None:
    for heavy in ("tensorflow", "keras", "sklearn", "numpy"):
        (tmp_path / f"{heavy}.py").write_text(f"raise SystemExit('{heavy} was imported')")
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    result = run_script("train.py", "--output", trained, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("nothing to do: ")
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_second_version_comes_beside_the_first(trained: Path, tmp_path: Path, run_script: Run) -> None:
    """One run, to save time: a half version is made whole, a whole one left alone, and a seed repeats itself."""
    output = tmp_path / "output"
    shutil.copytree(trained / "saved", output / "saved")
    half = output / "saved" / "2"
    half.mkdir()
    shutil.copy(trained / "saved" / "1" / "saved_model.pb", half)
    whole = output / "saved_with_signature" / "2"
    shutil.copytree(trained / "saved_with_signature" / "1", whole)
    before = (whole / "saved_model.pb").stat().st_ino

    result = run_script("train.py", "--output", output, "--version", 2)

    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (output / "saved").iterdir()) == ["1", "2"]
    assert (whole / "saved_model.pb").stat().st_ino == before
    assert (output / "digits.json").read_bytes() == (trained / "digits.json").read_bytes()
    pictures = np.random.default_rng(1).random((5, 28, 28), dtype=np.float32)
    first, second = (predict_as_served(output / "saved" / number, "serving_default", pictures) for number in "12")
    np.testing.assert_allclose(first, second, atol=1e-4)


def fake_models(monkeypatch: pytest.MonkeyPatch, accuracy: float, export: Callable[[object, Path], None]) -> None:
    recipe = SimpleNamespace(export=export)
    models = SimpleNamespace(MLP=recipe, CUSTOM=recipe, train=lambda recipe, seed: (None, accuracy))
    monkeypatch.setitem(sys.modules, "models", models)


def test_model_that_errs_too_often_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_example: Load
) -> None:
    fake_models(monkeypatch, accuracy=0.949, export=lambda model, directory: directory.mkdir())
    with pytest.raises(SystemExit, match="94.9% of the held-out digits"):
        load_example("train").make_model(tmp_path / "saved" / "1", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_version_appears_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_example: Load
) -> None:
    version = tmp_path / "saved" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_text("former")

    def half_export(model: object, directory: Path) -> None:
        directory.mkdir()
        (directory / "saved_model.pb").write_text("half")
        raise OSError("No space left on device")

    fake_models(monkeypatch, accuracy=1, export=half_export)
    with pytest.raises(OSError, match="No space left"):
        load_example("train").make_model(version, seed=0)
    assert [path.name for path in version.parent.iterdir()] == ["1"]
    assert (version / "saved_model.pb").read_text() == "former"
