"""Defines steps for Beam YAML, which read, transcribe and write rows with a schema.

A PCollection of Beam YAML has a schema, and the errors of a step that has ``error_handling`` are
rows of ``element``, ``msg`` and ``stack`` (apache_beam/yaml/yaml_errors.py); without it the first
error fails the pipeline.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

import apache_beam as beam
from apache_beam.coders import Coder
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.typehints.schemas import named_fields_from_element_type

from beam_asr.errors import BadFieldError, ManifestError, SetupError
from beam_asr.records import parsing
from beam_asr.records.channels import channel_of
from beam_asr.records.record import Failure, Record, Transcript, failure, to_record
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import YAML, Groups, all_settings
from beam_asr.records.work import WebDatasetTar
from beam_asr.settings import GROUPS
from beam_asr.transforms.read_manifest import ReadManifest
from beam_asr.transforms.transcribe import Transcribe, TranscribeSettings
from beam_asr.transforms.write_manifest import WriteManifest

Fields = Sequence[tuple[str, Any]]


def parameters(groups: Groups = GROUPS) -> frozenset[str]:
    """Returns the names of the settings that ``TranscribeNeMo`` takes."""
    return frozenset(setting.name for setting in all_settings(groups) if setting.scope == YAML)


PARAMETERS = parameters()
READ_TYPES: dict[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool}
ENCODED_ROW = "__row__"  # a field of the dicts that Transcribe gets: the row itself, encoded
GOOD = "good"
# Values of fields that a transcript omits: no segment of its row failed, there is speech in it, and
# its channels do not cancel each other.
DEFAULTS: Record = {"segments_failed": [], "no_speech": False, "channels_cancel": False}


class TranscribeNeMo(beam.PTransform):
    """Transcribes rows with a NeMo model: ``Transcribe`` for Beam YAML.

    Takes rows with a field that names the audio, and optionally ``offset`` and ``duration`` in
    seconds. Returns each with the fields of its transcript: ``pred_text``, and if requested
    ``words``, ``segments``, ``chars``, ``confidence``, ``n_best`` and ``segments_failed``; with
    ``models``, the ``model`` of the row; with ``segmentation: vad``, ``no_speech``; and
    always the ``channel`` that was taken of several, or null, and ``channels_cancel``. A field that
    the row has already is replaced. All other fields keep their types.

    A row that cannot be transcribed fails the pipeline; with ``error_handling`` it goes to that
    output, with ``element``, ``msg`` and ``stack``, and besides ``stage``, ``type`` and
    ``attempts``.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file; with
            ``models``, that of the rows that they do not take, and optional.
        error_handling: ``{output: NAME}``.
        parameters: settings of ``Transcribe`` by name, each of `PARAMETERS`.

    Raises:
        SetupError: a parameter is unknown or out of its range, or the input has no schema, or not
            the field of the audio.
    """

    def __init__(
        self,
        model_name: str | None = None,
        error_handling: Mapping[str, Any] | None = None,
        **parameters: Any,
    ):
        super().__init__()
        if isinstance(parameters.get("pnc"), bool):  # as YAML reads yes and no
            parameters["pnc"] = "yes" if parameters["pnc"] else "no"
        _check_known("TranscribeNeMo", parameters, PARAMETERS | {"error_handling"})
        self._errors = _error_output(error_handling)
        self._transcribe = Transcribe(model_name, **parameters)
        self._filepath_key = self._transcribe.settings.names.filepath_key
        self._channel_key = self._transcribe.settings.names.channel_key
        self._output_fields = _output_fields(self._transcribe.settings)

    def expand(self, rows: PCollection[Any]) -> PCollection[Any] | dict[str, PCollection[Any]]:
        fields = named_fields_from_element_type(rows.element_type)
        names = [name for name, _ in fields]
        if self._filepath_key not in names:
            raise SetupError(
                f"the input has no field {self._filepath_key!r}, but {', '.join(names)}: name the "
                "one of the audio as filepath_key"
            )
        replaced = dict(self._output_fields)
        kept_fields = [(name, kind) for name, kind in fields if name not in replaced]
        coder = beam.coders.registry.get_coder(rows.element_type)
        records = (
            rows
            | "ToDicts" >> beam.Map(_with_encoded_row, coder).with_output_types(Record)
            | "Transcribe" >> self._transcribe
        ).typed
        transcripts = records.transcripts | "ToRows" >> beam.Map(
            _transcript,
            coder,
            [name for name, _ in kept_fields],
            list(replaced),
            self._channel_key,
        ).with_output_types(RowTypeConstraint.from_fields([*kept_fields, *self._output_fields]))
        errors = records.failures | "ToErrors" >> beam.Map(_error_of, coder).with_output_types(
            _error_type(rows.element_type)
        )
        return _with_errors(transcripts, errors, self._errors)


class ReadNeMoManifest(beam.PTransform):
    """Reads manifests and tables, and finds audio files: ``ReadManifest`` for Beam YAML.

    Returns rows of the audio, no longer relative to its manifest, ``offset`` and ``duration`` in
    seconds, and the named ``fields``, each null where a line has none. An invalid line fails the
    pipeline; with ``error_handling`` it goes to that output, as its text.

    Args:
        path: path, URI, glob, folder or brace expansion, or several.
        fields: the other fields to read: their types by their names, of `READ_TYPES`.
        filepath_key: the field that names the audio.
        storage_options: for each protocol the arguments of its fsspec file system.
        error_handling: ``{output: NAME}``.

    Raises:
        SetupError: a parameter is out of its range.
    """

    def __init__(
        self,
        path: str | Iterable[str],
        fields: Mapping[str, str] | None = None,
        filepath_key: str = "audio_filepath",
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
        error_handling: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self._fields = {"text": "string"} if fields is None else dict(fields)
        for name, kind in self._fields.items():
            if kind not in READ_TYPES:
                raise SetupError(
                    f"fields has {name!r} as {kind!r}, but must have one of {', '.join(READ_TYPES)}"
                )
            if name in (filepath_key, "offset", "duration"):
                raise SetupError(f"fields has {name!r}, which is read in any case")
        self._filepath_key = filepath_key
        self._errors = _error_output(error_handling)
        self._read = ReadManifest(path, filepath_key, storage_options)

    def expand(self, pbegin: Any) -> PCollection[Any] | dict[str, PCollection[Any]]:
        kinds: Fields = [
            (self._filepath_key, str),
            ("offset", float),
            ("duration", _nullable(float)),
            *((name, _nullable(READ_TYPES[kind])) for name, kind in self._fields.items()),
        ]
        parsed = (
            pbegin
            | "Read" >> self._read
            | "ToRows"
            >> beam.ParDo(_ToRow(self._filepath_key, self._fields)).with_outputs(
                "errors", main="rows"
            )
        )
        rows = parsed.rows | "Typed" >> beam.Map(_unchanged).with_output_types(
            RowTypeConstraint.from_fields(kinds)
        )
        errors = parsed.errors | "Errors" >> beam.Map(_unchanged).with_output_types(
            _error_type(str)
        )
        return _with_errors(rows, errors, self._errors)


class WriteNeMoManifest(beam.PTransform):
    """Writes rows as shards of JSON lines, a summary and ``_SUCCESS``: ``WriteManifest`` for YAML.

    A null field is omitted. Bytes become Base64; times and other values that JSON cannot express
    become text.

    Args:
        path: the output folder, on any storage.
        overwrite: whether the results of an earlier run may be replaced.
        num_shards: the number of shards; None chooses it by the number of rows.
        compression: ``gzip``, ``zstd`` or None.
        storage_options: for each protocol the arguments of its fsspec file system.

    Raises:
        OutputExistsError: when the graph is built, if the folder is not empty.
        SetupError: a parameter is out of its range.
    """

    def __init__(
        self,
        path: str,
        overwrite: bool = False,
        num_shards: int | None = None,
        compression: str | None = None,
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        super().__init__()
        self._write = WriteManifest(
            path,
            overwrite=overwrite,
            num_shards=num_shards,
            compression=compression,
            storage_options=storage_options,
        )

    def expand(self, rows: PCollection[Any]) -> PCollection[Record]:
        named_fields_from_element_type(rows.element_type)  # raises an error without a schema
        return (
            rows
            | "ToDicts" >> beam.Map(_fields_of).with_output_types(Record)
            | "Write" >> self._write
        )


class _ToRow(beam.DoFn):
    """Turns rows of a manifest into rows with a schema; invalid ones go to ``errors``."""

    def __init__(self, filepath_key: str, fields: Mapping[str, str]):
        self._filepath_key = filepath_key
        self._fields = fields

    def process(self, row: Row | WebDatasetTar) -> Iterator[Any]:
        if isinstance(row, WebDatasetTar):
            raise SetupError(f"{row.file}: a tar is read by Transcribe in Python, but not in YAML")
        try:
            yield self._row(row)
        except ManifestError as error:
            record = failure(row, error)
            yield TaggedOutput("errors", _error(row.line, record["error"]))

    def _row(self, row: Row) -> beam.Row:
        clip = parsing.parse(row, self._filepath_key)
        fields = row.fields
        return beam.Row(
            **{self._filepath_key: clip.audio, "offset": clip.offset, "duration": clip.duration},
            **{name: _field_value(fields, name, kind) for name, kind in self._fields.items()},
        )


def _field_value(fields: Mapping[str, Any], name: str, kind: str) -> Any:
    value = fields.get(name)
    if value is None or type(value) is READ_TYPES[kind]:
        return value
    if kind == "number" and type(value) is int:
        return float(value)
    raise BadFieldError(f"{name!r} is of the type {type(value).__name__}, and not a {kind}")


def _check_known(step: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise SetupError(f"{step} has no parameter {name!r}; it has {', '.join(sorted(known))}")


def _error_output(error_handling: Mapping[str, Any] | None) -> str | None:
    """Returns the name of the output of errors; None if an error fails the pipeline."""
    if not error_handling:
        return None
    if not isinstance(error_handling, Mapping) or error_handling.keys() != {"output"}:
        raise SetupError(f"error_handling is {error_handling!r}, but must be {{output: NAME}}")
    if error_handling["output"] == GOOD:
        raise SetupError(f"error_handling's output is {GOOD!r}, which is that of what is right")
    return str(error_handling["output"])


def _with_errors(
    good: PCollection[Any], errors: PCollection[Any], output: str | None
) -> PCollection[Any] | dict[str, PCollection[Any]]:
    if output is not None:
        return {GOOD: good, output: errors}
    errors | "Fail" >> beam.Map(_fail)
    return good


def _fail(error: beam.Row) -> None:
    raise RuntimeError(
        f"{error.msg} (give the step error_handling: {{output: NAME}}, so that such rows go there "
        f"and do not fail the pipeline) Row: {error.element}"
    )


def _error_type(element: Any) -> RowTypeConstraint:
    return RowTypeConstraint.from_fields(
        [
            ("element", element),
            ("msg", str),
            ("stack", str),
            ("stage", str),
            ("type", str),
            ("attempts", int),
        ]
    )


def _error(element: Any, error: Mapping[str, Any]) -> beam.Row:
    return beam.Row(
        element=element,
        msg=f"{error['type']}: {error['message']}",
        stack="",
        stage=error["stage"],
        type=error["type"],
        attempts=error["attempts"],
    )


def _output_fields(settings: TranscribeSettings) -> Fields:
    """Returns the fields of a transcript, with their types."""
    timestamps, confidence = settings.transcripts.timestamps or (), settings.transcripts.confidence
    number = _nullable(float)
    times: Fields = [("start", float), ("end", float)]
    fields: list[tuple[str, Any]] = [(settings.names.pred_text_key, str)]
    if "word" in timestamps or confidence == "word":
        word_fields = [
            ("word", str),
            *(times if "word" in timestamps else []),
            *([("confidence", number)] if confidence == "word" else []),
        ]
        fields.append(("words", _rows(word_fields)))
    for kind in ("segment", "char"):
        if kind in timestamps:
            fields.append((f"{kind}s", _rows([(kind, str), *times])))
    if confidence == "row":
        fields.append(("confidence", number))
    if settings.transcripts.n_best:
        fields.append(("n_best", _rows([("text", str), ("score", number)])))
    if settings.long_audio.partial == "keep":
        error = [("stage", str), ("type", str), ("message", str), ("attempts", int)]
        segment_fields = [*times, ("error", RowTypeConstraint.from_fields(error))]
        fields.append(("segments_failed", _rows(segment_fields)))
    if settings.routing.models is not None:
        fields.append(("model", str))
    if settings.long_audio.segmentation == "vad":
        fields.append(("no_speech", bool))
    fields += [(settings.names.channel_key, _nullable(int)), ("channels_cancel", bool)]
    return fields


def _nullable(kind: type) -> Any:
    return Optional[kind]  # noqa: UP045  (Beam's schemas do not know `kind | None`)


def _rows(fields: Fields) -> Any:
    return Sequence[RowTypeConstraint.from_fields(fields)]  # type: ignore[misc]


def _with_encoded_row(row: Any, coder: Coder) -> Record:
    """Returns a row's fields as JSON, and the encoded row, which keeps all its types."""
    fields = {name: value for name, value in _fields_of(row).items() if name not in DEFAULTS}
    return {**fields, ENCODED_ROW: base64.b64encode(coder.encode(row)).decode()}


