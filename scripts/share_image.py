"""Draws _static/share.png, the picture that a link to the book is shown with: python scripts/share_image.py

The title beside the landing page's figure, 1200 x 630 pixels with a palette, as small as that makes it.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

STATIC = Path(__file__).parents[1] / "_static"
WIDTH, HEIGHT = 1200, 630
BLUE, GREY = "#105bc7", "#48566b"


def draw(path):
    """Writes the picture to `path`. Raises FileNotFoundError where the landing page's figure is missing."""
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    figure.add_artist(plt.Rectangle((0, 0), 0.012, 1, color=BLUE))
    figure.text(0.05, 0.87, "Offline RL\nin Notebooks", size=42, weight="bold", va="top")
    words = "Learn to act from data\nthat already exists.\n\nEvery method derived,\nwritten in full view,\nand tested."
    figure.text(0.05, 0.53, words, size=21, color=GREY, va="top", linespacing=1.35)
    axes = figure.add_axes((0.4, 0.12, 0.58, 0.76))
    axes.imshow(plt.imread(STATIC / "first_look.png"), interpolation="antialiased")
    axes.axis("off")
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    plt.close(figure)
    image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    draw(STATIC / "share.png")
