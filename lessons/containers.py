"""Two kinds of files in which models travel: safetensors and GGUF, byte by byte.

Nothing here knows what a model is: a file is a header and named pieces of bytes, each
with a shape and a kind of number. lessons/quests/take_home.py fills them. The formats
are described at github.com/huggingface/safetensors and in docs/gguf.md of
github.com/ggml-org/ggml.
"""
import json
import math
import struct

# ---- safetensors: u64 length of the header, the header as JSON, then all numbers


def write_safetensors(tensors):  # {name: (shape, kind, bytes)} -> bytes
    """kind: "F32" and others. Numbers are little-endian, row by row, without gaps."""
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, kind, data) in tensors.items():
        ends = [place, place := place + len(data)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": ends}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so the numbers begin at a multiple of 8
    numbers = b"".join(data for _, _, data in tensors.values())
    return struct.pack("<Q", len(text)) + text + numbers


def read_safetensors(data):  # bytes -> {name: (shape, kind, bytes)}
    """The reverse of write_safetensors."""
    begin = 8 + struct.unpack_from("<Q", data)[0]
    header, found = json.loads(data[8:begin]), {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, end = (begin + place for place in entry["data_offsets"])
            found[name] = entry["shape"], entry["dtype"], data[first:end]
    return found


# ---- GGUF: facts (names and values), then where each tensor lies, then all numbers

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # kinds of values
PACKED = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}
FLOATS, Q8_0 = 0, 8  # kinds of tensors
BYTES = {FLOATS: (1, 4), Q8_0: (32, 34)}  # so many numbers take so many bytes
ALIGNMENT = 32  # every tensor begins at a multiple of it


def string(text):
    """u64 length, then the bytes.

    >>> string("hi")
    b'\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00hi'
    """
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(one):
    """u32 kind, then the value. A whole number is a u32 alone and an i32 in a list."""
    if isinstance(one, str):
        return struct.pack("<I", STRING) + string(one)
    if isinstance(one, list):
        texts = all(isinstance(item, str) for item in one)
        items = [string(item) if texts else struct.pack("<i", item) for item in one]
        head = struct.pack("<IIQ", ARRAY, STRING if texts else I32, len(one))
        return head + b"".join(items)
    kind = {bool: BOOL, int: U32, float: F32}[type(one)]
    return struct.pack("<I", kind) + struct.pack(PACKED[kind], one)


def write_gguf(facts, tensors):  # {name: value}, {name: (shape, kind, bytes)} -> bytes
    """kind: FLOATS or Q8_0. A shape is written the other way round: columns first."""
    facts = {"general.alignment": ALIGNMENT} | facts
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    head += b"".join(string(name) + value(one) for name, one in facts.items())
    numbers, place = [], 0
    for name, (shape, kind, data) in tensors.items():
        head += string(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, place)
        numbers.append(data + bytes(-len(data) % ALIGNMENT))
        place += len(numbers[-1])
    return head + bytes(-len(head) % ALIGNMENT) + b"".join(numbers)


def read_gguf(data):  # bytes -> facts, {name: (shape, kind, bytes)}
    """The reverse of write_gguf."""
    place = 0

    def take(form):
        nonlocal place
        place += struct.calcsize(form)
        return struct.unpack_from(form, data, place - struct.calcsize(form))[0]

    def text():
        return take(f"{take('<Q')}s").decode()

    def one(kind):
        if kind == ARRAY:
            kind, size = take("<I"), take("<Q")
            return [one(kind) for _ in range(size)]
        return text() if kind == STRING else take(PACKED[kind])

    if (take("4s"), take("<I")) != (b"GGUF", 3):
        raise ValueError("no GGUF file of version 3")
    plans, facts = take("<Q"), take("<Q")
    facts = {text(): one(take("<I")) for _ in range(facts)}
    plan = {
        text(): ([take("<Q") for _ in range(take("<I"))][::-1], take("<I"), take("<Q"))
        for _ in range(plans)
    }
    begin, found = place + -place % facts["general.alignment"], {}
    for name, (shape, kind, first) in plan.items():
        numbers, size = BYTES[kind]
        end = begin + first + math.prod(shape) // numbers * size
        found[name] = shape, kind, data[begin + first : end]
    return facts, found
