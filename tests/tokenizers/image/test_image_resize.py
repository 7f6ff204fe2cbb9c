from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dimoo.core.errors import RequestError
from dimoo.core.pictures import as_rgb
from dimoo.core.rng import generator
from dimoo.tokenizers.image.resize import bucket_for, buckets, cover_crop, to_images, to_pixels


def test_bucket_counts_of_the_release() -> None:
    assert len(buckets(512)) == 49
    assert len(buckets(1024)) == 97


@given(st.integers(1, 16), st.sampled_from([8, 16, 32]))
@settings(max_examples=30, deadline=None)
def test_buckets_are_near_the_target_area(side: int, unit: int) -> None:
    sizes = buckets(side * unit, unit=unit)
    assert len(set(sizes)) == len(sizes)
    assert (side * unit, side * unit) in sizes
    assert {(width, height) for height, width in sizes} == set(sizes)
    for height, width in sizes:
        assert height % unit == width % unit == 0
        assert max(height, width) <= 4 * min(height, width)
        assert height * width <= (side * unit) ** 2
        # maximal: one unit more on the shorter way would not fit
        assert (height + unit) * (width + unit) > (side * unit) ** 2


def test_max_aspect_limits() -> None:
    assert set(buckets(256, max_aspect=1)) == {(side, side) for side, other in buckets(256) if side == other}
    with pytest.raises(RequestError, match="multiple of the unit 32"):
        buckets(500)


def test_bucket_for() -> None:
    sizes = buckets(512)
    assert bucket_for((512, 512), sizes) == (512, 512)
    assert bucket_for((1024, 1024), sizes) == (512, 512)  # of 512 and smaller squares: the larger
    assert bucket_for((10, 1000), sizes) == max(sizes, key=lambda size: size[1] / size[0])
    assert bucket_for((300, 400), [(64, 64), (96, 128), (128, 96)]) == (96, 128)
    # a square picture fits 1:2 and 2:1 equally well: the larger width wins; then the larger height
    assert bucket_for((70, 70), [(64, 32), (32, 64)]) == (32, 64)
    assert bucket_for((300, 300), [(96, 96), (160, 160), (128, 128)]) == (160, 160)
    assert bucket_for((50, 100), [(100, 100), (25, 100)]) == (100, 100)  # ratios tie at 1/2, widths tie
    with pytest.raises(RequestError, match="0 sizes"):
        bucket_for((8, 8), [])
    with pytest.raises(RequestError, match=r"\(0, 8\)"):
        bucket_for((0, 8), sizes)


def _stripes(height: int, width: int) -> Image.Image:
    """Red in the left third, green in the middle, blue on the right."""
    array = np.zeros((height, width, 3), dtype=np.uint8)
    for stripe in range(3):
        array[:, stripe * width // 3 : (stripe + 1) * width // 3, stripe] = 255
    return Image.fromarray(array)


@given(st.integers(4, 60), st.integers(4, 60), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_cover_crop_gives_the_size(height: int, width: int, down: int, across: int) -> None:
    assert cover_crop(_stripes(height, width), (down, across)).size == (across, down)


def test_cover_crop_keeps_the_anchor() -> None:
    image = _stripes(20, 60)
    for anchor, colour in ((0.0, (255, 0, 0)), (0.5, (0, 255, 0)), (1.0, (0, 0, 255))):
        cropped = cover_crop(image, (20, 20), anchor=(0.5, anchor))
        assert cropped.getpixel((10, 10)) == colour
    same = cover_crop(image, (20, 60))
    assert np.array_equal(np.asarray(same), np.asarray(image))
    with pytest.raises(RequestError, match="anchors in"):
        cover_crop(image, (8, 8), anchor=(0.5, 1.5))
    with pytest.raises(RequestError, match="sizes are positive"):
        cover_crop(image, (0, 8))


def test_cover_crop_does_not_distort() -> None:
    array = np.zeros((60, 120, 3), dtype=np.uint8)
    array[20:40, 50:70] = 255
    halved = np.asarray(cover_crop(Image.fromarray(array), (30, 30)))[..., 0] > 127
    assert halved.any(axis=0).sum() == halved.any(axis=1).sum() == 10


def test_pixels_round_trip() -> None:
    array = torch.randint(0, 256, (5, 7, 3), generator=generator(0), dtype=torch.uint8).numpy()
    images = [Image.fromarray(array), _stripes(5, 7)]
    pixels = to_pixels(images)
    assert pixels.shape == (2, 3, 5, 7)
    assert pixels[0, 2, 1, 3].item() == pytest.approx(int(array[1, 3, 2]) / 255)
    for before, after in zip(images, to_images(pixels), strict=True):
        assert np.array_equal(np.asarray(before), np.asarray(after))
    assert to_images(torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 128, 255)


def test_pixels_of_unlike_pictures_are_refused() -> None:
    with pytest.raises(RequestError, match=r"\(5, 7\), \(7, 5\)"):
        to_pixels([_stripes(5, 7), _stripes(7, 5)])
    with pytest.raises(RequestError, match="one size"):
        to_pixels([])
    with pytest.raises(RequestError, match="B, 3, H, W"):
        to_images(torch.zeros(3, 4, 4))


def test_as_rgb() -> None:
    assert as_rgb(Image.new("L", (2, 2), 7)).getpixel((0, 0)) == (7, 7, 7)
    assert as_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 255))).getpixel((0, 0)) == (255, 0, 0)
    sideways = _stripes(6, 9)
    sideways.getexif()[0x0112] = 6  # to be turned by a quarter
    assert as_rgb(sideways).size == (6, 9)
    assert sideways.size == (9, 6)
