"""The smallest network with U2-Net's interface, written as ONNX bytes: the sigmoid of one channel."""


def one_channel(batch: int | str = 1, channels: int = 3, side: int = 32, which: str = "ReduceMax") -> bytes:
    """The brightest channel (`ReduceMax`) or the darkest (`ReduceMin`).

    N x channels x side x side in, N x 1 x side x side out; a string makes the batch dimension a free one.
    """
    axes = _field(1, "axes") + _field(8, 1) + _field(20, 7)
    reduce = _field(1, "x") + _field(2, "m") + _field(4, which) + _field(5, axes)
    sigmoid = _field(1, "m") + _field(2, "y") + _field(4, "Sigmoid")
    graph = _field(1, reduce) + _field(1, sigmoid) + _field(2, "one channel")
    graph += _field(11, _value("x", batch, channels, side, side)) + _field(12, _value("y", batch, 1, side, side))
    return _field(1, 7) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 11))


def _value(name: str, *shape: int | str) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(length, int) else 2, length)) for length in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def _field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protocol buffer: a number, or text or a message with its length before it."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    groups = [value & 127]
    while value := value >> 7:
        groups[-1] |= 128
        groups.append(value & 127)
    return bytes(groups)
