"""From the bytes of any photo to the pixels the network sees. Training and serving use this one function.

`decode` sniffs the format by its magic bytes, checks the pixel count before any pixel is decoded, brings every colour
mode to RGB with transparency on white, applies the EXIF orientation, resizes and pads to a square with white. Of
animated and multi-page files it takes the first frame.

Metadata never decides over a photo. Pillow warns of odd metadata, refuses some and unpacks bombs in it, and
`warnings.catch_warnings` swaps the filters of the whole process under other threads; so the EXIF orientation is read
here, and Pillow gets files without metadata, through its plugin classes. No global state is set, neither at import nor
later: Pillow's `LOAD_TRUNCATED_IMAGES` must stay False and its `MAX_IMAGE_PIXELS` above `MAX_PIXELS`, as they are.

Colours are the stored values: no ICC profile is applied, so a wide-gamut photo comes out a little duller than meant and
CMYK as plain mixture of inks. An orientation that stands only in XMP is ignored, as browsers do.

The decoder and the resizer are part of the model: a change of the pixels is a change of `InputSpec.version`.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFile, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tagger.errors import ImageError

MAX_PIXELS = 8192 * 8192
"""Photos above this many pixels are refused from their header (`too_many_pixels`): 64 megapixels, the most that product
feeds take. One decode takes 1 to 6 bytes of memory per declared pixel, AVIF 9, WebP 16; JPEG is scaled while decoding
and takes a tenth of a byte, or 6 bytes where it is progressive."""

# Bounds on what costs much for few bytes; real files are far below.
_MAX_SEGMENTS = 10_000  # of metadata: every JPEG segment, every PNG chunk
_MAX_SCANS = 500  # of a progressive JPEG: each is a pass over all pixels
_MAX_STRIPS = 1 << 18  # of a TIFF: Pillow makes an object of each before the size is known

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
        raise _not_a_photo(data)
    try:
        return _decode(data, image_format, size, max_pixels)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise a dozen unrelated types on damaged files
        raise _failure(error, data, image_format) from None


def sniff(data: bytes) -> str | None:
    """The format by magic bytes: JPEG, PNG, GIF, BMP, TIFF, WEBP, AVIF or HEIF; None for whatever else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return "TIFF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and 12 <= int.from_bytes(data[14:18], "little") <= 255:  # so may text, but without this
        return "BMP"
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[i : i + 4] for i in range(16, min(int.from_bytes(data[:4], "big"), 64), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}:
            return "HEIF"
    return None


def _decode(data: bytes, image_format: str, size: int, max_pixels: int) -> Decoded:
    essentials, plugin = _FORMATS[image_format]
    data, exif = essentials(data, max_pixels)
    image = plugin(io.BytesIO(data))
    width, height = image.size
    _check_size(width, height, max_pixels)
    if image_format == "JPEG":
        image.draft(None, _draft_size(width, height, size))
    image.load()
    fitted = _fitted_size(*image.size, size)
    rgb = _to_rgb(_mended(image, data), fitted)
    if isinstance(image, GifImageFile):
        rgb = _white_around_frame(rgb, image)
    orientation = _orientation(exif or image.info.get("exif") or b"")
    if orientation in _TRANSPOSES:
        rgb = rgb.transpose(_TRANSPOSES[orientation])
    if orientation >= 5:
        width, height, fitted = height, width, (fitted[1], fitted[0])
    return Decoded(np.asarray(_pad_to_square(rgb, fitted, size)), width, height)


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


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"the header says {width}×{height} pixels")
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width}×{height} pixels, above the limit of {max_pixels:,}")


# A file without what its pixels do not need, and its EXIF block, by format.


def _without(data: bytes, cuts: list[tuple[int, int]]) -> bytes:
    """`data` less the given (start, end) ranges, which are in order."""
    if not cuts:
        return data
    view, starts, ends = memoryview(data), [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(data)]
    return b"".join(view[start:end] for start, end in zip(starts, ends, strict=True))


_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # a search passes over fill bytes and junk, as libjpeg does


