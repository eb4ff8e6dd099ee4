"""The shards of a pack under construction: tar files with a record for each image."""

import hashlib
import io
import json
import tarfile

from bgsweep.data.datasets.pack import NO_MASK, Record, background_rectangle, checksum, pack_mask, shard_name
from bgsweep.data.datasets.pack_input import Entry
from bgsweep.storage.tree import Tree


class ShardWriter:
    """Writes entries one after the other into shards, and closes each at a size.

    Args:
        target: where the shards go.
        most: size in bytes at which a shard is closed; it is held in memory until then.

    Attributes:
        records: an index entry for each image.
        starts: number of each shard's first image.
        shards: size and SHA-256 of each shard that is written.
    """

    def __init__(self, target: Tree, most: int) -> None:
        self._target, self._most = target, most
        self._shard: _Shard | None = None
        self.records: list[Record] = []
        self.starts: list[int] = []
        self.shards: list[tuple[int, str]] = []

    def add(self, entry: Entry) -> None:
        number = len(self.records)
        if self._shard is None:
            self._shard = _Shard()
            self.starts.append(number)
        self.records.append(self._shard.add(number, entry))
        if self._shard.size >= self._most:
            self.close()

    def close(self) -> None:
        """Write the shard that is open, if one is."""
        if self._shard is None:
            return
        data = self._shard.close()
        self._target.write(shard_name(len(self.shards)), data)
        self.shards.append((len(data), hashlib.sha256(data).hexdigest()))
        self._shard = None


class _Shard:
    """A tar file under construction. Members are named as WebDataset needs them: those of one image share a stem."""

    def __init__(self) -> None:
        # In memory, because an object store cannot append to an object.
        self._file = io.BytesIO()
        # USTAR headers are one block each, so that offsets can be computed; other formats put further members before a
        # file.
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @property
    def size(self) -> int:
        return self._file.tell()

    def add(self, number: int, entry: Entry) -> Record:
        name, image, file, mask, ending, label, _ = entry
        stem = f"{number:09d}"
        about = {"id": name} | ({"class": label} if label else {})
        self._member(f"{stem}.json", json.dumps(about).encode())
        offset = self._member(f"{stem}.{ending}", image)
        packed, rect = (b"", (0, 0, 0, 0)) if mask is None else (pack_mask(mask), background_rectangle(mask))
        if file is None:
            rect = NO_MASK
        self._member(f"{stem}.mask.zst", packed)
        return Record(offset, len(image), len(packed), rect, checksum(image, packed))

    def close(self) -> bytes:
        self._tar.close()
        return self._file.getvalue()

    def _member(self, name: str, content: bytes) -> int:
        """Append a file; gives the offset of its content."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        # The content begins after the header's block.
        at = self._file.tell() + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(content))
        return at
