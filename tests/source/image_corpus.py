"""Odd, damaged and good images, built in memory: what shops' feeds hold and what somebody might send on purpose.

`corpus()` gives them with what reading each must come to: `ok` or the error kind, and for many the pixels. A comment
says what is right where it is not plain. Nothing outside this file, Pillow and numpy is needed.

Most pictures show four quadrants, red, green, blue and yellow as one reads, 48 pixels wide and 32 high: a turn, a flip,
a swap of channels, an inversion or a lost half is seen in any of them.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, features

Pixels = npt.NDArray[np.uint8]
Colours = tuple[tuple[int, int, int], ...]

QUADRANTS: Colours = ((230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 230, 20))
GREYS: Colours = ((0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255))
WHITE = (255, 255, 255)
BLACK = (0, 0, 0)
WIDTH, HEIGHT = 48, 32


class DecodedPhoto(Protocol):
    """What a decoder returns: (size, size, 3) uint8 pixels, and the photo's own size."""

    @property
    def pixels(self) -> Pixels: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


class Case(NamedTuple):
    """One file and what must come of it."""

    name: str
    data: bytes
    expect: str  # "ok" or an error kind
    check: Callable[[DecodedPhoto], None] | None = None  # raises AssertionError where the pixels are wrong


@functools.cache
def _all() -> tuple[Case, ...]:
    groups = (
        _jpegs,
        _jpeg_damage,
        _pngs,
        _png_damage,
        _gifs,
        _bmps,
        _tiffs,
        _tiff_damage,
        _webps,
        _avifs,
        _heics,
        _strangers,
    )
    cases = tuple(case for group in groups for case in group())
    assert len({case.name for case in cases}) == len(cases), "two cases have one name"
    return cases


def corpus() -> list[Case]:
    """Every case, each with a name of its own."""
    return list(_all())


# ---- checks ---------------------------------------------------------------------------------------------------------


def shown(decoded: DecodedPhoto) -> Pixels:
    """The part of the square that the photo covers; all of the rest must be white."""
    size, longest = len(decoded.pixels), max(decoded.width, decoded.height)
    width = max(1, round(decoded.width * size / longest))
    height = max(1, round(decoded.height * size / longest))
    top, left = (size - height) // 2, (size - width) // 2
    around = decoded.pixels.copy()
    around[top : top + height, left : left + width] = 255
    assert (around == 255).all(), "the padding is not white"
    return decoded.pixels[top : top + height, left : left + width]


