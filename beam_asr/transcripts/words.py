"""What a model heard, with times: tokens, words and sentences of a transcript."""

from __future__ import annotations

import codecs
import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

PAUSE_SECONDS = 1.0  # a sentence ends before one, whatever its last word
SENTENCE_ENDS = ".?!…。？！؟۔।"  # noqa: RUF001
CLOSING = "\"'»”’)]}」』）】》〉"  # noqa: RUF001  (may follow the end of a sentence)

# Scripts written without spaces between words, as the characters' names begin with them.
UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HALFWIDTH K")
FIRST_UNSPACED = "\u0e00"  # neither they nor their punctuation are below
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's, of a character it has no piece for
UNKNOWN = ("<unk>", "⁇")


class Token(NamedTuple):
    """A piece of a transcript.

    Attributes:
        text: as it stands in the transcript, with the whitespace before it. There is none within
            it or behind it.
        start: seconds.
        end: seconds.
        confidence: of the model, from 0 to 1; None if it told none.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


class Word(NamedTuple):
    """A word of a transcript.

    Attributes:
        text: without whitespace.
        start: seconds.
        end: seconds.
        confidence: the least of its tokens'; None if any of them has none.
        spaced: whether whitespace stands before it.
    """

    text: str
    start: float
    end: float
    confidence: float | None
    spaced: bool = True


class Sentence(NamedTuple):
    """Words up to the end of a sentence or a pause, with its times in seconds."""

    text: str
    start: float
    end: float


class Piece(NamedTuple):
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
) -> Iterator[Piece]:
    """The pieces as characters, those bytes joined that are one character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    open_bytes: list[Piece] = []
    certainties = [None] * len(pieces) if confidences is None else confidences
    for piece, start, end, confidence in zip(pieces, starts, ends, certainties):
        byte = BYTE.fullmatch(piece)
        if byte is None:
            if open_bytes:  # bytes that are no whole character
                yield _joined(decoder.decode(b"", final=True), open_bytes)
                open_bytes = []
            yield Piece(_characters(piece), start, end, confidence)
            continue
        open_bytes.append(Piece("", start, end, confidence))
        characters = decoder.decode(bytes.fromhex(byte[1]))
        if characters:
            yield _joined("".join(characters.split()), open_bytes)
            open_bytes = []
    if open_bytes:
        yield _joined(decoder.decode(b"", final=True), open_bytes)


def _joined(characters: str, pieces: list[Piece]) -> Piece:
    confidence = _least([piece.confidence for piece in pieces])
    return Piece(characters, pieces[0].start, pieces[-1].end, confidence)


def _characters(piece: str) -> str:
    if piece.strip("▁ ") in UNKNOWN:
        return "⁇"  # as SentencePiece decodes it
    if piece.startswith("##") and len(piece) > 2:
        piece = piece[2:]
    return "".join(piece.replace("▁", " ").split())


def _least(confidences: Sequence[float | None]) -> float | None:
    given = [each for each in confidences if each is not None]
    return min(given) if given and len(given) == len(confidences) else None


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


def _of_piece(text: str, piece: Piece) -> list[Token]:
    """The token of a piece, or as many as it has words."""
    if len(text.split()) == 1:
        return [Token(text, piece.start, piece.end, piece.confidence)]
    parts = re.findall(r"\s*\S+", text)
    return _timed(parts, piece.start, piece.end, piece.confidence)


def _timed(texts: Sequence[str], start: float, end: float, confidence: float | None) -> list[Token]:
    """Tokens that share a time in proportion to their characters."""
    lengths = [len(text.strip()) for text in texts]
    total, done = sum(lengths), 0
    tokens = []
    for text, length in zip(texts, lengths):
        first, last = (start + (end - start) * at / total for at in (done, done + length))
        tokens.append(Token(text, first, last, confidence))
        done += length
    return tokens


