"""Aligns the pieces of a tokenizer with the text, as tokens."""

from __future__ import annotations

import codecs
import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from beam_asr.transcripts.words import Token, least_confidence, spread, with_times

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # of SentencePiece, for a character without a piece
UNKNOWN = ("<unk>", "⁇")


class TimedPiece(NamedTuple):
    """Holds the characters that a piece of a tokenizer stands for, and its times."""

    characters: str
    start: float
    end: float
    confidence: float | None


def align(
    text: str,
    pieces: Sequence[str],
    starts: Sequence[float],
    ends: Sequence[float],
    confidences: Sequence[float] | None = None,
) -> list[Token]:
    """Assigns the text of a transcript to the pieces of a tokenizer.

    A detokenizer moves spaces, joins bytes to characters and may normalize. So the characters of
    the pieces are aligned with those of the text, all but spaces; where they differ, the text is
    distributed evenly over the pieces there. Pieces with no character in the text are dropped.

    Args:
        text: the transcript.
        pieces: of SentencePiece ("▁" is a space), of WordPiece ("##" goes on with a word), or
            single characters.
        starts: of the pieces, in seconds.
        ends: of the pieces, in seconds.
        confidences: of the pieces.

    Returns:
        Tokens that, joined, are ``text.strip()``; empty if there are no pieces.
    """
    text = text.strip()
    timed_pieces = list(_timed_pieces(pieces, starts, ends, confidences))
    if not text or not timed_pieces:
        return []
    owners = [index for index, piece in enumerate(timed_pieces) for _ in piece.characters]
    if not owners:
        return spread(text, timed_pieces[0].start, timed_pieces[-1].end)
    spelled = "".join(piece.characters for piece in timed_pieces)
    visible = "".join(text.split())
    positions = iter(_positions(spelled, visible))
    tokens: list[Token] = []
    spaces, token_text, owner = "", "", -1
    for character in text:
        if character.isspace():
            spaces += character
            continue
        next_owner = owners[next(positions)]
        if next_owner != owner and token_text:
            tokens += _piece_tokens(token_text, timed_pieces[owner])
            token_text = ""
        token_text += spaces + character
        spaces, owner = "", next_owner
    return tokens + _piece_tokens(token_text, timed_pieces[owner])


def _timed_pieces(
    pieces: Sequence[str],
    starts: Sequence[float],
    ends: Sequence[float],
    confidences: Sequence[float] | None,
) -> Iterator[TimedPiece]:
    """Yields the pieces as characters, with the bytes of one character joined."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    open_bytes: list[TimedPiece] = []
    certainties = [None] * len(pieces) if confidences is None else confidences
    for piece, start, end, confidence in zip(pieces, starts, ends, certainties):
        byte = BYTE.fullmatch(piece)
        if byte is None:
            if open_bytes:  # bytes that are no whole character
                yield _joined(decoder.decode(b"", final=True), open_bytes)
                open_bytes = []
            yield TimedPiece(_characters(piece), start, end, confidence)
            continue
        open_bytes.append(TimedPiece("", start, end, confidence))
        characters = decoder.decode(bytes.fromhex(byte[1]))
        if characters:
            yield _joined("".join(characters.split()), open_bytes)
            open_bytes = []
    if open_bytes:
        yield _joined(decoder.decode(b"", final=True), open_bytes)


def _joined(characters: str, pieces: list[TimedPiece]) -> TimedPiece:
    confidence = least_confidence([piece.confidence for piece in pieces])
    return TimedPiece(characters, pieces[0].start, pieces[-1].end, confidence)


def _characters(piece: str) -> str:
    if piece.strip("▁ ") in UNKNOWN:
        return "⁇"  # as SentencePiece decodes it
    if piece.startswith("##") and len(piece) > 2:
        piece = piece[2:]
    return "".join(piece.replace("▁", " ").split())


def _positions(spelled: str, visible: str) -> list[int]:
    """Returns for each character of ``visible`` its position in ``spelled``, never going back."""
    if spelled == visible:
        return list(range(len(visible)))
    positions: list[int] = []
    # By each character alone, so that the lengths stay.
    spelled_keys, visible_keys = (
        [unicodedata.normalize("NFKC", c).casefold() for c in string]
        for string in (spelled, visible)
    )
    matcher = difflib.SequenceMatcher(None, spelled_keys, visible_keys, autojunk=False)
    for _, s1, s2, v1, v2 in matcher.get_opcodes():
        if s1 == s2:  # in no piece: it goes with the character before it
            positions += [max(s1 - 1, 0)] * (v2 - v1)
        else:
            positions += [s1 + (v - v1) * (s2 - s1) // (v2 - v1) for v in range(v1, v2)]
    return positions


def _piece_tokens(text: str, piece: TimedPiece) -> list[Token]:
    """Returns the token of a piece, or one for each of its words."""
    if len(text.split()) == 1:
        return [Token(text, piece.start, piece.end, piece.confidence)]
    parts = re.findall(r"\s*\S+", text)
    return with_times(parts, piece.start, piece.end, piece.confidence)