def shows(
    colours: Colours = QUADRANTS, tolerance: int = 4, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> Callable[[DecodedPhoto], None]:
    """A check that the quadrants have these colours in their middle, and the photo this (width, height)."""

    def check(decoded: DecodedPhoto) -> None:
        assert (decoded.width, decoded.height) == size
        photo = shown(decoded)
        rows, columns = (len(photo) // 4, len(photo) * 3 // 4), (photo.shape[1] // 4, photo.shape[1] * 3 // 4)
        found = [photo[row, column] for row in rows for column in columns]
        off = np.abs(np.array(found, dtype=int) - np.array(colours)).max()
        assert off <= tolerance, f"{np.array(found).tolist()} instead of {colours}"

    return check


def shows_one(
    colour: tuple[int, int, int], size: tuple[int, int], tolerance: int = 4
) -> Callable[[DecodedPhoto], None]:
    """A check for a photo of one colour throughout."""

    def check(decoded: DecodedPhoto) -> None:
        assert (decoded.width, decoded.height) == size
        off = np.abs(shown(decoded).astype(int) - np.array(colour)).max()
        assert off <= tolerance, f"off by {off}"

    return check


LOSSY = shows(tolerance=30)


# ---- pictures -------------------------------------------------------------------------------------------------------


def quadrants(colours: Any = QUADRANTS, width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[Any]:
    """(height, width, channels) or, for plain numbers, (height, width); uint8 unless a number asks for more."""
    values = np.array(colours)
    picture = np.zeros((height, width, *values.shape[1:]), dtype=values.dtype)
    for i, value in enumerate(values):
        rows = slice(height // 2) if i < 2 else slice(height // 2, None)
        columns = slice(width // 2) if i % 2 == 0 else slice(width // 2, None)
        picture[rows, columns] = value
    return (
        picture.astype(np.uint8) if values.dtype.kind == "i" and 0 <= values.min() <= values.max() <= 255 else picture
    )


def image(mode: str = "RGB") -> Image.Image:
    """The quadrants as a Pillow image."""
    return Image.fromarray(quadrants()).convert(mode)


def encode(picture: Image.Image, image_format: str, **options: Any) -> bytes:
    """The bytes of the file."""
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **options)
    return buffer.getvalue()


def translucent() -> Image.Image:
    """RGBA: red, nothing, black at half, yellow. Under the transparent pixels hides green."""
    return Image.fromarray(quadrants(((230, 20, 20, 255), (0, 255, 0, 0), (0, 0, 0, 128), (230, 230, 20, 255))))


TRANSLUCENT: Colours = ((230, 20, 20), WHITE, (127, 127, 127), (230, 230, 20))


def stored(upright: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The rows and columns as a camera stores them that notes this EXIF orientation, by the words of the standard:
    5 is 'the 0th row is the visual left-hand side, the 0th column is the visual top'."""
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turned[orientation])


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block (a TIFF) with the orientation as a BYTE (1), SHORT (3) or LONG (4), after one other tag."""
    value = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], orientation).ljust(4, b"\x00")
    make = struct.pack(order + "HHI", 0x010F, 2, 4) + b"Abc\x00"
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "IH", 8, 2)
    return head + make + struct.pack(order + "HHI", 0x0112, kind, count) + value + bytes(4)


BAD_EXIF = {
    "empty": b"",
    "text": b"no TIFF at all",
    "offset_outside": b"II*\x00\xff\xff\xff\x7f" + bytes(20),
    "endless": b"MM\x00*\x00\x00\x00\x08\xff\xff" + b"\x01\x0f\x00\x02\x7f\xff\xff\xff\x7f\xff\xff\xff" * 9,
    "pointers_to_itself": b"II*\x00\x08\x00\x00\x00\x02\x00"
    + struct.pack("<HHII", 0x8769, 4, 1, 8)
    + struct.pack("<HHII", 0x8825, 4, 1, 8)
    + struct.pack("<I", 8),
    "cut": exif(1)[:-9],
    "many_values": exif(6, count=1000),
}
"""EXIF blocks that Pillow warns of or raises on. Only the last gives an orientation, in its first value: it counts."""

ICC_GARBAGE = b"\x00\x01\x02ICC that is none" * 20


# ---- JPEG -----------------------------------------------------------------------------------------------------------


def segment(marker: int, payload: bytes) -> bytes:
    """One JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """The JPEG with a segment more, before all others."""
    return jpeg[:2] + segment(marker, payload) + jpeg[2:]


def _without_segment(jpeg: bytes, marker: int) -> bytes:
    at = jpeg.index(bytes((0xFF, marker)))
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def _with_frame(jpeg: bytes, marker: int | None = None, bits: int = 8, size: tuple[int, int] | None = None) -> bytes:
    """The JPEG with another frame header: its type, bits per sample, (width, height)."""
    at = next(jpeg.index(bytes((0xFF, m, 0, length))) for m, length in _FRAMES if bytes((0xFF, m, 0, length)) in jpeg)
    height, width = struct.unpack_from(">HH", jpeg, at + 5)
    width, height = size or (width, height)
    frame = struct.pack(">BBHBHH", 0xFF, marker or jpeg[at + 1], jpeg[at + 3], bits, height, width)
    return jpeg[:at] + frame + jpeg[at + 9 :]


_FRAMES = [(marker, length) for marker in (0xC0, 0xC2) for length in (17, 11, 20)]


def _cmyk(stored_as: Callable[[Pixels], Pixels], adobe_transform: int | None) -> bytes:
    """A CMYK JPEG whose samples in the file are `stored_as(inks)`."""
    red, green, blue = (255 - quadrants()[..., i].astype(int) for i in range(3))
    black = np.minimum(np.minimum(red, green), blue) // 2
    inks = [np.clip((ink - black) * 255 / (255 - black), 0, 255) for ink in (red, green, blue)]
    samples = stored_as(np.stack([*inks, black], -1).round().astype(np.uint8))
    # Pillow writes the inverse of what it is given
    jpeg = encode(
        Image.frombytes("CMYK", (WIDTH, HEIGHT), (255 - samples).tobytes()), "JPEG", quality=95, subsampling=0
    )
    at = jpeg.index(b"\xff\xee\x00\x0eAdobe")
    if adobe_transform is None:
        return jpeg[:at] + jpeg[at + 16 :]
    return jpeg[: at + 15] + bytes((adobe_transform,)) + jpeg[at + 16 :]


def _inverted(inks: Pixels) -> Pixels:
    return 255 - inks


def _ycck(inks: Pixels) -> Pixels:
    """As Photoshop stores it: C, M and Y as if they were R, G and B, turned to YCbCr, and the inverse of K."""
    ycc = np.asarray(Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr"))
    return np.concatenate([ycc, 255 - inks[..., 3:]], -1)


def _arithmetic() -> bytes:
    """A flat grey, 16 × 16. An arithmetic decoder reads zeros where the data end, and zeros say 'no difference'."""
    parts = [
        b"\xff\xd8",
        segment(0xDB, b"\x00" + b"\x01" * 64),
        segment(0xCA, b"\x08\x00\x10\x00\x10\x01\x01\x11\x00"),
        segment(0xDA, b"\x01\x01\x00\x00\x00\x00"),
        b"\xff\xd9",
    ]
    return b"".join(parts)


def _jpegs() -> Iterator[Case]:
    plain = encode(image(), "JPEG", quality=95)
    upright = quadrants()
    yield Case("jpeg", plain, "ok", LOSSY)
    yield Case("jpeg_progressive", encode(image(), "JPEG", quality=95, progressive=True), "ok", LOSSY)
    yield Case("jpeg_444", encode(image(), "JPEG", quality=95, subsampling=0), "ok", LOSSY)
    yield Case("jpeg_restart_markers", encode(image(), "JPEG", quality=95, restart_marker_blocks=1), "ok", LOSSY)
    yield Case("jpeg_stored_as_rgb", encode(image(), "JPEG", quality=95, keep_rgb=True), "ok", LOSSY)
    grey = encode(Image.fromarray(quadrants(GREYS)[..., 0]), "JPEG", quality=95)
    yield Case("jpeg_grey", grey, "ok", shows(GREYS, 12))
    yield Case("jpeg_cmyk_adobe", _cmyk(_inverted, 0), "ok", LOSSY)
    yield Case("jpeg_cmyk_without_adobe", _cmyk(lambda inks: inks, None), "ok", LOSSY)
    yield Case("jpeg_ycck", _cmyk(_ycck, 2), "ok", LOSSY)
    yield Case(
        "jpeg_1x1", encode(Image.new("RGB", (1, 1), (200, 30, 30)), "JPEG"), "ok", shows_one((200, 30, 30), (1, 1))
    )
    for size in ((1, 20000), (20000, 1)):
        extreme = encode(Image.new("RGB", size, (20, 20, 230)), "JPEG")
        yield Case("jpeg_{}x{}".format(*size), extreme, "ok", shows_one((20, 20, 230), size))
    for orientation in range(1, 9):
        turned = encode(Image.fromarray(stored(upright, orientation)), "JPEG", quality=95)
        for order in "<>":
            block = b"Exif\x00\x00" + exif(orientation, order)
            name = f"jpeg_orientation_{orientation}_{'little' if order == '<' else 'big'}_endian"
            yield Case(name, with_segment(turned, 0xE1, block), "ok", LOSSY)
    turned = encode(Image.fromarray(stored(upright, 6)), "JPEG", quality=95)
    for name, block in (
        ("byte", exif(6, kind=1)),
        ("long", exif(6, ">", kind=4)),
        ("many_values", BAD_EXIF["many_values"]),
    ):
        yield Case(f"jpeg_orientation_as_{name}", with_segment(turned, 0xE1, b"Exif\x00\x00" + block), "ok", LOSSY)
    twice = with_segment(with_segment(turned, 0xE1, b"Exif\x00\x00" + exif(3)), 0xE1, b"Exif\x00\x00" + exif(6))
    yield Case("jpeg_orientation_first_of_two_exif_blocks", twice, "ok", LOSSY)
    for number in (0, 9, 255, 65535):
        block = b"Exif\x00\x00" + exif(number)
        yield Case(f"jpeg_orientation_{number}", with_segment(plain, 0xE1, block), "ok", LOSSY)
    for name, block in BAD_EXIF.items():
        if name != "many_values":
            yield Case(f"jpeg_exif_{name}", with_segment(plain, 0xE1, b"Exif\x00\x00" + block), "ok", LOSSY)
    # browsers look at EXIF alone, and a reviewer sees the photo in a browser
    xmp = b'http://ns.adobe.com/xap/1.0/\x00<x tiff:Orientation="6"/>'
    yield Case("jpeg_orientation_only_in_xmp", with_segment(plain, 0xE1, xmp), "ok", LOSSY)
    metadata = {
        "icc_garbage": (0xE2, b"ICC_PROFILE\x00\x01\x01" + ICC_GARBAGE),
        "icc_cut_short": (0xE2, b"ICC_PROFILE\x00"),
        "icc_one_of_nine": (0xE2, b"ICC_PROFILE\x00\x01\x09abc"),
        "xmp_garbage": (0xE1, b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta \xff\xfe"),
        "photoshop_cut_short": (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        "jfif_cut_short": (0xE0, b"JFIF\x00"),
        "adobe_cut_short": (0xEE, b"Adobe"),
        "mpf_garbage": (0xE2, b"MPF\x00II*\x00\xff\xff\xff\xff"),
        "comment": (0xFE, b"\xff\xda\xff\xd9" * 400),
        "thumbnail": (0xE1, b"Exif\x00\x00" + exif(1) + encode(image().reduce(2), "JPEG")),
    }
    for name, (marker, payload) in metadata.items():
        yield Case(f"jpeg_{name}", with_segment(plain, marker, payload), "ok", LOSSY)
    yield Case("jpeg_fill_bytes", plain[:2] + b"\xff\xff\xff" + plain[2:], "ok", LOSSY)
    yield Case("jpeg_junk_between_segments", plain[:20] + b"\x00junk\x00" + plain[20:], "ok", LOSSY)
    yield Case("jpeg_garbage_after_end", plain + b"<html>appended</html>" * 50, "ok", LOSSY)
    yield Case("jpeg_zeros_after_end", plain + bytes(4096), "ok", LOSSY)
    yield Case("jpeg_second_jpeg_after_end", plain + encode(Image.new("RGB", (9, 9)), "JPEG"), "ok", LOSSY)
    two = encode(image(), "MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    yield Case("jpeg_mpo", two, "ok", LOSSY)
    yield Case("jpeg_arithmetic", _arithmetic(), "ok", shows_one((128, 128, 128), (16, 16)))


def _jpeg_damage() -> Iterator[Case]:
    noise = np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    plain, progressive = (encode(Image.fromarray(noise), "JPEG", progressive=p) for p in (False, True))
    scan = plain.index(b"\xff\xda")
    for name, length in {
        "3_bytes": 3,
        "in_a_segment": 100,
        "before_frame": plain.index(b"\xff\xc0"),
        "before_scan": scan,
    }.items():
        yield Case(f"jpeg_cut_{name}", plain[:length], "truncated")
    yield Case("jpeg_cut_2_bytes", plain[:2], "not_an_image")  # too little to tell by
    for share in (20, 50, 90):
        yield Case(f"jpeg_cut_at_{share}_percent", plain[: len(plain) * share // 100], "truncated")
        yield Case(
            f"jpeg_progressive_cut_at_{share}_percent", progressive[: len(progressive) * share // 100], "truncated"
        )
    # every pixel may be there, but only the end marker says so, of the last rows as of the last refining scan
    yield Case("jpeg_without_end_marker", plain[:-2], "truncated")
    yield Case("jpeg_progressive_without_end_marker", progressive[:-2], "truncated")
    # zeros are valid codes: the missing part would come out as flat colour
    yield Case("jpeg_half_of_a_reserved_file", plain[: len(plain) // 2].ljust(len(plain), b"\x00"), "truncated")
    # libjpeg resynchronises and goes on; nothing tells such a photo from a good one but looking at it
    mangled = bytearray(plain)
    mangled[scan + 200 : scan + 210] = b"0123456789"
    yield Case("jpeg_damaged_scan", bytes(mangled), "ok", shows_size((64, 64)))
    # the rows that have no data come out flat, a height too small crops: the file is consistent in itself
    yield Case("jpeg_header_says_higher", _with_frame(plain, size=(64, 128)), "ok", shows_size((64, 128)))
    yield Case("jpeg_header_says_lower", _with_frame(plain, size=(64, 32)), "ok", shows_size((64, 32)))
    yield Case("jpeg_header_says_wider", _with_frame(plain, size=(80, 64)), "ok", shows_size((80, 64)))
    # zero says that the height comes after the scan, which no reader supports
    yield Case("jpeg_height_0", _with_frame(plain, size=(64, 0)), "corrupt")
    yield Case("jpeg_width_0", _with_frame(plain, size=(0, 64)), "corrupt")
    # 65,535 is the most that a JPEG can say
    yield Case("jpeg_bomb", _with_frame(plain, size=(65535, 65535)), "too_many_pixels")
    yield Case("jpeg_bomb_progressive", _with_frame(progressive, size=(65535, 65535)), "too_many_pixels")
    many = progressive[:-2] + segment(0xDA, b"\x01\x01\x00\x00\x00\x00") * 600 + b"\xff\xd9"
    yield Case("jpeg_bomb_of_scans", many, "corrupt")
    # 64 megapixels, each scan a fifth of a second for 120 bytes
    table = segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    refining = segment(0xDA, b"\x01\x01\x00\x01\x3f\x10") + bytes(120)
    yield Case("jpeg_bomb_of_large_scans", large_progressive()[:-2] + table + refining * 30 + b"\xff\xd9", "corrupt")
    yield Case(
        "jpeg_many_small_scans", progressive[:-2] + segment(0xDA, b"\x01\x01\x00\x00\x00\x00") * 90 + b"\xff\xd9", "ok"
    )
    yield Case("jpeg_12_bit", _with_frame(plain, 0xC1, bits=12), "unsupported_format")
    yield Case("jpeg_lossless", _with_frame(plain, 0xC3), "unsupported_format")
    yield Case("jpeg_hierarchical", _with_frame(plain, 0xC5), "unsupported_format")
    two_channels = b"\x08\x00\x10\x00\x10\x02\x01\x11\x00\x02\x11\x00"
    head = b"\xff\xd8" + segment(0xC0, two_channels) + segment(0xDA, b"\x02\x01\x00\x02\x00\x00\x3f\x00")
    yield Case("jpeg_2_channels", head + bytes(99) + b"\xff\xd9", "unsupported_format")
    yield Case("jpeg_without_image", b"\xff\xd8\xff\xd9", "corrupt")
    yield Case("jpeg_without_frame", b"\xff\xd8" + plain[scan:], "corrupt")
    yield Case("jpeg_without_quantization", _without_segment(_without_segment(plain, 0xDB), 0xDB), "corrupt")
    at = plain.index(b"\xff\xc4")
    yield Case("jpeg_bad_huffman_table", plain[: at + 5] + b"\xff" * 16 + plain[at + 21 :], "corrupt")
    frame = plain.index(b"\xff\xc0")
    yield Case("jpeg_two_frames", plain[:scan] + plain[frame : frame + 19] + plain[scan:], "corrupt")
    yield Case("jpeg_segment_of_length_0", plain[:2] + b"\xff\xe1\x00\x00" + plain[2:], "ok")
    # no browser shows these, and no reader but a guess could
    yield Case("jpeg_garbage_before_start", b"\r\n" + plain, "not_an_image")
    yield Case("jpeg_byte_order_mark_before_start", b"\xef\xbb\xbf" + plain, "not_an_image")


def large_progressive() -> bytes:
    """A small progressive JPEG that says it is of 8,000 × 8,000 pixels."""
    small = encode(Image.new("L", (16, 16), 99), "JPEG", progressive=True)
    return _with_frame(small, size=(8000, 8000))


def shows_size(size: tuple[int, int]) -> Callable[[DecodedPhoto], None]:
    """A check of the photo's (width, height) and of white around it."""

    def check(decoded: DecodedPhoto) -> None:
        assert (decoded.width, decoded.height) == size
        shown(decoded)

    return check


# ---- PNG ------------------------------------------------------------------------------------------------------------

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(name: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _header(width: int, height: int, bits: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))


def _rows(samples: npt.NDArray[Any], bits: int) -> bytes:
    """(height, width, channels) packed to rows, each after its filter byte."""
    flat = samples.reshape(len(samples), -1)
    if bits == 16:
        packed = flat.astype(">u2").view(np.uint8)
    elif bits == 8:
        packed = flat.astype(np.uint8)
    else:
        places = (flat.astype(np.uint8)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(places.reshape(len(flat), -1).astype(np.uint8), axis=1)
    return np.concatenate([np.zeros((len(packed), 1), np.uint8), packed], axis=1).tobytes()


def png(
    samples: npt.NDArray[Any],
    bits: int = 8,
    colour: int = 2,
    before: bytes = b"",
    after: bytes = b"",
    adam7: bool = False,
) -> bytes:
    """A PNG of raw samples, with chunks before and after the image data."""
    samples = samples.reshape(*samples.shape[:2], _CHANNELS[colour])
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in _ADAM7] if adam7 else [samples]
    body = zlib.compress(b"".join(_rows(part, bits) for part in passes if part.size))
    header = _header(samples.shape[1], samples.shape[0], bits, colour, int(adam7))
    return PNG_MAGIC + header + before + chunk(b"IDAT", body) + after + chunk(b"IEND", b"")


def _pngs() -> Iterator[Case]:
    upright, numbers = quadrants(), np.array((0, 1, 2, 3))
    yield Case("png", encode(image(), "PNG"), "ok", shows())
    yield Case("png_interlaced", png(upright, adam7=True), "ok", shows())
    for bits in (1, 2, 4, 8, 16):
        levels = numbers * (2**bits - 1) // 3
        greys: Colours = tuple((level * 255 // (2**bits - 1),) * 3 for level in levels.tolist())
        yield Case(f"png_grey_{bits}_bit", png(quadrants(levels), bits, 0), "ok", shows(greys, 1))
        # the transparent grey is the one of the second quadrant; a bilevel picture has it in the first three
        clear = tuple(WHITE if level == levels[1] else grey for level, grey in zip(levels.tolist(), greys, strict=True))
        transparency = chunk(b"tRNS", struct.pack(">H", levels[1]))
        yield Case(
            f"png_grey_{bits}_bit_transparent", png(quadrants(levels), bits, 0, transparency), "ok", shows(clear, 1)
        )
    palette = chunk(b"PLTE", bytes(sample for colour in QUADRANTS for sample in colour))
    for bits in (2, 4, 8):
        indexed = png(quadrants(numbers), bits, 3, palette)
        yield Case(f"png_palette_{bits}_bit", indexed, "ok", shows())
    one_clear = palette + chunk(b"tRNS", b"\xff\x00")
    yield Case(
        "png_palette_one_transparent",
        png(quadrants(numbers), 8, 3, one_clear),
        "ok",
        shows((QUADRANTS[0], WHITE, *QUADRANTS[2:])),
    )
    half_clear = chunk(b"PLTE", bytes((230, 20, 20, 0, 255, 0, 0, 0, 0, 230, 230, 20))) + chunk(
        b"tRNS", b"\xff\x00\x80\xff"
    )
    yield Case("png_palette_translucent", png(quadrants(numbers), 8, 3, half_clear), "ok", shows(TRANSLUCENT))
    yield Case(
        "png_palette_index_outside", png(quadrants(numbers + 3), 8, 3, palette), "ok", shows_size((WIDTH, HEIGHT))
    )
    yield Case("png_rgb_16_bit", png(upright.astype(int) * 257, 16), "ok", shows())
    green = struct.pack(">3H", *QUADRANTS[1])
    clear_green: Colours = (QUADRANTS[0], WHITE, *QUADRANTS[2:])
    yield Case("png_rgb_transparent", png(upright, before=chunk(b"tRNS", green)), "ok", shows(clear_green))
    green16 = struct.pack(">3H", *(sample * 257 for sample in QUADRANTS[1]))
    yield Case(
        "png_rgb_16_bit_transparent",
        png(upright.astype(int) * 257, 16, 2, chunk(b"tRNS", green16)),
        "ok",
        shows(clear_green),
    )
    rgba = np.asarray(translucent())
    yield Case("png_rgba", png(rgba, 8, 6), "ok", shows(TRANSLUCENT))
    yield Case("png_rgba_interlaced", png(rgba, 8, 6, adam7=True), "ok", shows(TRANSLUCENT))
    yield Case("png_rgba_16_bit", png(rgba.astype(int) * 257, 16, 6), "ok", shows(TRANSLUCENT))
    grey_alpha = quadrants(((0, 255), (0, 0), (0, 128), (200, 255)))
    grey_shown: Colours = (BLACK, WHITE, (127, 127, 127), (200, 200, 200))
    yield Case("png_grey_alpha", png(grey_alpha, 8, 4), "ok", shows(grey_shown))
    yield Case("png_grey_alpha_16_bit", png(grey_alpha.astype(int) * 257, 16, 4), "ok", shows(grey_shown))
    yield Case("png_all_transparent", encode(Image.new("RGBA", (9, 9)), "PNG"), "ok", shows_one(WHITE, (9, 9)))
    yield Case("png_1x1", encode(Image.new("RGB", (1, 1), (9, 99, 200)), "PNG"), "ok", shows_one((9, 99, 200), (1, 1)))
    for size in ((1, 20000), (20000, 1), (100_000, 3)):
        extreme = encode(Image.new("RGBA", size, (20, 20, 230, 255)), "PNG")
        yield Case("png_{}x{}".format(*size), extreme, "ok", shows_one((20, 20, 230), size))
    for orientation in range(1, 9):
        turned = png(stored(upright, orientation), before=chunk(b"eXIf", exif(orientation, ">")))
        yield Case(f"png_orientation_{orientation}", turned, "ok", shows())
    for name, block in BAD_EXIF.items():
        tagged = stored(upright, 6 if name == "many_values" else 1)
        yield Case(f"png_exif_{name}", png(tagged, before=chunk(b"eXIf", block)), "ok", shows())
    yield from _apngs()
    zeros = zlib.compress(bytes(30_000_000), 9)
    ancillary = {
        "icc_garbage": chunk(b"iCCP", b"name\x00\x00" + ICC_GARBAGE),
        "icc_unknown_compression": chunk(b"iCCP", b"name\x00\x07" + ICC_GARBAGE),
        "icc_cut_short": chunk(b"iCCP", b"name"),
        "icc_bomb": chunk(b"iCCP", b"name\x00\x00" + zeros),
        "text_bomb": chunk(b"zTXt", b"Comment\x00\x00" + zeros),
        "international_text_bomb": chunk(b"iTXt", b"Comment\x00\x01\x00\x00\x00" + zeros),
        "many_text_bombs": chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(1_000_000), 9)) * 100,
        "xmp_garbage": chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00<x \xff\xfe"),
        "text_without_end": chunk(b"tEXt", b"no zero byte"),
        "physical_size_cut_short": chunk(b"pHYs", b"\x00"),
        "gamma_cut_short": chunk(b"gAMA", b"\x00"),
        "bad_checksum_of_text": chunk(b"tEXt", b"a\x00b")[:-1] + b"?",
        "unknown_chunk": chunk(b"vpAg", b"whatever"),
    }
    for name, chunks in ancillary.items():
        yield Case(f"png_{name}", png(upright, before=chunks, after=chunks), "ok", shows())


def _apngs() -> Iterator[Case]:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((9, 9, 9), (99, 99, 99))]
    animated = encode(image(), "PNG", save_all=True, append_images=frames)
    yield Case("png_animated", animated, "ok", shows())
    # the picture that stands in where nothing moves is the one in the feed's browser preview, too
    stand_in = encode(image(), "PNG", save_all=True, append_images=frames, default_image=True)
    yield Case("png_animated_with_stand_in", stand_in, "ok", shows())
    yield Case("png_animated_0_frames", png(quadrants(), before=chunk(b"acTL", bytes(8))), "ok", shows())
    yield Case("png_animated_4_billion_frames", png(quadrants(), before=chunk(b"acTL", b"\xff" * 8)), "ok", shows())
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 5, 2**31, 2**31, 9, 9, 1, 1, 0, 0))
    outside = png(quadrants(), before=chunk(b"acTL", struct.pack(">II", 2, 0)) + control)
    yield Case("png_animated_frame_outside", outside, "ok", shows())