def spread(text: str, start: float, end: float) -> list[Token]:
    """Words of a text whose times are not known, over a time in proportion to their characters.

    Of a script that is written without spaces, each character is a token.
    """
    texts: list[str] = []
    for part in re.findall(r"\s*\S+", text.strip()):
        for character in part:
            last = texts[-1] if texts else ""
            opens = not last or (character.isspace() and not last.isspace())
            if opens or (last.strip() and _parts(last[-1], character)):
                texts.append("")
            texts[-1] += character
    return _timed(texts, start, end, None)


def is_unspaced(character: str) -> bool:
    """Whether a character is of a script that is written without spaces between words."""
    return character >= FIRST_UNSPACED and unicodedata.name(character, "").startswith(
        UNSPACED_SCRIPTS
    )


def needs_space(before: str, after: str) -> bool:
    """Whether two texts that follow each other are written with a space between them."""
    ends = (before[-1:], after[:1])
    return all(ends) and not any(is_unspaced(each) or _is_wide(each) for each in ends)


def _is_wide(character: str) -> bool:
    """Whether it is punctuation of the width of a Chinese character, such as "。"."""
    return unicodedata.east_asian_width(character) in "WF" and not character.isalnum()


def _parts(before: str, after: str) -> bool:
    """Whether a word may begin between two characters that have no space between them."""
    if before < FIRST_UNSPACED and after < FIRST_UNSPACED:
        return False
    if not (is_unspaced(before) or is_unspaced(after)):
        # Punctuation that ends a word of such a script, and what comes after.
        return _is_wide(before) and after.isalnum() and not _opens(before)
    if _opens(before):
        return False
    if _opens(after):
        return True
    # Marks, punctuation and the sign of a long vowel go with what is before them.
    return after.isalnum() and after not in "ーｰ"


def _opens(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi")


def by_word(tokens: Sequence[Token]) -> list[list[Token]]:
    """Tokens grouped by the words that they are: at whitespace.

    In a script that is written without spaces, each token is a word, with its punctuation.
    """
    groups: list[list[Token]] = []
    last = ""
    for token in tokens:
        if not token.text.strip():
            continue
        if not last or token.text[0].isspace() or _parts(last, token.text[0]):
            groups.append([])
        groups[-1].append(token)
        last = token.text[-1]
    return groups


def words(tokens: Sequence[Token]) -> list[Word]:
    """The words of a transcript; see ``by_word``."""
    return [
        Word(
            "".join(token.text for token in group).strip(),
            group[0].start,
            group[-1].end,
            _least([token.confidence for token in group]),
            index == 0 or group[0].text[0].isspace(),
        )
        for index, group in enumerate(by_word(tokens))
    ]


def sentences(words: Sequence[Word]) -> list[Sentence]:
    """Words grouped to sentences, which NeMo calls segments.

    One ends after a word that ends in punctuation, or before a pause (as get_segment_offsets in
    nemo/collections/asr/parts/utils/timestamp_utils.py, which takes one or the other).
    """
    groups: list[list[Word]] = []
    for word in words:
        last = groups[-1][-1] if groups else None
        if (
            last is None
            or ends_with_any(last.text, SENTENCE_ENDS)
            or word.start - last.end >= PAUSE_SECONDS
        ):
            groups.append([])
        groups[-1].append(word)
    return [
        Sentence(
            "".join(" " * word.spaced + word.text for word in group).strip(),
            group[0].start,
            group[-1].end,
        )
        for group in groups
    ]


def ends_with_any(text: str, marks: str) -> bool:
    """Whether a word ends in one of the marks, or in one and closing quotes or brackets."""
    return text.rstrip(CLOSING).endswith(tuple(marks))


def monotone(tokens: Sequence[Token], earliest: float, latest: float) -> list[Token]:
    """Tokens whose times lie between two, do not overlap and never go back.

    Where two tokens overlap, the second one's start counts, since models tell starts best.
    """
    starts = []
    latest_start = earliest
    for token in tokens:
        # In this order, max() and min() leave NaN out.
        latest_start = min(latest, max(latest_start, token.start))
        starts.append(latest_start)
    made = []
    for token, start, following in zip(tokens, starts, [*starts[1:], latest]):
        end = min(following, max(start, token.end))
        same = start == token.start and end == token.end
        made.append(token if same else Token(token.text, start, end, token.confidence))
    return made
