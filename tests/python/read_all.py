"""Opens every Parquet artifact of a store with five tools and compares what they read, bit for bit.

    python read_all.py STORE [--expected FILE] [--docs docs/artifacts.md]

The readers are pyarrow, DuckDB, polars, pandas and Hugging Face `datasets`; what each gives is brought into one form
(floats as their bits, images as bytes and path) and must be equal. Class names must come out as `ClassLabel`, images
must decode through `Image`. SHA-256 digests must be those of `artifact.json`. With `--expected`, the values must also be
those of a JSON file: {artifact: {"class_names": [...], "tensor_shape": [...], "columns": {name: [value, ...]}}}, floats
as unsigned integers of their bits, images as {"bytes": hex, "path": text}. With `--docs`, the examples of that page are
run. Versions: requirements.txt beside this file.
"""

import argparse
import hashlib
import io
import json
import os
import re
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import datasets
import duckdb
import numpy
import pandas
import PIL.Image
import polars
import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

datasets.disable_progress_bars()


def canonical(value, arrow_type):
    """`value` of a column of `arrow_type`, whichever tool it comes from, in one form that compares exactly."""
    if pyarrow.types.is_fixed_size_list(arrow_type):
        array = numpy.asarray(value)
        if array.dtype != numpy.float32:  # Python floats: exact, since they came from float32
            array = array.astype(numpy.float64).astype(numpy.float32)
        assert array.shape == (arrow_type.list_size,), f"{array.shape} is not ({arrow_type.list_size},)"
        return array.view(numpy.uint32).tolist()
    if value is None or value is pandas.NA or (isinstance(value, float) and value != value):
        return None
    if pyarrow.types.is_float32(arrow_type):
        return int(numpy.float32(value).view(numpy.uint32))
    if pyarrow.types.is_float64(arrow_type):
        return int(numpy.float64(value).view(numpy.uint64))
    if pyarrow.types.is_integer(arrow_type):
        assert value == int(value), f"{value!r} is not an integer"
        return int(value)
    if pyarrow.types.is_struct(arrow_type):
        return {"bytes": bytes(value["bytes"]).hex(), "path": str(value["path"])}
    assert pyarrow.types.is_string(arrow_type), f"no canonical form of {arrow_type}"
    return str(value)


def columns_of(schema, rows):
    """`rows` (a list of dicts) as canonical columns."""
    for row in rows[:1]:
        assert list(row) == schema.names, f"columns {list(row)}, expected {schema.names}"
    return {field.name: [canonical(row[field.name], field.type) for row in rows] for field in schema}


def read_pyarrow(folder, files):
    return pyarrow.dataset.dataset(str(folder / "data"), format="parquet").to_table().to_pylist()


def read_duckdb(folder, files):
    connection = duckdb.connect()
    globbed = connection.execute(f"SELECT count(*) FROM '{folder}/data/*.parquet'").fetchone()[0]
    cursor = connection.execute("SELECT * FROM read_parquet(?)", [[str(file) for file in files]])
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row)) for row in cursor.fetchall()]
    assert globbed == len(rows), f"the glob gives {globbed} rows, the files have {len(rows)}"
    return rows


def read_polars(folder, files):
    frame = polars.concat([polars.read_parquet(file) for file in files])
    globbed = polars.scan_parquet(str(folder / "data" / "*.parquet")).select(polars.len()).collect().item()
    assert globbed == len(frame), f"the glob gives {globbed} rows, the files have {len(frame)}"
    return frame.to_dicts()


def read_pandas(folder, files):
    frame = pandas.concat([pandas.read_parquet(file) for file in files], ignore_index=True)
    return [dict(zip(frame.columns, row)) for row in frame.itertuples(index=False, name=None)]


def read_datasets(folder, files, cache):
    """Loads the artifact's folder as a data set; also checks class names and decoded images."""
    dataset = datasets.load_dataset(str(folder), split="part", cache_dir=cache)
    schema = pyarrow.parquet.read_schema(files[0])
    metadata = pyarrow.parquet.read_metadata(files[0]).metadata
    labels = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)]
    assert len(labels) == (b"flier.class_names" in metadata), f"label columns {labels}"
    for name in labels:
        assert dataset.features[name].names == json.loads(metadata[b"flier.class_names"])
        if "class_name" in dataset.column_names:
            for label, class_name in zip(dataset[name], dataset["class_name"]):
                text = None if label is None else dataset.features[name].int2str(label)
                assert text == class_name, f"{name} {label} is {text!r}, class_name is {class_name!r}"
    images = [field.name for field in schema if pyarrow.types.is_struct(field.type)]
    stored = dataset.with_format("arrow")[:].to_pylist()
    for name in images:
        assert isinstance(dataset.features[name], datasets.Image), f"{name} is {dataset.features[name]}"
        for decoded, row in zip(dataset[name], stored):
            with PIL.Image.open(io.BytesIO(row[name]["bytes"])) as image:
                assert decoded.size == image.size and decoded.tobytes() == image.tobytes(), row[name]["path"]
    for field in schema:
        if pyarrow.types.is_fixed_size_list(field.type):
            feature = dataset.features[field.name]
            assert (feature.feature.dtype, feature.length) == ("float32", field.type.list_size), feature
    return stored


def check_tensor_shape(schema, metadata):
    """A tensor column names its shape in field and file metadata alike."""
    for field in schema:
        if pyarrow.types.is_fixed_size_list(field.type):
            shape = json.loads(field.metadata[b"shape"])
            assert shape == json.loads(metadata[b"flier.tensor_shape"])
            assert numpy.prod(shape) == field.type.list_size


