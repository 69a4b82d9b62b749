"""Pictures in the terminal: every pixel where it belongs, in colour and in grey."""

import io

import numpy as np
import pytest
from rich.console import Console

from cli.pictures import is_picture, print_pictures


def _printed(*pictures: np.ndarray, color: bool = False, width: int = 80) -> str:
    file = io.StringIO()
    system = "truecolor" if color else None
    console = Console(file=file, force_terminal=color, color_system=system, width=width)  # type: ignore[arg-type]
    print_pictures(console, list(pictures), [f"picture {number}" for number in range(len(pictures))])
    return file.getvalue()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), True), ((28, 28, 1), True), ((32, 32, 3), True), ((8,), False), ((2, 30), False), ((28, 28, 4), False),
        ((3, 28, 28), False), ((), False),
    ],
)  # fmt: skip
def test_which_shapes_are_pictures(shape: tuple[int, ...], expected: bool) -> None:
    assert is_picture(shape) is expected


def test_greys_go_from_dark_to_light() -> None:
    picture = np.zeros((4, 5), np.uint8)
    picture[1] = [0, 4, 8, 12, 16]
    lines = _printed(picture).splitlines()
    assert lines[0].startswith("picture 0")
    assert lines[2].startswith("  ░░▒▒▓▓██")
    assert lines[3].strip() == ""


def test_colours_are_two_pixels_to_a_character() -> None:
    picture = np.zeros((4, 4, 3))
    picture[0, 0], picture[1, 0] = (1, 0, 0), (0, 0, 1)
    printed = _printed(picture, color=True)
    assert "\x1b[38;2;255;0;0;48;2;0;0;255m▀" in printed
    assert printed.count("▀") == 8


def test_pictures_stand_side_by_side_as_far_as_there_is_room() -> None:
    pictures = [np.eye(8)] * 5
    lines = _printed(*pictures, width=60).splitlines()
    assert "picture 0" in lines[0]
    assert "picture 2" in lines[0]
    assert "picture 3" not in lines[0]
    assert any("picture 3" in line and "picture 4" in line for line in lines[1:])


def test_large_pictures_shrink_and_odd_numbers_do_no_harm() -> None:
    picture = np.full((600, 301), np.nan)
    picture[:, 0] = 1
    assert max(map(len, _printed(picture, color=False).splitlines())) <= 96
    assert _printed(np.full((5, 5), np.inf), color=True).count("▀") == 15
