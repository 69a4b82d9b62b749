"""Pictures of confusion matrices."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from control_plane.confusion_picture import confusion_png, row_shares


def pixels(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def commonest(png: bytes, count: int) -> set[tuple[int, int, int]]:
    """The colours of most pixels."""
    picture = np.asarray(pixels(png)).reshape(-1, 3)
    return {color for color, _ in Counter(map(tuple, picture.tolist())).most_common(count)}


@pytest.mark.parametrize("classes", [1, 2, 10, 100, 250])
def test_any_number_of_classes_gives_a_picture_of_sensible_size(classes: int) -> None:
    counts = np.diag(np.arange(1, classes + 1)).ravel().tolist()
    picture = pixels(confusion_png("a title", [f"class {number}" for number in range(classes)], counts))
    assert 300 < picture.width < 2200
    assert 300 < picture.height < 2200


def test_the_same_matrix_gives_the_same_bytes() -> None:
    assert confusion_png("t", ["a", "b"], [1, 2, 3, 4]) == confusion_png("t", ["a", "b"], [1, 2, 3, 4])
    assert confusion_png("t", ["a", "b"], [1, 2, 3, 4]) != confusion_png("t", ["a", "b"], [1, 2, 3, 5])


def test_colours_tell_the_part_of_the_true_class() -> None:
    """White, and one for each of 0, 1/4, 3/4 and 1; whatever the rows' sums."""
    few = confusion_png("t", ["a", "b"], [1, 3, 0, 5])
    many = confusion_png("t", ["a", "b"], [100, 300, 0, 7])
    assert commonest(few, 5) == commonest(many, 5)
    assert commonest(few, 5) != commonest(confusion_png("t", ["a", "b"], [2, 2, 0, 5]), 5)


def test_a_class_without_records_has_no_colour() -> None:
    assert row_shares(np.array([[0, 0], [1, 3]])).tolist() == [[0, 0], [0.25, 0.75]]


def test_labels_are_taken_as_they_are() -> None:
    labels = ["$x^{$", "a\nb", "_" * 500, "\\frac"]
    assert pixels(confusion_png("100 % of $", labels, list(range(16)))).width < 1000


def test_a_users_own_settings_of_matplotlib_change_nothing(tmp_path: Path) -> None:
    program = "import sys; from control_plane.confusion_picture import confusion_png;"
    draw = "sys.stdout.buffer.write(confusion_png('t', ['a', 'b'], [1, 2, 3, 4]))"
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\n")
    run = [sys.executable, "-c", program + draw]
    found = subprocess.run(run, env={"MPLCONFIGDIR": str(tmp_path)}, capture_output=True, check=True)
    assert found.stdout == confusion_png("t", ["a", "b"], [1, 2, 3, 4])


def test_the_control_plane_starts_without_matplotlib_and_draws_without_pyplot() -> None:
    program = """
import sys
import control_plane.__main__
assert not [name for name in sys.modules if name.startswith("matplotlib")]
from control_plane.confusion_picture import confusion_png
confusion_png("t", ["a"], [1])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
