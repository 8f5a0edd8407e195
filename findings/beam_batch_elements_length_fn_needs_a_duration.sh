#!/bin/sh
# Apache Beam 2.77.0: BatchElements takes length_fn and bucket_boundaries, and ignores both without max_batch_duration_secs.
# Good guess: elements of like length go together, since the arguments that say so are checked and accepted.
# Seen: short and long ones are mixed, in the input's order, without an error or a warning. With a
# maximum time of a batch, which has to do with streams, the same arguments work in a batch job.
# Output seen:
#   length_fn: [[1, 50, 2], [60, 3, 70]]
#   length_fn, max_batch_duration_secs: [[1, 2, 3], [50, 60, 70]]
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install apache-beam==2.77.0
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

import apache_beam as beam


def batches(name, **options):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        lengths = pipeline | beam.Create([1, 50, 2, 60, 3, 70], reshuffle=False)
        batched = lengths | beam.BatchElements(
            3, 3, length_fn=lambda length: length, bucket_boundaries=[10], **options
        )
        batched | beam.Map(repr) | beam.io.WriteToText(name, num_shards=1)
    with open(f"{name}-00000-of-00001") as file:
        return sorted(file.read().splitlines())


alone, with_time = batches("alone"), batches("with_time", max_batch_duration_secs=5)
print(f"length_fn: [{', '.join(alone)}]")
print(f"length_fn, max_batch_duration_secs: [{', '.join(with_time)}]")
sys.exit((alone, with_time) != (["[1, 50, 2]", "[60, 3, 70]"], ["[1, 2, 3]", "[50, 60, 70]"]))
PY
