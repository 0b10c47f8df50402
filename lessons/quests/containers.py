"""Two file formats in which models travel: safetensors and GGUF, byte by byte.

Nothing here knows what a model is: a file is a header and named blocks of bytes, each
with a shape and a kind of number. take_home.py fills them. The formats are described at
github.com/huggingface/safetensors and in docs/gguf.md of github.com/ggml-org/ggml.
"""
import json
import math
import struct

# ======================================================================= 1. safetensors
# u64 length of the header, the header as JSON, then all numbers


def write_safetensors(tensors):  # {name: (shape, kind, bytes)} -> bytes
    """kind: "F32" and others. Numbers are little-endian, row by row, without gaps."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, kind, data) in tensors.items():
        ends = [offset, offset := offset + len(data)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": ends}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so the numbers begin at a multiple of 8
    numbers = b"".join(data for _, _, data in tensors.values())
    return struct.pack("<Q", len(text)) + text + numbers


def read_safetensors(data):  # bytes -> {name: (shape, kind, bytes)}
    """The reverse of write_safetensors."""
    begin = 8 + struct.unpack_from("<Q", data)[0]
    header, tensors = json.loads(data[8:begin]), {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, end = (begin + offset for offset in entry["data_offsets"])
            tensors[name] = entry["shape"], entry["dtype"], data[first:end]
    return tensors


# ============================================================================== 2. GGUF
# facts (names and values), then where each tensor lies, then all numbers

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # kinds of values
STRUCT_FORMAT = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}
FLOATS, Q8_0 = 0, 8  # kinds of tensors
BLOCK = {FLOATS: (1, 4), Q8_0: (32, 34)}  # so many numbers take so many bytes
ALIGNMENT = 32  # every tensor begins at a multiple of it


def pack_string(text):
    """u64 length, then the bytes.

    >>> pack_string("hi")
    b'\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00hi'
    """
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def pack_value(value):
    """u32 kind, then the value. A whole number is a u32 alone and an i32 in a list."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + pack_string(value)
    if isinstance(value, list):
        strings = all(isinstance(item, str) for item in value)
        items = [pack_string(i) if strings else struct.pack("<i", i) for i in value]
        head = struct.pack("<IIQ", ARRAY, STRING if strings else I32, len(value))
        return head + b"".join(items)
    kind = {bool: BOOL, int: U32, float: F32}[type(value)]
    return struct.pack("<I", kind) + struct.pack(STRUCT_FORMAT[kind], value)


def write_gguf(facts, tensors):  # {name: value}, {name: (shape, kind, bytes)} -> bytes
    """kind: FLOATS or Q8_0. A shape is written in reverse order: columns first."""
    facts = {"general.alignment": ALIGNMENT} | facts
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for name, value in facts.items():
        head += pack_string(name) + pack_value(value)
    numbers, offset = [], 0
    for name, (shape, kind, data) in tensors.items():
        head += pack_string(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, offset)
        numbers.append(data + bytes(-len(data) % ALIGNMENT))
        offset += len(numbers[-1])
    return head + bytes(-len(head) % ALIGNMENT) + b"".join(numbers)


def read_gguf(data):  # bytes -> facts, {name: (shape, kind, bytes)}
    """The reverse of write_gguf."""
    offset = 0

    def take(format):
        nonlocal offset
        offset += struct.calcsize(format)
        return struct.unpack_from(format, data, offset - struct.calcsize(format))[0]

    def take_string():
        return take(f"{take('<Q')}s").decode()

    def take_value(kind):
        if kind == ARRAY:
            kind, size = take("<I"), take("<Q")
            return [take_value(kind) for _ in range(size)]
        return take_string() if kind == STRING else take(STRUCT_FORMAT[kind])

    if (take("4s"), take("<I")) != (b"GGUF", 3):
        raise ValueError("not a GGUF file of version 3")
    tensor_count, fact_count = take("<Q"), take("<Q")
    facts = {take_string(): take_value(take("<I")) for _ in range(fact_count)}
    plan = {}
    for _ in range(tensor_count):
        name = take_string()
        shape = [take("<Q") for _ in range(take("<I"))][::-1]
        plan[name] = shape, take("<I"), take("<Q")
    begin, tensors = offset + -offset % facts["general.alignment"], {}
    for name, (shape, kind, first) in plan.items():
        numbers, size = BLOCK[kind]
        end = begin + first + math.prod(shape) // numbers * size
        tensors[name] = shape, kind, data[begin + first : end]
    return facts, tensors
