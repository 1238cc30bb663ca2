"""Reads what a shared library is for and what it exports, on any machine.

Formats: ELF (Linux; `man 5 elf`) and Mach-O (macOS; <mach-o/loader.h>, <mach-o/nlist.h>), both with
64 bits and the least significant byte first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
_SECTION_DYNSYM = 11
_MACH_O_MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
_MACH_O_LIBRARY = 6
_LOAD_SYMTAB, _LOAD_SIGNATURE = 0x2, 0x1D
_NLIST_EXTERNAL, _NLIST_TYPE, _NLIST_SECTION = 0x01, 0x0E, 0x0E


@dataclass(frozen=True, kw_only=True)
class SharedLibrary:
    """What a file is."""

    system: str
    """linux or macos."""
    architecture: str
    """x86_64 or aarch64."""
    functions: frozenset[str]
    """Exported names of C, as the source has them."""


def parse(content: bytes) -> SharedLibrary:
    """Read a library's header and its table of symbols.

    Raises:
        ValueError: it is not a library for Linux or macOS, or macOS would not load it.
    """
    try:
        if content[:6] == b"\x7fELF\x02\x01":
            (machine,) = struct.unpack_from("<H", content, 18)
            names = list(_elf_names(content))
            system, architecture = "linux", _ELF_MACHINES.get(machine)
        elif content[:4] == b"\xcf\xfa\xed\xfe":
            (machine,) = struct.unpack_from("<I", content, 4)
            names = _mach_o_names(content)
            system, architecture = "macos", _MACH_O_MACHINES.get(machine)
        else:
            raise ValueError(f"neither ELF nor Mach-O of 64 bits: it starts with {content[:4]!r}")
        if architecture is None:
            raise ValueError(f"unknown machine number {machine}")
        # The names of C++ start with _Z.
        functions = frozenset(name for name in names if name and not name.startswith("_"))
    except struct.error as error:
        raise ValueError(f"damaged: {error}") from error
    return SharedLibrary(system=system, architecture=architecture, functions=functions)


def _text(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()


def _elf_names(content: bytes) -> Iterator[str]:
    (sections_at,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    # name, type, flags, address, offset, size, link, info, alignment, size of an entry
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", content, sections_at + i * size) for i in range(count)
    ]
    for section in sections:
        if section[1] == _SECTION_DYNSYM:
            names_at = sections[section[6]][4]
            for at in range(section[4], section[4] + section[5], section[9]):
                name, _, _, defined_in = struct.unpack_from("<IBBH", content, at)
                if defined_in:
                    yield _text(content, names_at + name)


def _mach_o_names(content: bytes) -> list[str]:
    kind, commands = struct.unpack_from("<II", content, 12)
    if kind != _MACH_O_LIBRARY:
        raise ValueError(f"a Mach-O file of kind {kind} is no library")
    names, signed, at = [], False, 32
    for _ in range(commands):
        command, size = struct.unpack_from("<II", content, at)
        signed |= command == _LOAD_SIGNATURE
        if command == _LOAD_SYMTAB:
            symbols_at, count, names_at, _ = struct.unpack_from("<IIII", content, at + 8)
            for i in range(count):
                name, kind, _, _, _ = struct.unpack_from("<IBBHQ", content, symbols_at + 16 * i)
                if kind & _NLIST_EXTERNAL and kind & _NLIST_TYPE == _NLIST_SECTION:
                    names.append(_text(content, names_at + name).removeprefix("_"))
        at += size
    if not signed:
        raise ValueError("it has no signature, without which macOS loads none on arm64")
    return names