def _png_damage() -> Iterator[Case]:
    noise = np.random.default_rng(8).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    plain = png(noise)
    start, size = plain.index(b"IDAT") + 4, shows_size((32, 32))
    for name, length in {"8_bytes": 8, "in_header": 20, "before_data": start - 8, "in_data": len(plain) // 2}.items():
        yield Case(f"png_cut_{name}", plain[:length], "truncated")
    yield Case("png_cut_4_bytes", plain[:4], "not_an_image")
    yield Case("png_cut_near_end_of_data", plain[: len(plain) - 12 - 4 - 40], "truncated")
    # the image data are complete; the end chunk holds nothing
    yield Case("png_without_end_chunk", plain[:-12], "ok", size)
    yield Case("png_cut_in_last_checksum", plain[:-14], "ok", size)
    yield Case("png_garbage_after_end", plain + b"garbage" * 99, "ok", size)
    # the data have an inner checksum as well, which holds: the pixels are right
    wrong = plain[:-16] + bytes(byte ^ 255 for byte in plain[-16:-12]) + plain[-12:]
    yield Case("png_bad_checksum_of_data", wrong, "ok", size)
    flipped = bytearray(plain)
    flipped[start + 1500] ^= 16
    yield Case("png_damaged_data", bytes(flipped), "corrupt")
    yield Case("png_bad_checksum_of_header", plain[:29] + b"\x00\x00\x00\x00" + plain[33:], "corrupt")
    yield Case("png_garbage_for_a_chunk", plain[:33] + b"\x00\x00\x00\x04\x01\x02\x03\x04" + plain[33:], "corrupt")
    yield Case("png_header_cut_short", PNG_MAGIC + chunk(b"IHDR", b"\x00\x00\x00\x09") + plain[33:], "corrupt")
    yield Case("png_without_header", PNG_MAGIC + plain[33:], "corrupt")
    yield Case("png_without_data", plain[:33] + chunk(b"IEND", b""), "corrupt")
    # all checksums hold, so nothing was lost on the way: it was written so
    half = PNG_MAGIC + _header(32, 32) + chunk(b"IDAT", zlib.compress(_rows(noise[:16], 8))) + plain[-12:]
    yield Case("png_data_for_half_the_rows", half, "ok", size)
    more = zlib.compress(_rows(noise, 8) + bytes(40_000_000), 9)
    yield Case("png_bomb_of_rows", PNG_MAGIC + _header(32, 32) + chunk(b"IDAT", more) + plain[-12:], "ok", size)
    split = b"".join(
        chunk(b"IDAT", plain[at : at + 100]) + chunk(b"IDAT", b"") for at in range(start, len(plain) - 16, 100)
    )
    yield Case("png_data_in_many_chunks", plain[: start - 8] + split + plain[-12:], "ok", size)
    yield Case("png_width_0", PNG_MAGIC + _header(0, 32) + plain[33:], "corrupt")
    yield Case("png_7_bit", PNG_MAGIC + _header(32, 32, bits=7) + plain[33:], "corrupt")
    for bits, colour in ((1, 0), (8, 2), (16, 6)):
        name = f"png_bomb_{bits}_bit_colour_{colour}"
        yield Case(name, PNG_MAGIC + _header(100_000, 100_000, bits, colour) + plain[33:], "too_many_pixels")
    yield Case(
        "png_bomb_interlaced", PNG_MAGIC + _header(100_000, 100_000, interlace=1) + plain[33:], "too_many_pixels"
    )
    yield Case("png_bomb_2_billion_wide", PNG_MAGIC + _header(2**31 - 1, 2**31 - 1) + plain[33:], "too_many_pixels")


# ---- GIF ------------------------------------------------------------------------------------------------------------


def _gif(screen: tuple[int, int], frame: tuple[int, int, int, int], codes: bytes, control: bytes = b"") -> bytes:
    """A GIF of one frame at (left, top, width, height), in the colours of the quadrants."""
    palette = bytes(sample for colour in QUADRANTS for sample in colour)
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x81, 0, 0) + palette
    blocks = b"".join(bytes((len(part),)) + part for part in (codes[i : i + 255] for i in range(0, len(codes), 255)))
    return head + control + b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02" + blocks + b"\x00;"


