"""Changes files as an enemy would: bytes, words, values of JSON, members of a zip, chunks of a PNG.

Every function draws from the generator that it gets: equal seeds give equal files.
"""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

LARGEST = 100_000
"""Most bytes of a mutated file: promises about time and memory are made for so many."""
_RAW = "\x00raw\x00"
_EVIL_NUMBERS = (
    *("0", "-1", "1", "2", "1e999", "-1e999", "NaN", "Infinity", "1e39", "-1e39", "5e-324", "0.5"),
    *("1e308", "1e9", "-0.0", "9223372036854775807", "18446744073709551616", "9" * 400, "9" * 5000),
    *("true", "1e-9", "1000000000", "4294967296", "100000"),
)
_EVIL_TEXTS = (
    *('""', '"a"', r'"\ud800"', r'"\u0000"', r'"\u001b]0;owned\u0007\u001b[31m\u202e"', '"nan"'),
    *(f'"{"a" * 50_000}"', f'"{"a." * 20_000}"', '"../../x"', '"/etc/passwd"', '"=1+1"', '"-"'),
    *('"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"', '"2025-11-03T09:30:00"'),
    *(
        '"<script>"',
        '"|a|\\n|b|"',
        '"[x](javascript:1)"',
        '"auto"',
        '"cpu"',
        '"cuda"',
        '"completed"',
    ),
    *('"--seed"', '"--label"', '"2025-11-03"', '"%s%n{0}"', '"' + "9" * 5000 + '"', '"fast"'),
)
_EVIL_OTHERS = (
    *("null", "[]", "{}", "[[]]", '{"a": 1, "a": 2}', "[null]", "[1, 1]", '["", ""]', '{"": {}}'),
    *("[" * 10_000 + "]" * 10_000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 300 + "]" * 300),
    *("[" * 900 + "]" * 900, "[" + "0," * 30_000 + "0]", '["-----"]'),
    "{" + ",".join(f'"{number}":0' for number in range(8000)) + ',"7999":1}',
)
_EVIL_BYTES = (
    *(
        b"\x00",
        b"\xff",
        b"\x7f",
        b"\x80",
        b"\n",
        b"\r",
        b"\x1b[31m",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
    ),
    *(b"\xff\xfe", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\xe2\x80\xae"),
)
_MEMBER_NAMES = (
    *(
        "a.json",
        "b/a.json",
        "../a.json",
        "../../../tmp/a.json",
        "/etc/a.json",
        "C:\\a.json",
        ".json",
    ),
    *("a.json/", "x\x1b[31m\u202e.json", "n" * 300 + ".json", "a/" * 2000 + "a.json", ".a/a.json"),
    *("\ud7ffa.json", "a\x00.json", "a.zip", "./a.json", "a//a.json", "CON.json", "local/a.json"),
)


def mutated_bytes(rng: random.Random, content: bytes, words: Sequence[bytes] = ()) -> bytes:
    """Some of: bits flipped, pieces put in, taken out, doubled, moved, repeated very often, cut."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 100, 1000)))
        piece = rng.choice((*_EVIL_BYTES, *words, *words, bytes(data[at:end]), rng.randbytes(3)))
        match rng.randrange(8):
            case 0 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = piece
            case 2:
                del data[at:end]
            case 3:
                data[at:end] = piece
            case 4:
                data[at:at] = data[at:end] * rng.choice((1, 2, 50))
            case 5:
                other = rng.randrange(len(data) + 1)
                data[other:other] = data[at:end]
            case 6 if rng.random() < 0.3:
                data[at:at] = piece * (LARGEST // 2 // max(1, len(piece)))
            case 7 if rng.random() < 0.3:
                del data[at:]
    return bytes(data[:LARGEST])


def mutated_words(rng: random.Random, content: bytes, words: Sequence[bytes]) -> bytes:
    """A text of a small language: words of it in any order, or a known text with changes."""
    if rng.random() < 0.4:
        chosen = rng.choices(words, k=rng.choice((1, 2, 3, 5, 8, 12, 30)))
        content = rng.choice((b" ", b"", b" ")).join(chosen)
    return content if rng.random() < 0.2 else mutated_bytes(rng, content, words)


def mutated_json(rng: random.Random, content: bytes) -> bytes:
    """Values, keys or whole parts replaced by others that are legal JSON, or nearly so."""
    if rng.random() < 0.1:
        return mutated_bytes(rng, content)
    document = json.loads(content)
    raw: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        document = _with_change(rng, document, raw)
    text = json.dumps(document, indent=rng.choice((None, 2)))
    for value in raw:
        text = text.replace(json.dumps(_RAW), value, 1)
    return text.encode("utf-8", "surrogatepass")[:LARGEST]


def mutated_lines(rng: random.Random, content: bytes) -> bytes:
    """Lines of JSON, one of which is changed, left out, doubled or moved."""
    lines = content.splitlines()
    place = rng.randrange(len(lines))
    match rng.randrange(5):
        case 0:
            del lines[place]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[place])
        case 2:
            return mutated_bytes(rng, content)
        case _:
            lines[place] = mutated_json(rng, lines[place])
    return b"\n".join(lines)


def _with_change(rng: random.Random, document: Any, raw: list[str]) -> Any:
    """The document with one change; what only text can say is put into `raw`, in order."""
    places = list(_places(document))
    if not places:
        return document
    parent, key = rng.choice(places)
    old = parent[key]
    other_parent, other_key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del parent[key]
        case 1:
            parent[key] = json.loads(json.dumps(other_parent[other_key]))
        case 2 if isinstance(parent, dict):
            name = rng.choice(("", "a", "name", "\u202e", f"{key}x", str(other_key), "k" * 50_000))
            parent[name] = parent.pop(key)
        case 3 if isinstance(parent, list):
            parent.insert(key, json.loads(json.dumps(old)))
        case 4 if isinstance(old, int | float) and not isinstance(old, bool):
            parent[key] = rng.choice((old + 1, -old, old * 1000, old / 3, old * 1e30, int(old) + 1))
        case _ if not raw:
            kinds = (_EVIL_NUMBERS, _EVIL_TEXTS, _EVIL_OTHERS)
            same = _EVIL_TEXTS if isinstance(old, str) else _EVIL_NUMBERS
            parent[key] = _RAW
            raw.append(rng.choice(rng.choice((same, same, *kinds))))
    return document


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a value in a document: the dict or list that holds it, and its key."""
    places: list[tuple[Any, Any]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in inner:
        places.append((value, key))
        if isinstance(child, dict | list):
            places += _places(child)
    return places


def mutated_zip(rng: random.Random, content: bytes) -> bytes:
    """A zip file around a document: bad names, kinds, bombs and doubles, or its bytes changed."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
        warnings.simplefilter("ignore")  # two members of one name
        for _ in range(rng.choice((1, 1, 2, 3, 20))):
            member = zipfile.ZipInfo(rng.choice(_MEMBER_NAMES))
            member.compress_type = rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
            )
            member.external_attr = rng.choice((0, 0o120777 << 16, 0o010644 << 16, 0o755 << 16))
            body = rng.choice((content, mutated_json(rng, content), b"", b"x", b" " * 3_000_000))
            archive.writestr(member, body)
    data = stream.getvalue()
    return data if rng.random() < 0.3 else mutated_bytes(rng, data, (b"PK\x01\x02", b"PK\x05\x06"))


def mutated_png(rng: random.Random, content: bytes) -> bytes:
    """A PNG with chunks changed, doubled or left out, and right sums; others by their bytes."""
    if not content.startswith(b"\x89PNG") or rng.random() < 0.2:
        return mutated_bytes(rng, content)
    chunks, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(chunks))
        kind, body = chunks[place]
        match rng.randrange(6):
            case 0:
                chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
            case 1 if len(chunks) > 1:
                del chunks[place]
            case 2 if kind == b"IHDR":
                sizes = (0, 1, 2, 28, 513, 9000, 9400, 65_536, 2**31 - 1, 2**32 - 1)
                width, height = rng.choice(sizes), rng.choice(sizes)
                bits, colours = rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 1, 255))
                rest = bytes((bits, colours, rng.choice((0, 0, 1)), 0, rng.choice((0, 1))))
                chunks[place] = kind, struct.pack(">II", width, height) + rest
            case 3:
                names = (b"eXIf", b"iTXt", b"zTXt", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"tRNS")
                texts = (body, b"", _text_bomb(), b"Exif\0\0MM")
                new = rng.choice((*names, b"iCCP", b"gAMA", b"cHRM", b"pHYs")), rng.choice(texts)
                chunks.insert(rng.randrange(1, len(chunks) + 1), new)
            case _:
                chunks[place] = kind, mutated_bytes(rng, body)
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return (content[:8] + b"".join(parts))[:LARGEST]


@cache
def _text_bomb() -> bytes:
    """A compressed text of 80 MB, after its keyword."""
    return b"a\0\0" + zlib.compress(bytes(80_000_000))


def mutated_safetensors(rng: random.Random, content: bytes) -> bytes:
    """Weights with another header of right length, or with other bytes."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, content)
    end = 8 + int.from_bytes(content[:8], "little")
    header = mutated_json(rng, content[8:end])
    if rng.random() < 0.4:
        known = (b"F32", b"F64", b"F16", b"BF16", b"I64", b"U64", b"U16", b"BOOL", b"I8", b"I32")
        other = (b"F8_E4M3", b"F8_E5M2", b"F8_E8M0", b"F4", b"F6_E2M3", b"C64", b"U32")
        old, new = rng.choice((b'"F32"', b'"I64"')), b'"%s"' % rng.choice(known + other)
        header = content[8:end].replace(old, new, rng.choice((1, 99)))
    length = rng.choice((len(header),) * 9 + (0, 2**63, len(header) + 1))
    return length.to_bytes(8, "little") + header + content[end:]
