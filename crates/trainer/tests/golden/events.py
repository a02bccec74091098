"""A TensorBoard event file by TensorBoard's own writer: a version event and two events of scalars.

Written with tensorboard 2.21.0. Run in this folder: python events.py
"""

import pathlib
import tempfile

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

scalars = lambda *pairs: Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in pairs])
events = [
    Event(wall_time=1700000000.25, file_version="brain.Event:2"),
    Event(wall_time=1700000001.5, step=1, summary=scalars(("loss/real", 3.25), ("learning_rate", 1e-4))),
    Event(wall_time=1700000002.5, step=300, summary=scalars(("loss/generated", 0.7),)),
]
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "events"
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()
        content = path.read_bytes()
pathlib.Path("events.bin").write_bytes(content)
print(len(content), "bytes")
