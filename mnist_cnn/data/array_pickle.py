"""Reads MNIST from a pickle of numpy arrays, without running what a pickle names."""

from __future__ import annotations

import gzip
import pickle
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mnist_cnn.data.files import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS


def idx_contents(packed: IO[bytes]) -> dict[str, bytes]:
    """The four IDX files, by name, from the gzipped pickle.

    Raises:
        pickle.UnpicklingError: the pickle holds anything but arrays of numbers.
    """
    try:
        with gzip.GzipFile(fileobj=packed) as stream:
            (train, validation, test) = ArrayUnpickler(stream).load()
        return _joined(train, validation, test)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise pickle.UnpicklingError(f"it is no pickle of arrays: {error}") from error


def _joined(train: _Pair, validation: _Pair, test: _Pair) -> dict[str, bytes]:
    """The files' contents from images and labels."""
    return {
        TRAIN_IMAGES.name: TRAIN_IMAGES.header + _pixels(train[0]) + _pixels(validation[0]),
        TRAIN_LABELS.name: TRAIN_LABELS.header + _bytes(train[1]) + _bytes(validation[1]),
        TEST_IMAGES.name: TEST_IMAGES.header + _pixels(test[0]),
        TEST_LABELS.name: TEST_LABELS.header + _bytes(test[1]),
    }


class PickledType:
    """A number's type in a pickle."""

    def __init__(self, name: str, *_: object) -> None:
        if name not in _TYPES:
            raise pickle.UnpicklingError(f"it has values of type {str(name)[:20]!r}, not numbers")
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Accept the order of bytes that nearly every machine has."""
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError("its numbers have another order of bytes")


class PickledArray:
    """An array in a pickle, whose parts are checked before numpy sees them."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep what numpy wrote: version, shape, type, order and bytes."""
        _, self.shape, self.type, self.is_fortran, content = state
        # Python 2 wrote bytes as a string.
        self.content = content.encode("latin1") if isinstance(content, str) else bytes(content)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The array, for numpy; its bytes must be those of its shape and type."""
        flat = np.frombuffer(self.content, _TYPES[self.type.name])
        array = flat.reshape(self.shape, order="F" if self.is_fortran else "C")
        return array.astype(dtype or array.dtype, copy=bool(copy))


def _new_array(*_: object) -> PickledArray:
    return PickledArray()


_TYPES = {name: np.dtype(name).newbyteorder("<") for name in ("b1", "u1", "f4", "f8", "i4", "i8")}
_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy._core.multiarray", "_reconstruct"): _new_array,
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
}


_Pair = tuple[PickledArray, PickledArray]


def _pixels(fractions: PickledArray) -> bytes:
    return _to_bytes(fractions, 256)


def _bytes(values: PickledArray) -> bytes:
    return _to_bytes(values, 1)


def _to_bytes(array: PickledArray, scale: int) -> bytes:
    """The values times `scale` without their fractions, a byte each.

    Raises:
        pickle.UnpicklingError: one is no byte: what numpy makes of it depends on the machine.
    """
    values = array.__array__()
    if not np.all((values >= 0) & (values < 256 / scale)):
        raise pickle.UnpicklingError("it has values that are no bytes")
    return (values * np.float32(scale)).astype(np.uint8).tobytes()


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of tuples and `PickledArray`s, also Python 2's; refuses all others.

    numpy's own classes are not called: what a pickle says of an array is not checked by them.

    Raises:
        pickle.UnpicklingError: from `load`, for any other class or function.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        # latin1: Python 2 wrote an array's bytes as a string.
        super().__init__(stream, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the names that an array's pickle has."""
        if (module, name) in _PICKLED:
            return _PICKLED[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
