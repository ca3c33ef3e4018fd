"""From the bytes of any photo to the pixels the network sees. Training and serving use this one function.

`decode` sniffs the format by its magic bytes, checks the pixel count before any pixel is decoded, applies the EXIF
orientation, brings every colour mode to RGB with transparency on white, pads to a square with white and resizes.
The decoder and the resizer are part of the model: a change of the pixels is a change of `InputSpec.version`.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from tagger.errors import ImageError

MAX_PIXELS = 100_000_000
"""Photos above this many pixels are refused from their header (`too_many_pixels`); 100 Mpx is 300 MB of RGB."""

ImageFile.LOAD_TRUNCATED_IMAGES = False
Image.MAX_IMAGE_PIXELS = None  # `decode` checks the header itself, with its own limit and its own error


class Decoded(NamedTuple):
    """One photo, ready for the network."""

    pixels: npt.NDArray[np.uint8]  # (size, size, 3), RGB
    width: int  # of the photo in pixels, after EXIF orientation
    height: int




def sniff(data: bytes) -> str | None:
    """The format by magic bytes: JPEG, PNG, GIF, BMP, TIFF, WEBP, AVIF, HEIF; None when the bytes are no photo we know."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[i : i + 4] for i in range(16, min(int.from_bytes(data[:4], "big"), 64), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}:
            return "HEIF"
    return None


_OTHER_IMAGES = (
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"qoif", "QOI"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
)


def decode(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> Decoded:
    """The photo in `data` as RGB pixels of `size` × `size`, padded with white to a square, never cropped or squashed.

    Args:
        data: the file's bytes, of any supported format whatever its name says.
        size: side of the square in pixels.
        max_pixels: photos that declare more are refused before any pixel is decoded.

    Raises:
        ImageError: `not_an_image`, `unsupported_format`, `missing_codec`, `too_many_pixels`, `truncated` or `corrupt`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters raises
        return _decode(data, size, max_pixels)


def _decode(data: bytes, size: int, max_pixels: int) -> Decoded:
    image_format = sniff(data)
    if image_format is None:
        raise _not_a_photo(data)
    image = _open(data, image_format)
    full_width, full_height = image.size
    if full_width * full_height > max_pixels:
        raise ImageError("too_many_pixels", f"{full_width}×{full_height} pixels, above the limit of {max_pixels:,}")
    if full_width < 1 or full_height < 1:
        raise ImageError("corrupt", f"the header says {full_width}×{full_height} pixels")
    try:
        if image_format == "JPEG":
            image.draft(None, _draft_size(full_width, full_height, size))
        image.load()
        orientation = _orientation(image)
        rgb = _to_rgb(image)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("too_many_pixels", f"{full_width}×{full_height} pixels did not fit into memory") from None
    except Exception as error:  # Pillow's plugins raise a dozen unrelated types on damaged files
        raise _load_error(error, image_format) from None
    if orientation in _TRANSPOSES:
        rgb = rgb.transpose(_TRANSPOSES[orientation])
    if orientation in (5, 6, 7, 8):
        full_width, full_height = full_height, full_width
    return Decoded(np.asarray(pad_to_square(rgb, size)), full_width, full_height)


def pad_to_square(image: Image.Image, size: int) -> Image.Image:
    """An RGB image scaled to fit `size` × `size` and centred on white; resized with antialiased bicubic."""
    width, height = image.size
    scale = size / max(width, height)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    if image.size != fitted:
        image = image.resize(fitted, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if fitted == (size, size):
        return image
    square = Image.new("RGB", (size, size), (255, 255, 255))
    square.paste(image, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
    return square


_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _not_a_photo(data: bytes) -> ImageError:
    if not data:
        return ImageError("not_an_image", "the file is empty")
    head = data[:64].lstrip()
    if b"<svg" in data[:1024]:
        return ImageError("unsupported_format", "SVG is not supported; use JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF")
    for magic, name in _OTHER_IMAGES:
        if head.startswith(magic) or data.startswith(magic):
            detail = f"{name} is not supported; use JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
            return ImageError("unsupported_format", detail)
    if head.lower().startswith((b"<!doctype html", b"<html")):
        return ImageError("not_an_image", "the bytes are a web page, not a photo")
    return ImageError("not_an_image", "the bytes are of no photo format")


def _open(data: bytes, image_format: str) -> Image.Image:
    if image_format == "HEIF" and not _heif_registered():
        raise ImageError("missing_codec", "HEIC needs the package pillow-heif: pip install 'tagger[heic]'")
    if image_format not in Image.OPEN:
        Image.init()
    if image_format not in Image.OPEN:
        raise ImageError("missing_codec", f"this Pillow has no {image_format} codec")
    try:
        return Image.open(io.BytesIO(data), formats=[image_format])
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error)) from None
    except MemoryError:
        raise ImageError("too_many_pixels", "the header asks for more memory than there is") from None
    except Exception as error:
        raise _load_error(error, image_format) from None


def _heif_registered() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _draft_size(width: int, height: int, size: int) -> tuple[int, int]:
    """The least size the DCT may scale to: never below the target, so that the resize still shrinks."""
    scale = size / max(width, height)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB with transparency on white; 16-bit and float samples scaled, not clipped."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_samples(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_samples(image: Image.Image) -> Image.Image:
    """8-bit grey from 16-bit, 32-bit or float samples (`convert` would clip everything above 255 to white)."""
    samples = np.asarray(image)
    if image.mode == "F":
        samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        high = max(float(samples.max(initial=0.0)), 1.0 if samples.max(initial=0.0) <= 1.0 else 255.0)
    else:
        top = int(samples.max(initial=0))
        high = float(65535 if image.mode.startswith("I;16") or top > 255 else 255)
        high = max(high, float(top))
    grey: npt.NDArray[Any] = np.clip(samples.astype(np.float32) * (255.0 / high) + 0.5, 0, 255)
    return Image.fromarray(grey.astype(np.uint8))


def _load_error(error: Exception, image_format: str) -> ImageError:
    text = " ".join(str(error).split()) or type(error).__name__
    lowered = text.lower()
    if any(word in lowered for word in ("truncated", "unexpected end", "incomplete", "eof", "not enough")):
        return ImageError("truncated", f"the {image_format} ends before its pixels do")
    return ImageError("corrupt", f"the {image_format} is damaged: {text[:200]}")
