"""The rows of `examples/time_artifacts.rs` written and read with pyarrow, timed whenever a line arrives.

Usage: time_artifacts.py write|read|row     (pyarrow 26.0.1, numpy 2)

The protocol is in `passes.py` of clip-model. The files have the columns, encodings, compression and row groups of a `latents`
artifact and are synced; pyarrow computes no digests and reads nothing back. `read` ends with an Arrow table; `row` reads the row
group of a row. The number of threads is OMP_NUM_THREADS.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.append(str(Path(__file__).parents[3] / "clip-model/tests/scale"))
from passes import serve  # noqa: E402

pa.set_cpu_count(int(os.environ["OMP_NUM_THREADS"]))

NUM_ROWS, NUM_PARTS, NUM_CLASSES, NUMEL = 10_000, 5, 100, 4 * 64 * 64
PER_PART = NUM_ROWS // NUM_PARTS
ROW_GROUP_BYTES = 8 << 20


def splitmix(index):
    with np.errstate(over="ignore"):
        z = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def latents(first, count):
    bits = splitmix(np.arange(first * NUMEL, (first + count) * NUMEL, dtype=np.uint64))
    total = sum(((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF)).astype(np.uint32) for part in range(4))
    values = (total.astype(np.float32) - np.float32(131070)) / np.float32(37837)
    return values.astype(np.float16).astype(np.float32)


def image(row):
    words = 3072 + int(splitmix(np.uint64(row)) % np.uint64(2048))
    return b"\x89PNG\r\n\x1a\n" + splitmix((np.uint64(row) << np.uint64(20)) | np.arange(words, dtype=np.uint64)).tobytes()


def part_data(part):
    rows = range(part * PER_PART, (part + 1) * PER_PART)
    return rows, latents(rows[0], PER_PART), [image(row) for row in rows]


def table(rows, values, images):
    """From what a program has: numbers in an array, images as bytes."""
    numbers = np.arange(rows[0], rows[-1] + 1)
    classes = numbers // (NUM_ROWS // NUM_CLASSES)
    image = pa.StructArray.from_arrays([pa.array(images, pa.binary()), pa.array([f"{row}.png" for row in rows])], ["bytes", "path"])
    return pa.table({
        "class_id": pa.array(classes, pa.int64()),
        "class_name": pa.array([f"class {label}" for label in classes]),
        "prompt_index": pa.array(np.zeros(PER_PART), pa.uint32()),
        "sample_index": pa.array(numbers, pa.uint32()),
        "prompt": pa.array([f"prompt of row {row}" for row in rows]),
        "noise_seed": pa.array(numbers, pa.uint64()),
        "latent": pa.FixedSizeListArray.from_arrays(pa.array(values), NUMEL),
        "mean": pa.array(np.zeros(PER_PART), pa.float32()),
        "std": pa.array(np.ones(PER_PART), pa.float32()),
        "image": image,
    })


def write(folder, data):
    for part, (rows, values, images) in enumerate(data):
        content = table(rows, values, images)
        texts = ["class_id", "class_name", "prompt_index", "sample_index", "prompt", "noise_seed", "mean", "std", "image.path"]
        compression = {name: "zstd" for name in [*texts, "latent.list.element"]} | {"image.bytes": "none"}
        levels = {name: 3 for name in texts} | {"latent.list.element": 1}
        path = folder / f"part-{part:05}.parquet"
        group = PER_PART * ROW_GROUP_BYTES // content.nbytes
        pq.write_table(
            content, path, compression=compression, compression_level=levels, use_dictionary=texts, write_statistics=texts,
            column_encoding={"latent.list.element": "BYTE_STREAM_SPLIT"}, write_page_index=True, row_group_size=group,
        )
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def main():
    folder = Path(tempfile.mkdtemp())
    try:
        data = [part_data(part) for part in range(NUM_PARTS)]
        case = sys.argv[1]
        write(folder, data)
        if case == "write":
            serve(1, lambda: write(folder, data))
            return
        del data
        paths = sorted(folder.iterdir())
        if case == "read":
            serve(1, lambda: pa.concat_tables([pq.read_table(path) for path in paths]))
            return
        files = [pq.ParquetFile(path) for path in paths]
        group = files[0].metadata.row_group(0).num_rows
        at = [0]

        def rows():
            for _ in range(100):
                at[0] = (at[0] + 7919) % NUM_ROWS
                part, row = divmod(at[0], PER_PART)
                found = files[part].read_row_group(row // group).slice(row % group, 1)
                assert found["sample_index"][0].as_py() == at[0]

        serve(1, rows)
    finally:
        shutil.rmtree(folder)


main()
