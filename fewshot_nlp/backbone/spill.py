"""Tensors on disk under keys: an append-only file that is read through a memory map, and its index."""

import fcntl
import os
import struct
import zlib
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshot_nlp.errors import FewShotError, logger

_RECORD = struct.Struct("<16sQQI")  # digest of the key, offset, bytes, CRC-32 of the bytes


class Spill:
    """A file of tensors of one type and width, shared by the processes of a machine and by later runs.

    The first process that opens it writes; others read what was there when they opened it. What a crash left
    half written is not found again, and a value whose checksum is wrong counts as not there.

    Args:
        folder: where to; it is made.
        name: of the pair of files; must say what the tensors depend on, such as an encoder's fingerprint.
        like: an example row, for type and width.
        max_bytes: the file is not grown beyond it.

    Raises:
        FewShotError: the folder cannot be made or opened.
    """

    def __init__(self, folder: Path, name: str, like: Tensor, max_bytes: int) -> None:
        self.max_bytes, self._dtype, self._width = max_bytes, like.dtype, like.shape[-1]
        stem = f"{name}-{str(like.dtype).removeprefix('torch.')}-{self._width}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._data = os.open(folder / f"{stem}.rows", os.O_RDWR | os.O_CREAT, 0o644)
            self._index = os.open(folder / f"{stem}.index", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise FewShotError(
                f"The folder {folder} cannot hold cached activations: {error.strerror}."
            ) from error
        try:
            fcntl.flock(self._index, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.writes = True
        except BlockingIOError:
            self.writes = False
        self._path = folder / f"{stem}.rows"
        self._map = np.empty(0, np.uint8)
        self._where: dict[bytes, tuple[int, int, int]] = {}
        whole = os.fstat(self._index).st_size // _RECORD.size * _RECORD.size
        self._end, self._records = 0, whole
        for digest, offset, size, crc in _RECORD.iter_unpack(os.pread(self._index, whole, 0)):
            self._where[digest] = (offset, size, crc)
            self._end = max(self._end, offset + size)

    def get(self, key: bytes) -> Tensor | None:
        """The rows kept under a key, [n_rows, width]; None where there are none, or damaged ones."""
        found = self._where.get(_digest(key))
        if found is None:
            return None
        offset, size, crc = found
        if offset + size > len(self._map):
            if os.fstat(self._data).st_size < offset + size:
                return None
            self._map = np.memmap(self._path, np.uint8, mode="r")
        data = self._map[offset : offset + size].tobytes()
        if zlib.crc32(data) != crc:
            return None
        return torch.frombuffer(bytearray(data), dtype=self._dtype).view(-1, self._width)

    def put(self, key: bytes, value: Tensor) -> None:
        """Appends rows; on a full disk, or beyond ``max_bytes``, it stops writing and says so once."""
        digest = _digest(key)
        if not self.writes or digest in self._where:
            return
        data = value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        if self._end + len(data) > self.max_bytes:
            self._stop(f"it has reached {self.max_bytes:,} bytes")
            return
        record = _RECORD.pack(digest, self._end, len(data), zlib.crc32(data))
        try:
            _write(self._data, data, self._end)
            _write(self._index, record, self._records)
        except OSError as error:
            self._stop(str(error.strerror))
            return
        self._where[digest] = (self._end, len(data), zlib.crc32(data))
        self._end, self._records = self._end + len(data), self._records + len(record)

    def close(self) -> None:
        """Gives up the files, and with them the right to write."""
        os.close(self._data)
        os.close(self._index)

    def _stop(self, reason: str) -> None:
        self.writes = False
        logger.warning(
            "No more activations are written to %s: %s. The run goes on without.", self._path, reason
        )


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=16).digest()


def _write(file: int, data: bytes, offset: int) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done:], offset + done)
