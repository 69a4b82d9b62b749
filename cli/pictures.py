"""Small pictures in the terminal: two pixels to a character in colour, greys of characters elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cli.files import Array

MIN_SIDE, MAX_SIDE = 4, 48
GREYS = " ░▒▓█"
_GAP = 2


def is_picture(shape: Sequence[int]) -> bool:
    """Whether values of this shape are pixels: (h, w), (h, w, 1) or (h, w, 3)."""
    return len(shape) in (2, 3) and min(shape[:2]) >= MIN_SIDE and tuple(shape[2:]) in ((), (1,), (3,))


def print_pictures(console: Console, pictures: Sequence[Array], captions: Sequence[str]) -> None:
    """Side by side, as many as there is room for. All have one shape, and one scale from dark to light."""
    scaled = _scaled(np.stack([_shrunk(picture) for picture in pictures]))
    in_colour = console.color_system is not None
    drawn = [_half_blocks(each) if in_colour else _grey_characters(each) for each in scaled]
    width = max(max(map(len, captions)), drawn[0].plain.index("\n")) + _GAP
    for start in range(0, len(drawn), max(1, console.width // width)):
        line = slice(start, start + max(1, console.width // width))
        grid = Table.grid(padding=(0, _GAP, 1, 0))
        cells = zip(captions[line], drawn[line], strict=True)
        grid.add_row(*[Group(Text(caption, style="bold"), picture) for caption, picture in cells])
        console.print(grid)


def _shrunk(picture: Array) -> Array:
    """`(h, w, 3)` with sides of at most MAX_SIDE."""
    pixels = picture.reshape(*picture.shape[:2], -1).astype(np.float64)
    step = -(-max(pixels.shape[:2]) // MAX_SIDE)
    return np.broadcast_to(pixels[::step, ::step], (*pixels[::step, ::step].shape[:2], 3))


def _scaled(pixels: Array) -> Array:
    """The least value black, the greatest white, as uint8; what is not finite is 0."""
    pixels = np.where(np.isfinite(pixels), pixels, 0)
    low, high = pixels.min(), pixels.max()
    scaled: Array = ((pixels - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    return scaled


def _half_blocks(pixels: Array) -> Text:
    """Each character has one pixel above another: its own colour, and that behind it."""
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    text = Text(no_wrap=True)
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style.parse(f"rgb({_rgb(above)}) on rgb({_rgb(below)})"))
        text.append("\n")
    return text


def _rgb(pixel: Sequence[int]) -> str:
    return ",".join(map(str, pixel))


def _grey_characters(pixels: Array) -> Text:
    """Two characters to a pixel, since they are about twice as high as wide."""
    levels = pixels.mean(axis=2) * (len(GREYS) - 1) / 255
    lines = ["".join(GREYS[round(level)] * 2 for level in row) for row in levels.tolist()]
    return Text("\n".join(lines) + "\n", no_wrap=True)
