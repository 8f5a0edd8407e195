"""Records of transcripts: a plain one, a full one, and any fields."""

from hypothesis import strategies as st

PLAIN = {"audio_filepath": "a.flac", "duration": 2.5, "pred_text": "ahoj světe 🌍"}
FAILED = {"stage": "model", "type": "RuntimeError", "message": "no", "attempts": 2}
FULL = {
    **PLAIN,
    "offset": 1,
    "lang": "cs",
    "text": "ahoj",
    "model": "m",
    "confidence": 0.9,
    "wer": 1.0,
    "cer": 0.5,
    "substitutions": 1,
    "deletions": 0,
    "insertions": 2,
    "chars_per_second": 4.8,
    "words_per_second": 0.8,
    "compression_ratio": 0.7,
    "longest_word": 5,
    "most_repeats": 1,
    "no_speech": False,
    "words": [{"word": "ahoj", "start": 0.0, "end": 0.4, "confidence": 0.8}],
    "segments": [{"segment": "ahoj", "start": 0.0, "end": 0.4}],
    "chars": [{"char": "a", "start": 0.0, "end": 0.1}],
    "n_best": [{"text": "ahoj", "score": -1.5}, {"text": "", "score": -3}],
    "segments_failed": [{"start": 1.0, "end": 2.0, "error": FAILED}],
    "speaker": {"name": "Řehoř", "sex": None},
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**299, max_value=10**300)
    | st.floats(allow_nan=False)
    | st.text()
    | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.dictionaries(st.sampled_from(["word", "start", "end", "error", "text"]), inner)
    ),
    max_leaves=8,
)
