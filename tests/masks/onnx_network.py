"""The smallest mask networks, written as ONNX bytes."""

FLOAT32, FLOAT16 = 1, 10


def one_channel(
    batch: int | str = 1,
    channels: int = 3,
    side: int | str = 32,
    which: str = "ReduceMax",
    last: str = "Sigmoid",
    kind: int = FLOAT32,
) -> bytes:
    """The sigmoid of the brightest channel (`ReduceMax`) or the darkest (`ReduceMin`), or another function of it.

    N x channels x side x side in, N x 1 x side x side out; a string makes a dimension a free one.
    """
    axes = _field(1, "axes") + _field(8, 1) + _field(20, 7)
    reduce = _field(1, "x") + _field(2, "m") + _field(4, which) + _field(5, axes)
    sigmoid = _field(1, "m") + _field(2, "y") + _field(4, last)
    sizes = (batch, channels, side, side), (batch, 1, side, side)
    return _model([reduce, sigmoid], *sizes, kind)


def four_channels(side: int = 32) -> bytes:
    """The brightest channel, and the three of the image: logits of background, red, green and blue."""
    axes = _field(1, "axes") + _field(8, 1) + _field(20, 7)
    reduce = _field(1, "x") + _field(2, "m") + _field(4, "ReduceMax") + _field(5, axes)
    axis = _field(1, "axis") + _field(3, 1) + _field(20, 2)
    both = _field(1, "m") + _field(1, "x") + _field(2, "y") + _field(4, "Concat") + _field(5, axis)
    return _model([reduce, both], (1, 3, side, side), (1, 4, side, side))


def _model(nodes: list[bytes], taken: tuple[int | str, ...], given: tuple[int | str, ...], kind: int = 1) -> bytes:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "network")
    graph += _field(11, _value("x", taken, kind)) + _field(12, _value("y", given, kind))
    return _field(1, 7) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 11))


def _value(name: str, shape: tuple[int | str, ...], kind: int) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(length, int) else 2, length)) for length in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


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