def _decode_row(record: Record, coder: Coder) -> Any:
    return coder.decode(base64.b64decode(record[ENCODED_ROW]))


def _transcript(
    transcript: Transcript | Record,
    coder: Coder,
    kept_names: list[str],
    new_names: list[str],
    channel_key: str,
) -> beam.Row:
    record = to_record(transcript)
    record = {**record, channel_key: channel_of(record, channel_key)}
    row = _decode_row(record, coder)
    return beam.Row(
        **{name: getattr(row, name) for name in kept_names},
        **{name: _typed(record.get(name, DEFAULTS.get(name))) for name in new_names},
    )


def _error_of(failed: Failure | Record, coder: Coder) -> beam.Row:
    record = to_record(failed)
    return _error(_decode_row(record, coder), record["error"])


def _typed(value: Any) -> Any:
    """Returns a JSON value with its objects as rows."""
    if isinstance(value, dict):
        return beam.Row(**{name: _typed(field) for name, field in value.items()})
    return [_typed(item) for item in value] if isinstance(value, list) else value


def _fields_of(row: Any) -> Record:
    """Returns the fields of a row that are not null, as JSON has them."""
    plain = {name: _plain(value) for name, value in row._asdict().items()}
    return {name: value for name, value in plain.items() if value is not None}


def _plain(value: Any) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy scalar
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if hasattr(value, "_asdict"):
        return _fields_of(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(field) for name, field in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Iterable) else str(value)


def _unchanged(element: Any) -> Any:
    return element
