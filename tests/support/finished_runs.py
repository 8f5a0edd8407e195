"""Output folders as finished jobs leave them, with the records that a test names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from beam_asr.outputs.shards import FAILURES, FILTERED, TRANSCRIPTS, encode, numbered
from beam_asr.outputs.summary import encode_readable
from beam_asr.records.record import Record
from beam_asr.records.statistics import Score
from beam_asr.transcripts import quality, scoring
from beam_asr.transcripts.normalizers import normalizer

OPTIONS = {"input": ["in.jsonl"], "model_name": "m.nemo", "filepath_key": "audio_filepath"}
FAILED = {"stage": "audio", "type": "AudioNotFoundError", "attempts": 1}


def scored(reference: str, text: str, seconds: float = 2.0, **fields) -> Record:
    """The transcript of a row with a reference, with all that --reference_key and --quality add."""
    score = scoring.score(reference, text, normalizer("basic"), seconds)
    added = {**scoring.fields(score), **quality.signals(text, seconds)}
    return {
        "audio_filepath": "a.flac", "duration": seconds, "text": reference, "pred_text": text,
        **added, **fields,
    }  # fmt: skip


def failed(audio: str, message: str, **fields) -> Record:
    return {"audio_filepath": audio, "error": {**FAILED, "message": message}, **fields}


def write_run(
    folder: Path,
    transcripts: list[Record],
    failures: Iterable[Record] = (),
    filtered: Iterable[Record] = (),
    **summary: object,
) -> Path:
    """Writes shards, summary and marker; the summary's scores are those of the transcripts."""
    folder.mkdir(parents=True)
    kinds = {TRANSCRIPTS: transcripts, FAILURES: list(failures), FILTERED: list(filtered)}
    for kind, records in kinds.items():
        shard = folder / f"{numbered(kind, 0, 1)}.jsonl"
        shard.write_bytes(b"".join(map(encode, records)))
    total = Score()
    for record in transcripts:
        if "wer" in record:
            total += scoring.score(record["text"], record["pred_text"], normalizer("basic"))
    scores = {"reference_key": "text", "normalizer": "basic", "without_reference": 0}
    content = {
        "rows_in": sum(map(len, kinds.values())),
        "transcribed": len(transcripts),
        "failed": len(kinds[FAILURES]),
        "filtered": len(kinds[FILTERED]),
        "audio_hours": sum(record.get("duration") or 0 for record in transcripts) / 3600,
        **({"scores": {**scores, "corpus": scoring.summary(total)}} if total.rows else {}),
        "options": OPTIONS,
        **summary,
    }
    (folder / "summary.json").write_bytes(encode_readable(content))
    (folder / "_SUCCESS").touch()
    return folder
