"""Files that only one of several processes can create, whatever the others do at the same time."""

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Any

from bgsweep.errors import UserError, one_line
from bgsweep.storage.uri import Uri, filesystem, is_remote

SETTLE = 5.0
"""Seconds in which an object must have become visible to all, where a store knows no conditional writes."""


def create(uri: Uri, data: bytes, settle: float = SETTLE) -> bool:
    """Create a file; False if it is there already, or another process has been faster.

    A folder's file is created with O_EXCL, an object of S3 with a conditional put. Other stores, and S3 without boto3,
    get the bakery protocol: each process writes a candidate, waits until every candidate is visible, and the one whose
    name comes first wins. It holds where a write takes less than ``settle`` seconds.

    Raises:
        UserError: the store cannot be written.
    """
    if not is_remote(uri):
        return _create_here(Path(uri), data)
    try:
        if str(uri).startswith("s3://"):
            created = _put_if_absent(str(uri), data)
            if created is not None:
                return created
        return _bakery(uri, data, settle)
    except OSError as error:
        raise UserError(f"{uri}: cannot be written: {one_line(error)}; check the store and its credentials") from error


def _create_here(path: Path, data: bytes) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}; check the folder and its disk") from error
    return True


def _put_if_absent(uri: str, data: bytes) -> bool | None:
    """A conditional put; None where boto3 is missing or the store does not know it."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return None
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")  # boto3 reads the second only
    try:
        boto3.client("s3", region_name=region).put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status in (409, 412):  # 409: another conditional put of the same key is under way
            return False
        if status in (400, 501):
            return None
        raise OSError(one_line(error)) from error
    except BotoCoreError:  # boto3 looks for credentials in other places than pyarrow, which the next try asks
        return None
    # A store that ignores the condition would let everybody in: what is there now must be ours.
    where, path = filesystem(uri)
    with where.open_input_stream(path) as stream:
        return bool(stream.read() == data)


def _bakery(uri: Uri, data: bytes, settle: float) -> bool:
    from pyarrow.fs import FileSelector, FileType

    where, path = filesystem(uri)
    folder, _, name = path.rpartition("/")

    def there() -> list[str]:
        infos = where.get_file_info(FileSelector(folder, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == FileType.File)

    if name in there():
        return False
    where.create_dir(folder)
    mine = f".{name}.{secrets.token_hex(8)}"
    _write(where, f"{folder}/{mine}", data)
    try:
        time.sleep(settle)
        found = there()
        if name in found or min(each for each in found if each.startswith(f".{name}.")) != mine:
            return False
        _write(where, path, data)
        return True
    finally:
        with contextlib.suppress(OSError):
            where.delete_file(f"{folder}/{mine}")


def _write(where: Any, path: str, data: bytes) -> None:
    with where.open_output_stream(path) as stream:
        stream.write(data)
