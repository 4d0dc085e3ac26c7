"""ONNX files written by hand, as small as they come: a few nodes, constants, named dimensions.

The format is protobuf: every field is a key (number and wire type), then a varint or a length and
bytes. The numbers of the fields are onnx.proto's. So no test needs the package onnx.
"""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

KINDS = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.bool_): 9}


def _varint(number):
    number &= (1 << 64) - 1  # negative numbers are written as 64 bits
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number, value):
    """A field: of bytes, text, or a whole number."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    value = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _tensor(name, values):
    values = np.asarray(values)
    shape = b"".join(_field(1, size) for size in values.shape)
    kind = _field(2, KINDS[values.dtype])
    return shape + kind + _field(8, name) + _field(9, values.tobytes())


def _attribute(name, value):
    """An attribute: a graph (bytes), a tensor, whole numbers, a number or a text."""
    if isinstance(value, bytes):
        body = _field(6, value) + _field(20, 5)
    elif isinstance(value, np.ndarray):
        body = _field(5, _tensor("", value)) + _field(20, 4)
    elif isinstance(value, list):
        body = b"".join(_field(8, number) for number in value) + _field(20, 7)
    elif isinstance(value, float):
        body = _varint(2 << 3 | 5) + struct.pack("<f", value) + _field(20, 1)
    elif isinstance(value, str):
        body = _field(4, value) + _field(20, 3)
    else:
        body = _field(3, value) + _field(20, 2)
    return _field(1, name) + body


def node(kind, inputs, outputs, **attributes):
    """An operation.

    Args:
        kind: Of ONNX's operators.
        inputs: Names, parted by spaces.
        outputs: Names, parted by spaces.
        attributes: By name; a graph as graph() gives it.
    """
    body = b"".join(_field(1, name) for name in inputs.split())
    body += b"".join(_field(2, name) for name in outputs.split())
    body += _field(4, kind)
    return body + b"".join(_field(5, _attribute(*pair)) for pair in attributes.items())


def _value(name, shape, kind):
    dimensions = [_field(1 if isinstance(size, int) else 2, size) for size in shape]
    described = b"".join(_field(1, one) for one in dimensions)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, described)))


Shapes = Mapping[str, Sequence[int | str] | tuple[Sequence[int | str], int]]


def graph(
    nodes: Sequence[bytes], inputs: Shapes, outputs: Shapes, constants: Mapping[str, object] = {}
) -> bytes:
    """Operations with what goes in and comes out.

    Args:
        nodes: As node() gives them, in order.
        inputs: Name to shape, with names for open dimensions; (shape, kind) for other than floats.
        outputs: Likewise.
        constants: Name to values.
    """
    body = b"".join(_field(1, one) for one in nodes) + _field(2, "graph")
    body += b"".join(_field(5, _tensor(*pair)) for pair in constants.items())
    for number, values in ((11, inputs), (12, outputs)):
        for name, given in values.items():
            shape, kind = given if isinstance(given, tuple) else (given, 1)
            body += _field(number, _value(name, shape, kind))
    return body


def model(body: bytes, metadata: Mapping[str, str] = {}) -> bytes:
    """A whole file.

    Args:
        body: As graph() gives it.
        metadata: Text by name.
    """
    rows = (_field(14, _field(1, key) + _field(2, text)) for key, text in metadata.items())
    return _field(1, 8) + _field(7, body) + _field(8, _field(2, 17)) + b"".join(rows)


def endless(
    rounds: int = 2**62, shape: Sequence[int | str] = ("n", 3, 64, 64), outputs: int = 1
) -> bytes:
    """A detector's file whose network goes round and round: a Loop that adds to its output."""
    floats, whole, true = np.float32, np.int64, np.bool_
    inside = graph(
        [node("Identity", "going", "go_on"), node("Add", "sum step", "more")],
        {"round": ([], 7), "going": ([], 9), "sum": ["a", "b", "c"]},
        {"go_on": ([], 9), "more": ["a", "b", "c"]},
        {"step": floats(1.0)},
    )
    nodes = [
        node("ReduceMean", "images", "start", axes=[3], keepdims=0),
        node("Loop", "rounds yes start", "boxes", body=inside),
    ]
    constants = {"rounds": whole(rounds), "yes": true(True)}
    names = ["boxes", *(f"boxes{i}" for i in range(1, outputs))]
    nodes += [node("Identity", "boxes", name) for name in names[1:]]
    shapes = {name: ["n", 3, 64] for name in names}
    return model(graph(nodes, {"images": [*shape]}, shapes, constants))
