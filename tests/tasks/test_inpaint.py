import numpy as np
import pytest
import torch
from PIL import Image
from task_cases import box, equal, picture

from dimoo.core.errors import RequestError
from dimoo.core.requests import InpaintRequest
from dimoo.tokenizers.image.resize import to_pixels

REGION = (5, 3, 14, 17)
"""left, top, right, bottom in a picture of 24 x 32: codes (0..2, 0..1) of 3 x 4."""


@pytest.fixture
def original():
    return picture(24, 32)


@pytest.fixture
def mask():
    return box(24, 32, REGION)


def test_pixels_outside_are_kept_and_those_inside_made(model, original, mask):
    before = original.tobytes()
    result = model.inpaint(original, mask, "a red apple", seed=3)
    inside = np.asarray(mask) >= 128
    old, new = np.asarray(original), np.asarray(result)
    assert np.array_equal(old[~inside], new[~inside])
    assert np.mean(np.any(old[inside] != new[inside], axis=-1)) > 0.9
    assert original.tobytes() == before


def test_inside_are_the_pixels_of_the_decoded_answer(model, original, mask):
    request = InpaintRequest(image=original, mask=mask, prompt="a red apple", seed=3)
    *_, last = model.stream([request])
    first = model.config.vocabulary.modality("image").start
    codes = last.canvas.ids[2:-2].view(3, 5)[:, :4] - first
    decoded = model.kit.image_tokenizer.decode(codes[None])[0]
    inside = torch.from_numpy(np.asarray(mask) >= 128)
    result = to_pixels([model.inpaint(original, mask, "a red apple", seed=3)])[0]
    torch.testing.assert_close(result[:, inside], decoded[:, inside], atol=0.5 / 255 + 1e-6, rtol=0)


def test_only_codes_that_the_mask_touches_are_made(model, original, mask):
    stream = model.stream([InpaintRequest(image=original, mask=mask, prompt="a", seed=0)])
    *_, last = stream
    made = torch.zeros(3, 5, dtype=torch.bool)
    made[:3, :2] = True
    vocabulary = model.config.vocabulary
    known = model.kit.encode(original) + vocabulary.modality("image").start
    ids = last.canvas.ids[2:-2].view(3, 5)
    assert torch.equal(ids[:, :4][~made[:, :4]], known[~made[:, :4]])
    assert bool((ids[:, 4] == vocabulary.end_of_line).all())
    assert not torch.equal(ids[made], known[made[:, :4]])
    (start, *_) = model.stream([InpaintRequest(image=original, mask=mask, prompt="a", seed=0)])
    done = int(start.committed.numel())
    assert round(start.share_done * 6) == done  # 6 codes in all


def test_seed_and_prompt_matter_inside_alone(model, original, mask):
    base = model.inpaint(original, mask, "a red apple", seed=0)
    assert equal(base, model.inpaint(original, mask, "a red apple", seed=0))
    assert not equal(base, model.inpaint(original, mask, "a red apple", seed=1))
    assert not equal(base, model.inpaint(original, mask, "two blue cats in a row", seed=0))


def test_a_full_mask_is_generation(model, original):
    full = Image.new("L", original.size, 255)
    made = model.inpaint(original, full, "a red apple", seed=5)
    assert equal(made, model.generate("a red apple", size=(24, 32), seed=5)[0])


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_masks_of_several_modes(model, original, mask, mode):
    assert equal(model.inpaint(original, mask.convert(mode), "a"), model.inpaint(original, mask, "a"))


def test_half_bright_is_inside_and_darker_outside(model, original):
    mask = Image.new("L", original.size, 127)
    mask.putpixel((0, 0), 128)
    result = np.asarray(model.inpaint(original, mask, "a"))
    assert np.array_equal(result.reshape(-1, 3)[1:], np.asarray(original).reshape(-1, 3)[1:])


def test_transparent_pictures_are_laid_on_white(model, mask):
    clear = Image.new("RGBA", (32, 24), (255, 0, 0, 0))
    result = model.inpaint(clear, mask, "a")
    assert result.mode == "RGB"
    assert result.getpixel((31, 23)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("size", "mask", "message"),
    [
        ((24, 32), box(32, 24, (0, 0, 8, 8)), "the mask is 32x24 but the image is 24x32; make the mask as large"),
        ((24, 32), Image.new("L", (32, 24), 0), "the mask selects no pixel; paint"),
        ((24, 30), box(24, 30, (0, 0, 8, 8)), r"\(24, 30\) is not a multiple of 8; the nearest that is: \(24, 32\)"),
        ((4, 4), box(4, 4, (0, 0, 2, 2)), r"\(4, 4\) is not a multiple of 8; the nearest that is: \(8, 8\)"),
    ],
)
def test_bad_requests(model, size, mask, message):
    with pytest.raises(RequestError, match=message):
        model.inpaint(picture(*size), mask, "a")


def test_too_long_a_prompt(model, original, mask):
    with pytest.raises(RequestError, match="more than the 64"):
        model.inpaint(original, mask, "cat " * 100)


def test_image_and_mask_get_the_same_turn(model, original, mask):
    """A photo that is stored lying down: the mask is painted on it as it is stored."""
    stored, painted = original.rotate(90, expand=True), mask.rotate(90, expand=True)
    stored.getexif()[0x0112] = 6  # to be turned a quarter clockwise
    assert stored.size == painted.size == original.size[::-1]
    assert equal(model.inpaint(stored, painted, "a"), model.inpaint(original, mask, "a"))


def test_what_is_transparent_in_a_mask_is_kept(model, original, mask):
    clear = Image.new("RGBA", original.size, (255, 255, 255, 0))
    clear.paste((255, 255, 255, 255), REGION)
    assert equal(model.inpaint(original, clear, "a"), model.inpaint(original, mask, "a"))