def _jpeg_essentials(data: bytes, max_pixels: int) -> tuple[bytes, bytes]:
    """A JPEG without application segments, but for JFIF and Adobe: they say how its colours are stored."""
    data = data.rstrip(b"\x00")  # the unwritten end of a file of reserved length; it would decode as grey
    cuts: list[tuple[int, int]] = []
    exif, progressive, at = b"", False, 2
    for _ in range(_MAX_SEGMENTS):
        if not (found := _JPEG_MARKER.search(data, at)):
            raise _truncated("JPEG")
        start, marker = found.start(), data[found.start() + 1]
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        end = start + 2 + length
        if marker == 0xD9:
            raise ImageError("corrupt", "the JPEG is damaged: no image follows its header")
        if max(end, start + 4) > len(data):
            raise _truncated("JPEG")
        if marker == 0xDA:
            if progressive and data.count(b"\xff\xda", start) > _MAX_SCANS:
                raise ImageError("corrupt", f"the progressive JPEG has more than {_MAX_SCANS} scans")
            return _without(data, cuts), exif
        keep = not (0xE0 <= marker <= 0xEF or marker == 0xFE)
        if marker == 0xE0:
            keep = length >= 16 and data.startswith(b"JFIF\x00", start + 4)
        elif marker == 0xEE:
            keep = length >= 14 and data.startswith(b"Adobe", start + 4)
        elif marker == 0xE1 and data.startswith(b"Exif\x00\x00", start + 4):
            exif = exif or data[start + 4 : end]
        elif marker in (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF):
            raise ImageError("unsupported_format", "lossless and hierarchical JPEG are not supported")
        elif marker in (0xC2, 0xCA):
            progressive = True
        if start > at or not keep:
            cuts.append((at, start if keep else end))
        at = end
    raise ImageError("corrupt", f"the JPEG has more than {_MAX_SEGMENTS:,} segments before its image")


def _png_essentials(data: bytes, max_pixels: int) -> tuple[bytes, bytes]:
    """A PNG with the chunks of its image alone; of an animation that is the first frame or its stand-in."""
    cuts: list[tuple[int, int]] = []
    exif, at = b"", 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if not name.isalpha() or len(cuts) == _MAX_SEGMENTS:
            raise ImageError("corrupt", "the PNG is damaged: no chunk where one should start, or too many")
        if name == b"IEND":
            break
        if name == b"eXIf":
            exif = data[at + 8 : end - 4]
        if name not in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            cuts.append((at, end))
        at = end
    return _without(data, cuts), exif


_TIFF_TAGS = {  # that lay out the pixels, and how many values each holds, 0 for any number
    **dict.fromkeys((256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332, 512, 513, 514, 515, 531), 1),
    **dict.fromkeys((258, 273, 279, 320, 324, 325, 338, 339, 347, 519, 520, 521, 529, 530, 532), 0),
}
_TIFF_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes by type


def _tiff_essentials(data: bytes, max_pixels: int) -> tuple[bytes, bytes]:
    """A TIFF with a new directory, of the first page alone and only of what lays out its pixels."""
    order = "<" if data[:2] == b"II" else ">"
    kept: dict[int, bytes] = {}
    try:
        for tag, kind, count, value in _tiff_entries(data):
            length = count * _TIFF_UNITS.get(kind, 0)
            if tag not in _TIFF_TAGS or tag in kept or length == 0:
                continue
            if count > _MAX_STRIPS:
                raise ImageError("corrupt", f"the TIFF has more than {_MAX_STRIPS:,} strips or tiles")
            if length > 4:
                (offset,) = struct.unpack(order + "I", value)
                if offset + length > len(data):
                    raise _truncated("TIFF")
                value = data[offset : offset + 4] if _TIFF_TAGS[tag] == 1 else value
            kept[tag] = struct.pack(order + "HHI4s", tag, kind, _TIFF_TAGS[tag] or count, value)
    except struct.error:
        raise _truncated("TIFF") from None
    header = data[:4] + struct.pack(order + "I", len(data))
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept[tag] for tag in sorted(kept)) + bytes(4)
    return b"".join((header, memoryview(data)[8:], directory)), data


