"""From the bytes of any photo to the pixels the network sees. Training and serving use this one function.

`decode` sniffs the format by its magic bytes, checks the pixel count before any pixel is decoded, brings every colour
mode to RGB with transparency on white, applies the EXIF orientation, resizes and pads to a square with white. Of
animated and multi-page files it takes the first frame.

Colours are the stored values: no ICC profile is applied, so a wide-gamut photo comes out a little duller than meant and
CMYK as plain mixture of inks. An orientation that stands only in XMP is ignored, as browsers do.

The decoder and the resizer are part of the model: a change of the pixels is a change of `InputSpec.version`.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from tagger.errors import ImageError
from tagger.source.formats import failure, not_a_photo, open_photo, orientation_of, sniff

MAX_PIXELS = 8192 * 8192
"""Photos above this many pixels are refused from their header (`too_many_pixels`): 64 megapixels, the most that product
feeds take. One decode takes 1 to 6 bytes of memory per declared pixel, AVIF 9, WebP 16; JPEG is scaled while decoding
and takes a tenth of a byte, or 6 bytes where it is progressive."""

MAX_BYTES_AT_ONCE = 500_000_000
"""Memory of all decodes that run at the same time; one that alone needs more waits until it is alone."""

_BYTES_PER_PIXEL = {"AVIF": 9.0, "WEBP": 16.0, "JPEG": 0.1}
_BYTES_PER_PIXEL_OF_OTHERS = 6.0  # also of a progressive JPEG

_STRIP_PIXELS = 1 << 21  # larger images are brought to RGB in strips of this many pixels


class Decoded(NamedTuple):
    """One photo, ready for the network."""

    pixels: npt.NDArray[np.uint8]  # (size, size, 3), RGB
    width: int  # of the photo in pixels, after EXIF orientation
    height: int


def decode(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> Decoded:
    """The photo in `data` as RGB pixels of `size` × `size`, padded with white to a square, never cropped or squashed.

    Safe in several threads at once.

    Args:
        data: the file's bytes, of any supported format whatever its name says.
        size: side of the square in pixels.
        max_pixels: photos that declare more are refused before any pixel is decoded.

    Raises:
        ImageError: `not_an_image`, `unsupported_format`, `missing_codec`, `too_many_pixels`, `truncated` or `corrupt`.
    """
    image_format = sniff(data)
    if image_format is None:
        raise not_a_photo(data)
    try:
        return _decode(data, image_format, size, max_pixels)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise a dozen unrelated types on damaged files
        raise failure(error, data, image_format) from None


def _decode(data: bytes, image_format: str, size: int, max_pixels: int) -> Decoded:
    image, data, exif = open_photo(data, image_format, max_pixels)
    per_pixel = _BYTES_PER_PIXEL.get(image_format, _BYTES_PER_PIXEL_OF_OTHERS)
    if image.info.get("progressive"):
        per_pixel = _BYTES_PER_PIXEL_OF_OTHERS
    with _memory.taken(int(image.width * image.height * per_pixel)):
        return _decode_opened(image, data, exif, image_format, size)


def _decode_opened(image: ImageFile.ImageFile, data: bytes, exif: bytes, image_format: str, size: int) -> Decoded:
    width, height = image.size
    if image_format == "JPEG":
        image.draft(None, _draft_size(width, height, size))
    image.load()
    fitted = _fitted_size(*image.size, size)
    rgb = _to_rgb(_mended(image, data), fitted)
    if isinstance(image, GifImageFile):
        rgb = _white_around_frame(rgb, image)
    orientation = orientation_of(exif or image.info.get("exif") or b"")
    if orientation in _TRANSPOSES:
        rgb = rgb.transpose(_TRANSPOSES[orientation])
    if orientation >= 5:
        width, height, fitted = height, width, (fitted[1], fitted[0])
    return Decoded(np.asarray(_pad_to_square(rgb, fitted, size)), width, height)


class _Memory:
    """Bytes that several threads share; who wants more than is left waits for the others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Hold `wanted` bytes, at most all of them, while the block runs."""
        held = min(wanted, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._used + held <= self._most)
            self._used += held
        try:
            yield
        finally:
            with self._changed:
                self._used -= held
                self._changed.notify_all()


_memory = _Memory(MAX_BYTES_AT_ONCE)


def _pad_to_square(image: Image.Image, fitted: tuple[int, int], size: int) -> Image.Image:
    """An RGB image scaled to the size `fitted` and centred on white; resized with antialiased bicubic."""
    if image.size != fitted:
        image = image.resize(fitted, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if fitted == (size, size):
        return image
    square = Image.new("RGB", (size, size), (255, 255, 255))
    square.paste(image, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
    return square


def _fitted_size(width: int, height: int, size: int) -> tuple[int, int]:
    scale = size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _draft_size(width: int, height: int, size: int) -> tuple[int, int]:
    """The least size the DCT may scale to: never below the target, so that the resize still shrinks."""
    scale = size / max(width, height)
    return max(1, int(width * scale)), max(1, int(height * scale))


# From any colour mode to RGB.

_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _mended(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """The image as its format means it, where Pillow reads it otherwise."""
    if isinstance(image, JpegImageFile) and image.mode == "CMYK" and "adobe" not in image.info:
        return ImageChops.invert(image)  # only Adobe stores CMYK inverted; Pillow takes every file for Adobe's
    if isinstance(image, PngImageFile) and "transparency" in image.info:  # Pillow scales the pixels, but not this
        transparent, bits = image.info["transparency"], data[24]
        if image.mode == "RGB" and bits == 16:
            image.info["transparency"] = tuple(sample >> 8 for sample in transparent)
        elif image.mode == "L":
            image.info["transparency"] = min(255, transparent * 255 // (2**bits - 1))
    if isinstance(image, BmpImageFile) and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image.putalpha(255)  # writers that leave the fourth byte zero mean no transparency
    return image


def _white_around_frame(rgb: Image.Image, image: GifImageFile) -> Image.Image:
    """White where the first frame of a GIF leaves its canvas empty; Pillow fills that with the first colour."""
    across, down = rgb.width / image.width, rgb.height / image.height
    frame: tuple[int, ...] = image.dispose_extent or (0, 0, *image.size)
    left, top, right, bottom = (side * scale for side, scale in zip(frame, (across, down, across, down), strict=True))
    box = round(left), round(top), round(right), round(bottom)
    canvas = Image.new("RGB", rgb.size, (255, 255, 255))
    canvas.paste(rgb.crop(box), box)
    return canvas


def _to_rgb(image: Image.Image, fitted: tuple[int, int]) -> Image.Image:
    """RGB with transparency on white. A large image is converted in strips, which bound the memory above the image
    itself, and comes out reduced by whole factors to no less than three times `fitted`."""
    width, height = image.size
    white = _white_level(image)
    if width * height <= _STRIP_PIXELS:
        return _convert(image, white)
    factors = max(1, width // (3 * fitted[0])), max(1, height // (3 * fitted[1]))
    reduced = Image.new("RGB", (math.ceil(width / factors[0]), math.ceil(height / factors[1])))
    for top, strip in _strips(image, factors[1]):
        reduced.paste(_convert(strip, white).reduce(factors), (0, top // factors[1]))
    return reduced


def _strips(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """(top row, strip) from top to bottom; all strips but the last have a multiple of `factor` rows."""
    rows = max(1, _STRIP_PIXELS // (image.width * factor)) * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(image.height, top + rows)))


def _white_level(image: Image.Image) -> float:
    """The sample that becomes 255, where samples are wider than 8 bits, which `convert` would clip: the least usual one
    that the image does not exceed, or its maximum."""
    if image.mode not in ("I", "F"):
        return 65535.0
    strips = (np.asarray(strip) for _, strip in _strips(image))
    top = float(max(np.max(samples, where=np.isfinite(samples), initial=0) for samples in strips))
    usual = (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0)
    return next((level for level in usual if top <= level), top)


def _convert(image: Image.Image, white: float) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and transparent is None:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        samples = np.asarray(image)
        scaled = samples.astype(np.float32)
        np.nan_to_num(scaled, copy=False, nan=0.0)
        np.clip(scaled, 0.0, white, out=scaled)
        scaled *= 255.0 / white
        grey = (scaled + 0.5).astype(np.uint8)
        if isinstance(transparent, int):
            grey[samples == transparent] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or transparent is not None:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba).convert("RGB")
    return image.convert("RGB")
