"""Writes `hf_images.parquet` as Hugging Face `datasets` does: six images of two classes, struct {bytes, path} and ClassLabel.

    python hf_images.py

Written with pyarrow 26.0.1 and Pillow 13.0.0; compression is pyarrow's default, Snappy.
"""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

names = ["apple", "hot_dog"]
rows = []
for label, name in enumerate(names):
    for number in range(3):
        buffer = io.BytesIO()
        # 8 x 6 pixels of one colour; the third of each class is a JPEG.
        kind, extension = ("JPEG", "jpg") if number == 2 else ("PNG", "png")
        Image.new("RGB", (8, 6), (40 * number, 100 * label, 30)).save(buffer, kind)
        rows.append({"image": {"bytes": buffer.getvalue(), "path": f"{name}_{number}.{extension}"}, "label": label})
features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
schema = pa.schema(
    [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
    metadata={"huggingface": json.dumps({"info": {"features": features}})},
)
pq.write_table(pa.Table.from_pylist(rows, schema=schema), "hf_images.parquet", row_group_size=4)