def _tiff_entries(tiff: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(tag, type, count, value or its offset) of the first directory of a TIFF or an EXIF block."""
    order = "<" if tiff[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, at)
    for i in range(entries):
        yield struct.unpack_from(order + "HHI4s", tiff, at + 2 + 12 * i)


def _orientation(exif: bytes) -> int:
    """1 to 8; 1 where the EXIF block or the TIFF says nothing usable."""
    tiff = exif.removeprefix(b"Exif\x00\x00").removeprefix(b"Exif\x00\x00")
    try:
        for tag, kind, _, value in _tiff_entries(tiff) if tiff else ():
            if tag == 0x0112 and kind in (1, 3, 4):
                found = int.from_bytes(value[: _TIFF_UNITS[kind]], "little" if tiff[:2] == b"II" else "big")
                return found if 1 <= found <= 8 else 1
    except struct.error:
        pass
    return 1


_GIF_BLOCK = re.compile(rb"[!,;]")  # extension, frame or end; a search passes over junk, as Pillow does


def _gif_essentials(data: bytes, max_pixels: int) -> tuple[bytes, bytes]:
    """The GIF as it is, but its first frame checked, whose background Pillow's plugin allocates on opening the file."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (flags >> 7) * (6 << (flags & 7))
    while (found := _GIF_BLOCK.search(data, at)) and found[0] == b"!":
        at = found.end() + 1
        while size := data[at]:
            at += 1 + size
        at += 1
    if found and found[0] == b",":
        left, top, across, down = struct.unpack_from("<HHHH", data, found.end())
        _check_size(max(width, left + across), max(height, top + down), max_pixels)
    return data, b""


def _webp_essentials(data: bytes, max_pixels: int) -> tuple[bytes, bytes]:
    """The WebP as it is, but its canvas checked, which Pillow's plugin allocates as soon as it opens the file."""
    if not features.check("webp"):
        raise ImageError("missing_codec", "this Pillow has no WebP codec")
    if len(data) < 30 or 8 + int.from_bytes(data[4:8], "little") > len(data):
        raise _truncated("WEBP")
    if data[12:16] == b"VP8X":
        width, height = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    _check_size(width, height, max_pixels)
    return data, b""


def _box_essentials(data: bytes, max_pixels: int) -> tuple[bytes, bytes]:
    """An AVIF or HEIC, its declared sizes checked, its EXIF item renamed: its own properties give the orientation."""
    for item in re.finditer(rb"ispe\x00{4}(.{8})", data, re.DOTALL):
        width, height = struct.unpack(">II", item[1])
        _check_size(width, height, max_pixels)
    return re.sub(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", rb"\1skip", data, flags=re.DOTALL), b""


def _as_it_is(data: bytes, max_pixels: int) -> tuple[bytes, bytes]:
    return data, b""


def _avif_plugin(file: io.BytesIO) -> ImageFile.ImageFile:
    if not features.check("avif"):
        raise ImageError("missing_codec", "this Pillow has no AVIF codec")
    return AvifImageFile(file)


def _heif_plugin(file: io.BytesIO) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        detail = "HEIC needs the package pillow-heif: pip install 'tagger[heic]'"
        raise ImageError("missing_codec", detail) from None
    image: ImageFile.ImageFile = HeifImageFile(file)
    return image


_Essentials = Callable[[bytes, int], tuple[bytes, bytes]]
_FORMATS: dict[str, tuple[_Essentials, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": (_jpeg_essentials, JpegImageFile),
    "PNG": (_png_essentials, PngImageFile),
    "GIF": (_gif_essentials, GifImageFile),
    "BMP": (_as_it_is, BmpImageFile),
    "TIFF": (_tiff_essentials, TiffImageFile),
    "WEBP": (_webp_essentials, WebPImageFile),
    "AVIF": (_box_essentials, _avif_plugin),
    "HEIF": (_box_essentials, _heif_plugin),
}


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


# Which error it is.

_OTHER_IMAGES = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"\x00\x00\x01\x00": "icon",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc": "JPEG XR",
    b"II+\x00": "BigTIFF",
    b"MM\x00+": "BigTIFF",
    b"qoif": "QOI",
    b"#?RADIANCE": "Radiance HDR",
}


def _not_a_photo(data: bytes) -> ImageError:
    if not data:
        return ImageError("not_an_image", "the file is empty")
    text = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    web_page = text[:14].lower().startswith((b"<!doctype html", b"<html"))
    other = next((name for magic, name in _OTHER_IMAGES.items() if text.startswith(magic)), None)
    if other or (b"<svg" in text and text.startswith(b"<") and not web_page):
        detail = f"{other or 'SVG'} files are not supported; use JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
        return ImageError("unsupported_format", detail)
    return ImageError("not_an_image", f"the bytes are {'a web page' if web_page else 'of no photo format'}")


def _truncated(image_format: str) -> ImageError:
    return ImageError("truncated", f"the {image_format} ends before its pixels do")


def _failure(error: Exception, data: bytes, image_format: str) -> ImageError:
    text = (" ".join(str(error).split()) or type(error).__name__)[:200]

    def says(*words: str) -> bool:
        return any(word in text.lower() for word in words)

    if isinstance(error, (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return ImageError("too_many_pixels", f"the {image_format} asks for too much memory: {text}")
    if says("not available", "no codec"):
        return ImageError("missing_codec", f"the codec for this {image_format} is not installed: {text}")
    unlisted = isinstance(error.__cause__, KeyError)  # such as a TIFF compression
    if unlisted or says("unsupported", "not supported", "cannot handle", "unknown pixel mode"):
        return ImageError("unsupported_format", f"this kind of {image_format} is not supported: {text}")
    if says("is truncated", "truncated file", "truncated data") or _ends_early(data, image_format):
        return _truncated(image_format)
    return ImageError("corrupt", f"the {image_format} is damaged: {text}")


def _ends_early(data: bytes, image_format: str) -> bool:
    """Whether the end of a file that cannot be read is missing."""
    if image_format == "PNG":
        return b"IEND" not in data
    if image_format == "GIF":
        return not data.rstrip(b"\x00").endswith(b";")
    if image_format == "BMP":
        return len(data) < int.from_bytes(data[2:6], "little")
    at = 0
    while image_format in ("AVIF", "HEIF") and 0 <= at < len(data):
        box = int.from_bytes(data[at : at + 4], "big")
        at = at + box if box >= 8 else len(data)
    return at > len(data)
