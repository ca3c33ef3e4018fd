"""Photo formats by their bytes: which one it is, what of it Pillow may see, and which error a damaged one is.

Metadata never decides over a photo. Pillow warns of odd metadata, refuses some and unpacks bombs in it, and
`warnings.catch_warnings` swaps the filters of the whole process under other threads; so the EXIF orientation is read
here, and Pillow gets files without metadata, through its plugin classes. No global state is set, neither at import nor
later: Pillow's `LOAD_TRUNCATED_IMAGES` must stay False and its `MAX_IMAGE_PIXELS` above `decode.MAX_PIXELS`, as they
are.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator

from PIL import Image, ImageFile, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tagger.errors import ImageError

# Bounds on what costs much for few bytes; real files are far below.
_MAX_SEGMENTS = 10_000  # of metadata: every JPEG segment, every PNG chunk
_MAX_SCANS = 500  # of a progressive JPEG: each is a pass over all pixels, 15 ns a pixel
_MAX_SCANNED_PIXELS = 1 << 31  # pixels × scans of a progressive JPEG: 32 scans of the largest; encoders make 10 to 20
_MAX_STRIPS = 1 << 18  # of a TIFF: Pillow makes an object of each before the size is known


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


def open_photo(data: bytes, image_format: str, max_pixels: int) -> tuple[ImageFile.ImageFile, bytes, bytes]:
    """A photo opened but not decoded, the bytes that Pillow sees, and the EXIF block that it does not.

    Raises:
        ImageError: its header is damaged, declares more than `max_pixels`, or its codec is missing. Pillow's plugins
            raise other errors too; `failure` says what they mean.
    """
    essentials, plugin = _FORMATS[image_format]
    data, exif = essentials(data, max_pixels)
    image = plugin(io.BytesIO(data))
    _check_size(*image.size, max_pixels)
    return image, data, exif


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
    exif, scanned, at = b"", 0, 2  # scanned: pixels that each scan of a progressive JPEG goes over
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
            if scanned and data.count(b"\xff\xda", start) > (most := _most_scans(scanned)):
                raise ImageError("corrupt", f"the progressive JPEG has more than {most} scans")
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
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (start + 5, start + 7))
            scanned = min(max(1, height * width), max_pixels)  # more are refused for their number soon
        if start > at or not keep:
            cuts.append((at, start if keep else end))
        at = end
    raise ImageError("corrupt", f"the JPEG has more than {_MAX_SEGMENTS:,} segments before its image")


def _most_scans(pixels: int) -> int:
    return min(_MAX_SCANS, _MAX_SCANNED_PIXELS // pixels)


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


def orientation_of(exif: bytes) -> int:
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


def not_a_photo(data: bytes) -> ImageError:
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


def failure(error: Exception, data: bytes, image_format: str) -> ImageError:
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
