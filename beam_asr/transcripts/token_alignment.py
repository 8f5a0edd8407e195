"""Tokenizer pieces to tokens of the text."""

from __future__ import annotations

import codecs
import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from beam_asr.transcripts.words import Token, earliest, spread, with_times

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's, of a character it has no piece for
UNKNOWN = ("<unk>", "⁇")


class TimedPiece(NamedTuple):
    """The characters that a piece of a tokenizer stands for, and its times."""

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
    """Gives the pieces of a tokenizer the text that they are in a transcript.

    A detokenizer moves spaces, joins bytes to characters and may normalise. So the characters of
    the pieces are aligned with those of the text, all but spaces; where they differ, the text is
    dealt out evenly to the pieces there. Pieces with no character in the text vanish.

    Args:
        text: the transcript.
        pieces: of SentencePiece ("▁" is a space), of WordPiece ("##" goes on with a word), or
            single characters.
        starts: of the pieces, in seconds.
        ends: of the pieces, in seconds.
        confidences: of the pieces.

    Returns:
        Tokens that, joined, are ``text.strip()``; none if there are no pieces.
    """
    text = text.strip()
    known = list(_known(pieces, starts, ends, confidences))
    if not text or not known:
        return []
    owners = [index for index, piece in enumerate(known) for _ in piece.characters]
    if not owners:
        return spread(text, known[0].start, known[-1].end)
    heard = "".join(piece.characters for piece in known)
    visible = "".join(text.split())
    places = iter(_places(heard, visible))
    tokens: list[Token] = []
    before, of_token, owner = "", "", -1
    for character in text:
        if character.isspace():
            before += character
            continue
        own = owners[next(places)]
        if own != owner and of_token:
            tokens += _of_piece(of_token, known[owner])
            of_token = ""
        of_token += before + character
        before, owner = "", own
    return tokens + _of_piece(of_token, known[owner])


def _known(
    pieces: Sequence[str],
    starts: Sequence[float],
    ends: Sequence[float],
    confidences: Sequence[float] | None,
) -> Iterator[TimedPiece]:
    """The pieces as characters, those bytes joined that are one character."""
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
    confidence = earliest([piece.confidence for piece in pieces])
    return TimedPiece(characters, pieces[0].start, pieces[-1].end, confidence)


def _characters(piece: str) -> str:
    if piece.strip("▁ ") in UNKNOWN:
        return "⁇"  # as SentencePiece decodes it
    if piece.startswith("##") and len(piece) > 2:
        piece = piece[2:]
    return "".join(piece.replace("▁", " ").split())


def _places(heard: str, visible: str) -> list[int]:
    """For each character of ``visible`` its place in ``heard``, never going back."""
    if heard == visible:
        return list(range(len(visible)))
    places: list[int] = []
    # By each character alone, so that the lengths stay.
    keys, wanted = (
        [unicodedata.normalize("NFKC", c).casefold() for c in each] for each in (heard, visible)
    )
    matcher = difflib.SequenceMatcher(None, keys, wanted, autojunk=False)
    for _, h1, h2, v1, v2 in matcher.get_opcodes():
        if h1 == h2:  # of no piece: it goes with the character before it
            places += [max(h1 - 1, 0)] * (v2 - v1)
        else:
            places += [h1 + (v - v1) * (h2 - h1) // (v2 - v1) for v in range(v1, v2)]
    return places


def _of_piece(text: str, piece: TimedPiece) -> list[Token]:
    """The token of a piece, or as many as it has words."""
    if len(text.split()) == 1:
        return [Token(text, piece.start, piece.end, piece.confidence)]
    parts = re.findall(r"\s*\S+", text)
    return with_times(parts, piece.start, piece.end, piece.confidence)
