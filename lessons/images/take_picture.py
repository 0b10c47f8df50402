"""Take pocket.png, the picture of the page that holds your model.

READS   artifacts/pocket/model.html
WRITES  lessons/images/pocket.png
RUN     python lessons/images/take_picture.py   (after lessons/quests/pocket.py)

Chromium or Chrome opens the page without a window and writes a PNG file. Its 16 million
possible colors are more than a picture of text needs: with 256 it is half the size.
"""
# =========================================================================== 1. Imports
import importlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")

import numpy as np  # noqa: E402

# ============================================================= 2. Constants: edit these
WIDTH, HEIGHT = 900, 1000  # of the window, in pixels

ME = "lessons/images/take_picture.py"
PAGE = HERE.parent.parent / "artifacts" / "pocket" / "model.html"
PICTURE = HERE / "pocket.png"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
FLAGS = "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run".split()

# ============================================================= 3. Read a PNG, write one

def read_png(data):  # -> (H, W, 3) uint8
    """Undo the filters: each row is stored as differences to its neighbors."""
    at, rows, pixels = len(SIGNATURE), b"", []
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body, at = data[at + 8 : at + 8 + size], at + 12 + size
        if kind == b"IHDR":
            width, height, _, color = struct.unpack_from(">IIBB", body)
        rows += body if kind == b"IDAT" else b""
    rows, step = zlib.decompress(rows), 4 if color == 6 else 3  # RGBA or RGB
    line, size = bytes(width * step), 1 + width * step
    for begin in range(0, height * size, size):
        how, up, line = rows[begin], line, bytearray(rows[begin + 1 : begin + size])
        for i in range(width * step if how else 0):
            a, c = (line[i - step], up[i - step]) if i >= step else (0, 0)
            b, best = up[i], (0, a, up[i], (a + up[i]) // 2)[how] if how < 4 else None
            if best is None:  # Paeth: the neighbor that is closest to a + b - c
                best = min((a, b, c), key=lambda x: abs(a + b - c - x))
            line[i] = (line[i] + best) % 256
        pixels.append(bytes(line))
    picture = np.frombuffer(b"".join(pixels), np.uint8).reshape(height, width, step)
    return picture[:, :, :3]

def write_png(picture):  # (H, W, 3) -> bytes
    """With a palette of the 256 most frequent colors; others become the closest one."""
    height, width, _ = picture.shape
    colors, which, counts = np.unique(
        picture.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True
    )  # (N, 3), (H * W,), (N,)
    palette = colors[np.argsort(-counts)[:256]].astype(int)  # (256, 3)
    far = abs(colors[:, None].astype(int) - palette).sum(axis=2)  # (N, 256)
    indices = far.argmin(axis=1).astype(np.uint8)[which].reshape(height, width)
    rows = b"".join(b"\0" + row.tobytes() for row in indices)  # \0: no filter

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 3: a palette
    parts = [chunk(b"IHDR", header), chunk(b"PLTE", palette.astype(np.uint8).tobytes())]
    parts += [chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(parts)

# ============================================================================== 4. Main
def main():
    bpe.need(PAGE, "lessons/quests/pocket.py")
    names = ("chromium", "google-chrome", "chrome", "chromium-browser")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        why = f"None of {', '.join(names)} is a command here."
        raise bpe.stop("There is no Chromium to take the picture.", why, f"python {ME}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shot = Path(folder) / "shot.png"
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile"]
        command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}"]
        command += ["--virtual-time-budget=8000", f"{PAGE.as_uri()}#write"]
        subprocess.run(command, capture_output=True, timeout=120)
        if not shot.exists():
            why = "It may not be allowed to start here."
            raise bpe.stop(f"{browser} took no picture.", why, f"python {ME}")
        picture = write_png(read_png(shot.read_bytes()))
    bpe.write_all({PICTURE: picture})
    print(f"[wrote] {bpe.shown(PICTURE)}: {len(picture):,} bytes")

if __name__ == "__main__":
    bpe.run_stage(main, ME)