def check_file(folder, part, record):
    """Digest, metadata and physical form of one part."""
    path = folder / "data" / part["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == part["sha256"], f"{path}: sha256 differs"
    if path.suffix != ".parquet":
        return
    schema = pyarrow.parquet.read_schema(path)
    metadata = pyarrow.parquet.read_metadata(path)
    pairs = metadata.metadata
    kind, version = folder.parent.parent.name.rsplit("-v", 1)
    expected = {b"flier.kind": kind, b"flier.schema": version, b"flier.key": record["id"][-32:]}
    for key, value in expected.items():
        assert pairs[key].decode() == value, f"{path}: {key} is {pairs[key]}"
    assert json.loads(pairs[b"flier.spec"]) == record["unit"]["spec"], path
    assert all(field.nullable for field in schema), f"{path}: a field is not nullable"
    check_tensor_shape(schema, pairs)
    assert metadata.num_rows == part["rows"], path
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if column.path_in_schema.endswith(".list.element"):
                assert "BYTE_STREAM_SPLIT" in column.encodings and column.compression == "ZSTD", column
                assert column.statistics is None, column
            if column.path_in_schema.endswith(".bytes"):
                assert column.compression == "UNCOMPRESSED" and not column.has_dictionary_page, column


def check_artifact(folder, record, expected, cache):
    """Reads one artifact with all tools; returns its number of rows."""
    for part in record["parts"]:
        check_file(folder, part, record)
    files = [folder / "data" / part["file"] for part in record["parts"]]
    if not all(file.suffix == ".parquet" for file in files):
        return 0
    schema = pyarrow.parquet.read_schema(files[0])
    reference = columns_of(schema, read_pyarrow(folder, files))
    others = {
        "DuckDB": read_duckdb(folder, files),
        "polars": read_polars(folder, files),
        "pandas": read_pandas(folder, files),
        "datasets": read_datasets(folder, files, cache),
    }
    for tool, rows in others.items():
        compare(f"{folder}: {tool} against pyarrow", columns_of(schema, rows), reference)
    if expected is not None:
        compare(f"{folder}: pyarrow against the expected values", reference, expected["columns"])
        metadata = pyarrow.parquet.read_metadata(files[0]).metadata
        assert json.loads(metadata.get(b"flier.class_names", b"[]")) == expected["class_names"], folder
        assert json.loads(metadata.get(b"flier.tensor_shape", b"[]")) == expected["tensor_shape"], folder
    lengths = {len(values) for values in reference.values()}
    assert lengths == {record["rows"]}, f"{folder}: {lengths} rows, the record says {record['rows']}"
    return record["rows"]


def compare(what, found, expected):
    assert found.keys() == expected.keys(), f"{what}: columns {list(found)}, expected {list(expected)}"
    for name, values in expected.items():
        assert len(found[name]) == len(values), f"{what}: `{name}` has {len(found[name])} rows, expected {len(values)}"
        for row, (left, right) in enumerate(zip(found[name], values)):
            assert left == right, f"{what}: `{name}` row {row}: {left!r}, expected {right!r}"


def examples(page):
    """The examples of the page on artifacts: {kind: (Python expression, SQL query)}."""
    found = {}
    for section in re.split(r"^## `", page, flags=re.MULTILINE)[1:]:
        blocks = dict(re.findall(r"^```(python|sql)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL))
        if blocks:
            found[section.split("`", 1)[0]] = (blocks["python"], blocks["sql"])
    return found


def run_examples(folder, python, sql):
    """Runs the two examples of a kind on an artifact; each must give something."""
    names = {"ARTIFACT": str(folder), "pyarrow": pyarrow, "PIL": PIL, "io": io, "json": json}
    result = eval(python, names)
    assert result is not None and (not hasattr(result, "__len__") or len(result) > 0), python
    rows = duckdb.connect().execute(sql.replace("ARTIFACT", str(folder))).fetchall()
    assert rows, sql


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--expected", type=Path, help="JSON file of expected values by artifact")
    parser.add_argument("--docs", type=Path, help="page whose examples are run")
    arguments = parser.parse_args()
    expected = json.loads(arguments.expected.read_text(encoding="utf-8")) if arguments.expected else {}
    pages = examples(arguments.docs.read_text(encoding="utf-8")) if arguments.docs else {}
    unfinished = list(arguments.store.glob("tmp/**/*.parquet"))
    assert not unfinished, f"unfinished files that a glob would read: {unfinished}"
    seen, kinds = set(), {}
    with tempfile.TemporaryDirectory() as cache:
        for path in sorted(arguments.store.glob("*-v*/*/*/artifact.json")):
            record = json.loads(path.read_text(encoding="utf-8"))
            folder, name = path.parent.absolute(), record["id"]
            kind = name.split("-v", 1)[0]
            rows = check_artifact(folder, record, expected.get(name), cache)
            if pages and rows:
                run_examples(folder, *pages[kind])
            seen.add(name)
            artifacts, total = kinds.get(kind, (0, 0))
            kinds[kind] = (artifacts + 1, total + rows)
    assert seen, f"no artifact below {arguments.store}"
    assert set(expected) <= seen, f"not in the store: {sorted(set(expected) - seen)}"
    for kind, (artifacts, rows) in kinds.items():
        print(f"{kind}: {artifacts} artifacts, {rows} rows, equal in all readers")


if __name__ == "__main__":
    main()