def _gif_codes(indices: list[int]) -> bytes:
    """LZW without compression: a clear code before every two pixels, all codes of 3 bits."""
    codes = [code for i in range(0, len(indices), 2) for code in (4, *indices[i : i + 2])] + [5]
    number = sum(code << 3 * place for place, code in enumerate(codes))
    return number.to_bytes((3 * len(codes) + 7) // 8, "little")


def _gifs() -> Iterator[Case]:
    # few colours, so that no palette is made up
    plain = encode(image().quantize(4), "GIF")
    exact = shows(tolerance=10)
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((9, 9, 9), (99, 99, 99))]
    yield Case("gif", plain, "ok", exact)
    yield Case("gif_interlaced", encode(image().quantize(4), "GIF", interlace=1), "ok", exact)
    yield Case("gif_grey", encode(Image.fromarray(quadrants(GREYS)[..., 0]), "GIF"), "ok", shows(GREYS))
    yield Case("gif_animated", encode(image(), "GIF", save_all=True, append_images=others, duration=50), "ok", exact)
    indices = np.asarray(quadrants((0, 1, 2, 3), 8, 8)).ravel().tolist()
    transparent = b"!\xf9\x04\x01\x00\x00\x01\x00"
    clear_green: Colours = (QUADRANTS[0], WHITE, *QUADRANTS[2:])
    by_hand = _gif((8, 8), (0, 0, 8, 8), _gif_codes(indices), transparent)
    yield Case("gif_transparent", by_hand, "ok", shows(clear_green, size=(8, 8)))
    # the canvas outside the frame is empty, so it is white
    corner = _gif((16, 16), (8, 8, 8, 8), _gif_codes([0] * 64))
    yield Case("gif_frame_smaller_than_canvas", corner, "ok", shows((WHITE, WHITE, WHITE, QUADRANTS[0]), 10, (16, 16)))
    beyond = _gif((4, 4), (0, 0, 8, 8), _gif_codes(indices))
    yield Case("gif_frame_larger_than_canvas", beyond, "ok", shows(size=(8, 8)))
    yield Case("gif_without_trailer", plain[:-1], "ok", exact)
    yield Case("gif_garbage_after_end", plain + b"garbage", "ok", exact)
    yield Case("gif_87a", b"GIF87a" + plain[6:], "ok", exact)
    for name, length in {"6_bytes": 6, "in_palette": 20, "in_frame_header": plain.index(b",") + 5}.items():
        yield Case(f"gif_cut_{name}", plain[:length], "truncated")
    noise = Image.fromarray(np.random.default_rng(9).integers(0, 256, (32, 32), dtype=np.uint8))
    noisy = encode(noise, "GIF")
    for share in (85, 95):
        yield Case(f"gif_cut_at_{share}_percent", noisy[: len(noisy) * share // 100], "truncated")
    yield Case("gif_without_frames", plain[:13] + plain[13 : plain.index(b",")] + b";", "corrupt")
    codes = _gif_codes([0, 1])
    yield Case("gif_data_for_two_pixels", _gif((8, 8), (0, 0, 8, 8), codes), "truncated")
    yield Case("gif_bad_code_size", by_hand.replace(b"\x00\x02", b"\x00\x0f", 1), "corrupt")
    yield Case("gif_width_0", _gif((0, 0), (0, 0, 0, 0), codes), "corrupt")
    # 65,535 is the most that a GIF can say
    yield Case("gif_bomb_canvas", _gif((65535, 65535), (0, 0, 8, 8), codes), "too_many_pixels")
    yield Case("gif_bomb_frame", _gif((8, 8), (0, 0, 65535, 65535), codes), "too_many_pixels")
    background = b"!\xf9\x04\x09\x00\x00\x01\x00"
    yield Case("gif_bomb_frame_cleared_after", _gif((8, 8), (0, 0, 65535, 65535), codes, background), "too_many_pixels")
    yield Case(
        "gif_bomb_140_megapixels_cleared_after",
        _gif((8, 8), (0, 0, 14000, 10000), codes, background),
        "too_many_pixels",
    )


# ---- BMP ------------------------------------------------------------------------------------------------------------


def _bmp(
    size: tuple[int, int], bits: int, body: bytes, compression: int = 0, extra: bytes = b"", header: int = 40
) -> bytes:
    info = struct.pack("<IiiHHIIiiII", header, *size, 1, bits, compression, len(body), 0, 0, 0, 0)
    start = 14 + len(info) + len(extra)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + extra + body


def _bmps() -> Iterator[Case]:
    plain, upright = encode(image(), "BMP"), quadrants()
    bgr = upright[..., ::-1]
    yield Case("bmp", plain, "ok", shows())
    yield Case("bmp_palette", encode(image().quantize(4), "BMP"), "ok", shows(tolerance=10))
    yield Case("bmp_grey", encode(Image.fromarray(quadrants(GREYS)[..., 0]), "BMP"), "ok", shows(GREYS))
    bilevel = Image.fromarray(quadrants((0, 255, 255, 0))).convert("1")
    yield Case("bmp_1_bit", encode(bilevel, "BMP"), "ok", shows((BLACK, WHITE, WHITE, BLACK)))
    yield Case("bmp_top_down", _bmp((WIDTH, -HEIGHT), 24, bgr.tobytes()), "ok", shows())
    four = np.dstack([bgr, np.zeros((HEIGHT, WIDTH), np.uint8)])[::-1]
    yield Case("bmp_32_bit", _bmp((WIDTH, HEIGHT), 32, four.tobytes()), "ok", shows())
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    v4 = masks + bytes(108 - 40 - 16)
    # an alpha that is zero throughout is an unused byte: nobody means a photo that cannot be seen
    empty_alpha = _bmp((WIDTH, HEIGHT), 32, four.tobytes(), 3, v4, 108)
    yield Case("bmp_32_bit_with_empty_alpha", empty_alpha, "ok", shows())
    rgba = np.asarray(translucent())[::-1, :, [2, 1, 0, 3]]
    yield Case("bmp_32_bit_with_alpha", _bmp((WIDTH, HEIGHT), 32, rgba.tobytes(), 3, v4, 108), "ok", shows(TRANSLUCENT))
    red, green, blue = (upright[..., i].astype(np.uint16) for i in range(3))
    packed = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3)[::-1].astype("<u2")
    rgb565 = _bmp((WIDTH, HEIGHT), 16, packed.tobytes(), 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F))
    yield Case("bmp_16_bit", rgb565, "ok", shows(tolerance=10))
    palette = b"".join(bytes((*colour[::-1], 0)) for colour in QUADRANTS).ljust(1024, b"\x00")
    runs = (
        b"".join(bytes((24, row // 16 * -2 + 2, 24, row // 16 * -2 + 3, 0, 0)) for row in range(HEIGHT)) + b"\x00\x01"
    )
    yield Case("bmp_run_lengths", _bmp((WIDTH, HEIGHT), 8, runs, 1, palette), "ok", shows())
    core = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    os2 = b"BM" + struct.pack("<IHHI", 26 + bgr.size, 0, 0, 26) + core + bgr[::-1].tobytes()
    yield Case("bmp_os2", os2, "ok", shows())
    yield Case("bmp_garbage_after_end", plain + b"garbage", "ok", shows())
    yield Case("bmp_file_size_0", plain[:2] + bytes(4) + plain[6:], "ok", shows())  # many writers leave it out
    yield Case("bmp_cut_2_bytes", plain[:2], "not_an_image")
    for length in (30, 54, 60, len(plain) // 2, len(plain) - 1):
        yield Case(f"bmp_cut_{length}_bytes", plain[:length], "truncated")
    yield Case("bmp_unknown_header", plain[:14] + struct.pack("<I", 16) + plain[18:], "unsupported_format")
    yield Case("bmp_jpeg_inside", _bmp((8, 8), 24, bytes(200), 4), "unsupported_format")
    yield Case("bmp_5_bit", _bmp((8, 8), 5, bytes(200)), "unsupported_format")
    yield Case("bmp_width_0", _bmp((0, 8), 24, bytes(200)), "corrupt")
    yield Case("bmp_bomb", _bmp((100_000, 100_000), 24, bytes(200)), "too_many_pixels")
    yield Case("bmp_bomb_top_down", _bmp((100_000, -100_000), 32, bytes(200)), "too_many_pixels")
    yield Case("bmp_bomb_run_lengths", _bmp((100_000, 100_000), 8, b"\xff\x00" * 99, 1, palette), "too_many_pixels")
    yield Case("bmp_bomb_negative_width", _bmp((-100_000, 100_000), 24, bytes(200)), "too_many_pixels")
    yield Case("bmp_text", b"BMW brochure for the year, with all prices", "not_an_image")


# ---- TIFF -----------------------------------------------------------------------------------------------------------

_TIFF_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 7: "s", 12: "d"}


def tiff(body: bytes, entries: dict[int, tuple[int, Any]], order: str = "<", following: int = 0) -> bytes:
    """A TIFF of one directory: the pixels at 8, then the directory, then what does not fit into it.

    Args:
        entries: (type, value or values) by tag; StripOffsets and StripByteCounts come by themselves.
    """
    entries = {273: (4, 8), 279: (4, len(body)), **entries}
    entries = {tag: entry for tag, entry in entries.items() if entry[0]}
    at = 8 + len(body)
    directory, loose = struct.pack(order + "H", len(entries)), b""
    for tag, (kind, values) in sorted(entries.items()):
        if isinstance(values, bytes):
            count, packed = len(values), values
        else:
            values = values if isinstance(values, (list, tuple)) else (values,)
            count, packed = len(values), struct.pack(f"{order}{len(values)}{_TIFF_TYPES[kind]}", *values)
        if len(packed) > 4:
            place = at + 2 + 12 * len(entries) + 4 + len(loose)
            loose, packed = loose + packed, struct.pack(order + "I", place)
        directory += struct.pack(order + "HHI", tag, kind, count) + packed.ljust(4, b"\x00")
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", at)
    return head + body + directory + struct.pack(order + "I", following) + loose


def _layout(
    width: int, height: int, bits: tuple[int, ...], photometric: int, **more: tuple[int, Any]
) -> dict[int, Any]:
    names = {"compression": 259, "planar": 284, "format": 339, "extra": 338, "orientation": 274, "rows": 278}
    entries: dict[int, tuple[int, Any]] = {256: (4, width), 257: (4, height), 258: (3, bits), 262: (3, photometric)}
    entries |= {277: (3, len(bits))} | {names[name]: value for name, value in more.items()}
    return entries


def _tiled() -> bytes:
    """Three by two tiles of 16 × 16."""
    picture = quadrants()
    tiles = [picture[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16, 32)]
    entries = _layout(WIDTH, HEIGHT, (8, 8, 8), 2) | {273: (0, 0), 279: (0, 0), 322: (3, 16), 323: (3, 16)}
    entries |= {324: (4, [8 + 768 * i for i in range(6)]), 325: (4, [768] * 6)}
    return tiff(b"".join(tiles), entries)


def _tiffs() -> Iterator[Case]:
    upright, rgb = quadrants(), _layout(WIDTH, HEIGHT, (8, 8, 8), 2)
    yield Case("tiff", encode(image(), "TIFF"), "ok", shows())
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        if features.check("libtiff"):
            yield Case(f"tiff_{compression}", encode(image(), "TIFF", compression=compression), "ok", shows())
    if features.check("libtiff"):
        yield Case("tiff_jpeg_inside", encode(image(), "TIFF", compression="jpeg", quality=95), "ok", LOSSY)
        fax = encode(Image.fromarray(quadrants((0, 255, 255, 0))).convert("1"), "TIFF", compression="group4")
        yield Case("tiff_fax", fax, "ok", shows((BLACK, WHITE, WHITE, BLACK)))
    yield Case("tiff_big_endian", tiff(upright.tobytes(), rgb, ">"), "ok", shows())
    yield Case("tiff_tiled", _tiled(), "ok", shows())
    planes = np.ascontiguousarray(upright.transpose(2, 0, 1))
    starts = {273: (4, [8 + WIDTH * HEIGHT * i for i in range(3)]), 279: (4, [WIDTH * HEIGHT] * 3)}
    planar = _layout(WIDTH, HEIGHT, (8, 8, 8), 2, planar=(3, 2)) | starts
    yield Case("tiff_planes", tiff(planes.tobytes(), planar), "ok", shows())
    pages = [Image.new("RGB", (9, 9)), Image.new("L", (5, 5))]
    yield Case("tiff_pages", encode(image(), "TIFF", save_all=True, append_images=pages), "ok", shows())
    yield Case("tiff_next_page_is_itself", tiff(upright.tobytes(), rgb, following=8 + upright.size), "ok", shows())
    yield Case("tiff_next_page_outside", tiff(upright.tobytes(), rgb, following=2**31), "ok", shows())
    for mode in ("RGBA", "LA", "L", "P", "1", "CMYK", "YCbCr", "LAB"):
        yield from _tiff_mode(mode)
    levels = np.array((0, 85, 170, 255))
    for order in "<>":
        end = "little" if order == "<" else "big"
        deep = quadrants(levels * 257).astype(order + "u2").tobytes()
        yield Case(
            f"tiff_grey_16_bit_{end}_endian", tiff(deep, _layout(WIDTH, HEIGHT, (16,), 1), order), "ok", shows(GREYS)
        )
        rgb16 = (upright.astype(int) * 257).astype(order + "u2").tobytes()
        layout = _layout(WIDTH, HEIGHT, (16, 16, 16), 2)
        yield Case(f"tiff_rgb_16_bit_{end}_endian", tiff(rgb16, layout, order), "ok", shows())
    negative = Image.fromarray((65535 - quadrants(levels * 257)).astype("<u2"))
    inverse = tiff(negative.tobytes(), _layout(WIDTH, HEIGHT, (16,), 0))
    yield Case("tiff_grey_16_bit_white_is_0", inverse, "ok", shows_size((WIDTH, HEIGHT)))
    for top in (255, 65535, 2**31 - 1):
        whole = quadrants(levels * (top // 255)).astype("<i4").tobytes()
        layout = _layout(WIDTH, HEIGHT, (32,), 1, format=(3, 2))
        yield Case(f"tiff_grey_32_bit_up_to_{top}", tiff(whole, layout), "ok", shows(GREYS))
    float_layout = _layout(WIDTH, HEIGHT, (32,), 1, format=(3, 3))
    for name, real in {"1": levels / 255, "255": levels * 1.0, "1000": levels / 0.255}.items():
        yield Case(
            f"tiff_float_up_to_{name}", tiff(quadrants(real).astype("<f4").tobytes(), float_layout), "ok", shows(GREYS)
        )
    odd = quadrants((0.0, np.nan, -5.0, 1.0)).astype("<f4")
    odd[0, :4] = np.nan, np.inf, -np.inf, 3e-39
    yield Case("tiff_float_not_a_number", tiff(odd.tobytes(), float_layout), "ok", shows((BLACK, BLACK, BLACK, WHITE)))
    for orientation in range(1, 9):
        turned = stored(upright, orientation)
        layout = _layout(turned.shape[1], turned.shape[0], (8, 8, 8), 2, orientation=(3, orientation))
        yield Case(f"tiff_orientation_{orientation}", tiff(turned.tobytes(), layout), "ok", shows())
    turned = stored(upright, 6)
    if features.check("libtiff"):
        packed = encode(Image.fromarray(turned), "TIFF", compression="tiff_lzw", tiffinfo={274: 6})
        yield Case("tiff_lzw_orientation_6", packed, "ok", shows())
    loops = {34665: (4, 8 + upright.size), 34853: (4, 2**31)}
    metadata: dict[str, dict[int, tuple[int, Any]]] = {
        "exif_is_itself": loops,
        "icc_garbage": {34675: (7, ICC_GARBAGE)},
        "xmp_garbage": {700: (1, [255] * 99)},
        "photoshop_garbage": {34377: (7, b"8BIM" + b"\xff" * 99)},
        "two_widths": {256: (4, [WIDTH, 7])},
        "unknown_type": {40000: (1, 3)},
        "text_without_end": {270: (2, b"description")},
    }
    for name, entries in metadata.items():
        yield Case(f"tiff_{name}", tiff(upright.tobytes(), rgb | entries), "ok", shows())
    outside = tiff(upright.tobytes(), rgb | {270: (2, b"far away")})
    yield Case("tiff_text_outside", outside[: len(outside) - 8], "ok", shows())


def _tiff_mode(mode: str) -> Iterator[Case]:
    name = f"tiff_{mode.lower()}"
    if mode == "RGBA":
        yield Case(name, encode(translucent(), "TIFF"), "ok", shows(TRANSLUCENT))
    elif mode == "LA":
        picture = Image.frombytes("LA", (WIDTH, HEIGHT), quadrants(((0, 255), (0, 0), (0, 128), (200, 255))).tobytes())
        yield Case(name, encode(picture, "TIFF"), "ok", shows((BLACK, WHITE, (127, 127, 127), (200, 200, 200))))
    elif mode == "1":
        bilevel = Image.fromarray(quadrants((0, 255, 255, 0))).convert("1")
        yield Case(name, encode(bilevel, "TIFF"), "ok", shows((BLACK, WHITE, WHITE, BLACK)))
    elif mode == "L":
        yield Case(name, encode(Image.fromarray(quadrants(GREYS)[..., 0]), "TIFF"), "ok", shows(GREYS))
    elif mode == "P":
        yield Case(name, encode(image().quantize(4), "TIFF"), "ok", shows(tolerance=10))
    elif mode == "CMYK":
        yield Case(name, encode(image("CMYK"), "TIFF"), "ok", shows())
    elif mode == "LAB":
        # L, a, b, under the light D50, of red, green, blue and yellow in sRGB
        samples = quadrants(((54, 81, 70), (88, -79, 81), (30, 68, -112), (98, -16, 93)))
        lab = np.stack([samples[..., 0] * 255 // 100, samples[..., 1] % 256, samples[..., 2] % 256], -1).astype(
            np.uint8
        )
        red_to_yellow: Colours = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
        yield Case(name, tiff(lab.tobytes(), _layout(WIDTH, HEIGHT, (8, 8, 8), 8)), "ok", shows(red_to_yellow, 30))
    elif features.check("libtiff"):
        yield Case(name, encode(image("YCbCr"), "TIFF", compression="tiff_lzw"), "ok", shows(tolerance=10))


def _tiff_damage() -> Iterator[Case]:
    upright, rgb = quadrants(), _layout(WIDTH, HEIGHT, (8, 8, 8), 2)
    plain = tiff(upright.tobytes(), rgb)
    for length in (6, 8, 100, len(plain) - 20, len(plain) - 3):  # in the header, before the directory, in it, after it
        yield Case(f"tiff_cut_{length}_bytes", plain[:length], "truncated")
    yield Case("tiff_pixels_cut", tiff(upright.tobytes()[:2000], rgb), "truncated")
    if features.check("libtiff"):
        packed = encode(image(), "TIFF", compression="tiff_lzw")
        yield Case("tiff_lzw_cut", packed[:-2] if packed[4] < 16 else packed[: len(packed) // 2], "truncated")
        noise = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        deflated = bytearray(encode(Image.fromarray(noise), "TIFF", compression="tiff_adobe_deflate"))
        deflated[len(deflated) // 2 : len(deflated) // 2 + 20] = bytes(20)
        yield Case("tiff_deflate_damaged", bytes(deflated), "corrupt")
    yield Case("tiff_without_entries", tiff(b"", {273: (0, 0), 279: (0, 0)}), "corrupt")
    yield Case("tiff_width_0", tiff(upright.tobytes(), rgb | {256: (4, 0)}), "corrupt")
    yield Case("tiff_without_width", tiff(upright.tobytes(), rgb | {256: (0, 0)}), "corrupt")
    yield Case("tiff_width_as_text", tiff(upright.tobytes(), rgb | {256: (2, b"48\x00")}), "corrupt")
    yield Case("tiff_without_pixels", tiff(b"", rgb | {273: (0, 0), 279: (0, 0)}), "corrupt")
    yield Case("tiff_unknown_compression", tiff(upright.tobytes(), rgb | {259: (3, 4711)}), "unsupported_format")
    yield Case("tiff_5_channels", tiff(upright.tobytes(), _layout(9, 9, (8,) * 5, 2)), "unsupported_format")
    yield Case("tiff_float_64_bit", tiff(bytes(648), _layout(9, 9, (64,), 1, format=(3, 3))), "unsupported_format")
    yield Case("tiff_big", b"II+\x00\x08\x00\x00\x00" + struct.pack("<QQ", 16, 0), "unsupported_format")
    for compression in (1, 5, 8, 7):
        bomb = _layout(100_000, 100_000, (8, 8, 8), 2, compression=(3, compression))
        yield Case(f"tiff_bomb_compression_{compression}", tiff(bytes(99), bomb), "too_many_pixels")
    yield Case(
        "tiff_bomb_float", tiff(bytes(99), _layout(100_000, 100_000, (32,), 1, format=(3, 3))), "too_many_pixels"
    )
    wide = _layout(4_000_000_000, 4_000_000_000, (1,), 1)
    yield Case("tiff_bomb_16_million_terapixels", tiff(bytes(99), wide), "too_many_pixels")
    page = tiff(bytes(99), _layout(100_000, 100_000, (8,), 1))
    yield Case("tiff_bomb_on_second_page", _with_second_page(plain, page), "ok", shows())
    many = (
        plain[: 8 + upright.size]
        + struct.pack("<H", 65535)
        + b"\x00\x9c\x07\x00\xff\xff\xff\x00\x08\x00\x00\x00" * 65535
    )
    yield Case("tiff_bomb_of_tags", many + bytes(4), "corrupt")


def _with_second_page(first: bytes, second: bytes) -> bytes:
    (directory,) = struct.unpack_from("<I", first, 4)
    (count,) = struct.unpack_from("<H", first, directory)
    (second_directory,) = struct.unpack_from("<I", second, 4)
    link = directory + 2 + 12 * count
    return first[:link] + struct.pack("<I", len(first) + second_directory) + first[link + 4 :] + second


# ---- WebP and AVIF --------------------------------------------------------------------------------------------------


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for name, part in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _webps() -> Iterator[Case]:
    if not features.check("webp"):
        return
    lossy, lossless = encode(image(), "WEBP", quality=95), encode(image(), "WEBP", lossless=True)
    yield Case("webp", lossy, "ok", LOSSY)
    yield Case("webp_lossless", lossless, "ok", shows())
    yield Case("webp_alpha", encode(translucent(), "WEBP", lossless=True, exact=True), "ok", shows(TRANSLUCENT))
    yield Case("webp_alpha_lossy", encode(translucent(), "WEBP", quality=95), "ok", shows(TRANSLUCENT, 30))
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((9, 9, 9), (99, 99, 99))]
    animated = encode(image(), "WEBP", save_all=True, append_images=others, lossless=True)
    yield Case("webp_animated", animated, "ok", shows())
    for orientation in range(1, 9):
        turned = Image.fromarray(stored(quadrants(), orientation))
        block = exif(orientation, "><"[orientation % 2])
        yield Case(f"webp_orientation_{orientation}", encode(turned, "WEBP", lossless=True, exif=block), "ok", shows())
    turned = Image.fromarray(stored(quadrants(), 8))
    prefixed = encode(turned, "WEBP", lossless=True, exif=b"Exif\x00\x00" + exif(8))
    yield Case("webp_orientation_after_a_jpeg_prefix", prefixed, "ok", shows())
    for name, block in BAD_EXIF.items():
        if name not in ("empty", "many_values"):
            yield Case(f"webp_exif_{name}", encode(image(), "WEBP", lossless=True, exif=block), "ok", shows())
    yield Case("webp_icc_garbage", encode(image(), "WEBP", lossless=True, icc_profile=ICC_GARBAGE), "ok", shows())
    yield Case("webp_xmp_garbage", encode(image(), "WEBP", lossless=True, xmp=b"<x \xff"), "ok", shows())
    yield Case("webp_garbage_after_end", lossy + b"garbage", "ok", LOSSY)
    yield Case("webp_cut_11_bytes", lossy[:11], "not_an_image")
    for name, whole in {"lossy": lossy, "lossless": lossless, "animated": animated}.items():
        for length in (12, 25, 40, len(whole) // 2, len(whole) - 4):
            yield Case(f"webp_{name}_cut_{length}_bytes", whole[:length], "truncated")
    yield Case("webp_damaged_frame_tag", lossy[:23] + b"\x00\x00\x00" + lossy[26:], "corrupt")
    yield Case("webp_unknown_chunk", _riff((b"ABCD", bytes(40))), "corrupt")
    yield Case("webp_without_image", _riff((b"VP8X", bytes(10)), (b"EXIF", exif(1))), "corrupt")
    # 16,383 pixels is the most a still WebP can say, 16,777,216 an extended one
    vp8 = lossy[20:26] + struct.pack("<HH", 16383, 16383) + lossy[30:]
    yield Case("webp_bomb", _riff((b"VP8 ", vp8)), "too_many_pixels")
    vp8l = b"\x2f" + struct.pack("<I", 16383 | 16383 << 14) + bytes(40)
    yield Case("webp_bomb_lossless", _riff((b"VP8L", vp8l)), "too_many_pixels")
    for side in (14_000, 100_000):
        canvas = b"\x02\x00\x00\x00" + (side - 1).to_bytes(3, "little") * 2
        frame = bytes(16) + b"VP8L" + struct.pack("<I", 5) + b"\x2f" + bytes(5)
        bomb = _riff((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", frame))
        yield Case(f"webp_bomb_animated_{side}", bomb, "too_many_pixels")


def _avifs() -> Iterator[Case]:
    if not features.check("avif"):
        return
    options: dict[str, Any] = {"quality": 95, "speed": 10, "subsampling": "4:4:4", "max_threads": 1}
    plain = encode(image(), "AVIF", **options)
    yield Case("avif", plain, "ok", LOSSY)
    yield Case("avif_alpha", encode(translucent(), "AVIF", **options), "ok", shows(TRANSLUCENT, 30))
    yield Case(
        "avif_grey", encode(Image.fromarray(quadrants(GREYS)[..., 0]), "AVIF", **options), "ok", shows(GREYS, 12)
    )
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ((9, 9, 9), (99, 99, 99))]
    yield Case("avif_animated", encode(image(), "AVIF", save_all=True, append_images=others, **options), "ok", LOSSY)
    for orientation in range(1, 9):
        turned = Image.fromarray(stored(quadrants(), orientation))
        yield Case(
            f"avif_orientation_{orientation}", encode(turned, "AVIF", exif=exif(orientation), **options), "ok", LOSSY
        )
    # the container's own turn is valid, its EXIF block a wreck
    turned = Image.fromarray(stored(quadrants(), 6))
    with_exif = encode(turned, "AVIF", exif=exif(6), **options)
    at = with_exif.index(exif(6)[:8])
    wrecks = {
        "text": b"nonsense",
        "offset_outside": b"II*\x00\xff\xff\xff\x7f",
        "pointer_to_itself": b"II*\x00\x00\x00\x00\x00",
    }
    for name, head in wrecks.items():
        yield Case(f"avif_exif_{name}", with_exif[:at] + head + with_exif[at + 8 :], "ok", LOSSY)
    yield Case("avif_icc_garbage", encode(image(), "AVIF", icc_profile=ICC_GARBAGE, **options), "ok", LOSSY)
    yield Case("avif_garbage_after_end", plain + b"garbage!" * 9, "ok", LOSSY)
    yield Case("avif_cut_7_bytes", plain[:7], "not_an_image")
    for length in (16, 40, 150, len(plain) // 2, len(plain) - 1):
        yield Case(f"avif_cut_{length}_bytes", plain[:length], "truncated")
    middle = plain.index(b"mdat") + 4
    yield Case("avif_damaged_data", plain[:middle] + bytes(len(plain) - middle), "corrupt")
    # may as well be a file cut between two boxes
    yield Case("avif_without_boxes", plain[: int.from_bytes(plain[:4], "big")] + b"\x00\x00\x00\x08free", "truncated")
    at = plain.index(b"ispe") + 8
    for side in (20_000, 100_000):
        bomb = plain[:at] + struct.pack(">II", side, side) + plain[at + 8 :]
        yield Case(f"avif_bomb_{side}", bomb, "too_many_pixels")


def _heics() -> Iterator[Case]:
    """With pillow-heif installed as any other format; else the one thing to say is that it is missing."""
    head = b"\x00\x00\x00\x18ftyp%b\x00\x00\x00\x00%b\x00\x00\x01\x00meta"
    for brand in (b"heic", b"heix", b"mif1"):
        kind = "truncated" if importlib.util.find_spec("pillow_heif") else "missing_codec"
        yield Case(f"heic_name_alone_{brand.decode()}", head % (brand, brand), kind)
    if not importlib.util.find_spec("pillow_heif"):
        return
    import pillow_heif

    def heic(picture: Image.Image, **options: Any) -> bytes:
        buffer = io.BytesIO()
        pillow_heif.encode(picture.mode, picture.size, picture.tobytes(), buffer, quality=95, **options)
        return buffer.getvalue()

    plain = heic(image())
    yield Case("heic", plain, "ok", LOSSY)
    yield Case("heic_alpha", heic(translucent()), "ok", shows(TRANSLUCENT, 30))
    # the encoder turns the EXIF orientation into a property of the container, which counts
    with_exif = heic(Image.fromarray(stored(quadrants(), 6)), exif=b"Exif\x00\x00" + exif(6))
    yield Case("heic_orientation_6", with_exif, "ok", LOSSY)
    at = with_exif.index(exif(6)[:8])
    yield Case("heic_exif_garbage", with_exif[:at] + b"nonsense" + with_exif[at + 8 :], "ok", LOSSY)
    for length in (40, len(plain) // 2, len(plain) - 9):
        yield Case(f"heic_cut_{length}_bytes", plain[:length], "truncated")
    middle = plain.index(b"mdat") + 12
    yield Case("heic_damaged_data", plain[:middle] + b"\xff" * (len(plain) - middle), "corrupt")
    at = plain.index(b"ispe") + 8
    bomb = plain[:at] + struct.pack(">II", 100_000, 100_000) + plain[at + 8 :]
    yield Case("heic_bomb", bomb, "too_many_pixels")


# ---- what is no photo, or none of ours ------------------------------------------------------------------------------


def _strangers() -> Iterator[Case]:
    text = {
        "empty": b"",
        "one_zero": b"\x00",
        "zeros": bytes(2000),
        "text_named_jpg": b"This is not a photo, whatever its name says.\n" * 9,
        "html": b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>",
        "html_with_space_before": b"\xef\xbb\xbf\r\n  <HTML><body>Forbidden</body></HTML>",
        "html_with_svg_inside": b"<html><body><svg xmlns='http://www.w3.org/2000/svg'/></body></html>",
        "json": b'{"error": {"code": 403, "message": "expired"}}',
        "xml_error": b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
        "wav": b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28),
        "avi": b"RIFF" + struct.pack("<I", 36) + b"AVI LIST" + bytes(28),
        "mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(40),
        "mov": b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  " + bytes(40),
        "mp3": b"ID3\x04\x00" + bytes(60),
        "zip": b"PK\x03\x04" + bytes(60),
        "gzip": b"\x1f\x8b\x08\x00" + bytes(60),
        "random": np.random.default_rng(1).integers(0, 256, 999, dtype=np.uint8).tobytes(),
    }
    for name, data in text.items():
        yield Case(name, data, "not_an_image")
    others = {
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "svg_after_prolog": b'<?xml version="1.0"?>\n<!-- ' + b"drawn by hand " * 99 + b"-->\n<!DOCTYPE svg>\n<svg/>",
        "icon": encode(image(), "ICO", sizes=[(32, 32)]),
        "photoshop": b"8BPS\x00\x01" + bytes(60),
        "jpeg_xl": b"\xff\x0a" + bytes(60),
        "jpeg_xl_container": b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(60),
        "jpeg_2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60),
        "jpeg_2000_codestream": b"\xff\x4f\xff\x51\x00\x2f" + bytes(60),
        "jpeg_xr": b"II\xbc\x01" + bytes(60),
        "qoi": b"qoif" + bytes(60),
        "radiance": b"#?RADIANCE\n" + bytes(60),
    }
    for name, data in others.items():
        yield Case(name, data, "unsupported_format")
