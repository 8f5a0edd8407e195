"""Two ways of NeMo's own for audio that is longer than full attention takes.

Local attention lets each frame attend to its neighbours alone, 128 on either side, rather than to
all; it is the model's own forward pass, of which attention is another part. Chunked inference cuts
the audio into overlapping windows, gives each of them to the model with full attention, and joins
the frames of their middles, which have seen enough on both sides; the decoder then has one long
clip. A window is a chunk of 10 s with the 10 s before it and the 5 s behind it, the figures of
NeMo's speech_to_text_streaming_infer_rnnt.py; so each second of a long clip is encoded 2.5 times.

The memory of an encoder, in bytes, as it grows with a clip of ``n`` frames (80 ms each for a
FastConformer), at ``b`` bytes a number, 4 for fp32. Layers come one after the other, so it is that
of one of them, however many there are:

    full      7.5 * heads * n^2 * b, of scores, shifted positions, softmax and their copies
    local     2 * channels * (mel frames / 2) * (mels / 2) * b, of the first convolution
    chunked   that of one pass of windows, and width * n * b for the joined frames

The first convolution of the subsampling is in all of them, and local attention takes less than it:
4 MB a second of audio with 256 channels and 80 mels. NeMo splits it where it has more than 2^31
numbers, and not to save memory. Measured with a FastConformer of width 512 with 8 heads, on a CPU
in fp32, the peak above that of a clip of 5 s, in GiB:

    minutes        1      5     20      60
    full        0.30   3.16
    local       0.25   1.37   5.14
    chunked     0.22   0.30   0.26   < 0.3
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from beam_asr.errors import AttentionError
from beam_asr.models.nemo.families import registry
from beam_asr.settings import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch

    from beam_asr.models.nemo.families.base import DecoderFamily


LOCAL = "rel_pos_local_attn"
# Frames on either side that a frame attends to: what NeMo's model cards say for long audio.
LOCAL_FRAMES = 128
LEFT_SECONDS = 10.0
CHUNK_SECONDS = 10.0
RIGHT_SECONDS = 5.0
# Padded seconds of windows in one pass: two of them, as much as a CPU takes best.
PASS_SECONDS = 50.0


def use_local(model: Any) -> None:
    """Has a model's encoder attend to the near frames alone.

    Weights, device, precision and mode stay as they are. An encoder that is local already keeps
    the context that it was made for.

    Raises:
        AttentionError: the encoder is none that attends to all frames by relative positions, or
            the decoder attends to all of them itself.
    """
    encoder = _encoder_of(model, "local")
    if encoder.self_attention_model == LOCAL:
        return
    if not _attends_to_all(encoder):
        raise _error(model, "local", "its encoder does not attend to all frames by rel_pos")
    before = [set(layer.self_attn.state_dict()) for layer in encoder.layers]
    like = next(encoder.parameters())
    model.change_attention_model(LOCAL, [LOCAL_FRAMES, LOCAL_FRAMES])
    model.change_subsampling_conv_chunking_factor(1)  # split what is too much to be indexed
    for layer, names in zip(encoder.layers, before, strict=True):
        attention = layer.self_attn
        if getattr(attention, "att_context_size", None) != [LOCAL_FRAMES, LOCAL_FRAMES]:
            raise _error(model, "local", "a layer of its encoder keeps its attention")
        # NeMo makes the new modules with biases, random ones, also where the model has none.
        for name, parameter in attention.named_parameters():
            if name not in names:
                parameter.data.zero_()
        attention.to(like.device, like.dtype).train(layer.training)
    encoder.pos_enc.to(like.device, like.dtype).train(encoder.training)


class Chunked:
    """A family whose encoder takes clips of any length, by windows.

    A clip that is no longer than a window goes through the encoder as it is. The frames of a
    longer one are as many as those of the whole clip would be, and frame ``i`` is of the samples
    from ``i * frame`` on, wherever the windows are. Each window's spectrogram is normalised by
    itself, as in NeMo's script.

    Attributes:
        pass_seconds: padded seconds of windows that go through the encoder in one pass.

    Args:
        family: the model's own, CTC or transducer.
        model: the model, with a Conformer's encoder.

    Raises:
        AttentionError: the model's decoder or encoder does not work by frames that can be joined.
    """

    def __init__(self, family: DecoderFamily, model: Any, pass_seconds: float = PASS_SECONDS):
        if family.frame_axis is None:
            raise _error(model, "chunked", "it is neither a CTC model nor a transducer")
        self._time = family.frame_axis
        encoder = _encoder_of(model, "chunked")
        if getattr(encoder, "reduction_subsampling", None) is not None:
            raise _error(model, "chunked", "its encoder reduces frames between its layers")
        self._family = family
        self.pass_seconds = pass_seconds
        featurizer = model.preprocessor.featurizer
        self._hop = int(featurizer.hop_length)
        self._frame = self._hop * int(encoder.subsampling_factor)
        self._rate = int(model.cfg.preprocessor.sample_rate)
        frames = [
            int(seconds * self._rate) // self._frame
            for seconds in (LEFT_SECONDS, CHUNK_SECONDS, RIGHT_SECONDS)
        ]
        self._left, self._chunk, _ = frames
        self._window = sum(frames) * self._frame

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        """As that of the family, with windows of all the clips together in passes."""
        if signal.shape[1] <= self._window:
            return self._family.encode(signal, lengths, prompt)
        clips = [self._windows(clip, samples) for clip, samples in enumerate(lengths.tolist())]
        windows = sorted((each for clip in clips for each in clip), key=lambda each: -each.samples)
        most_frames = max(clip[-1].end for clip in clips)
        joined: Any = None
        own = lengths.new_zeros(len(clips))
        while windows:
            count = max(1, int(self.pass_seconds * self._rate) // windows[0].samples)
            batch, windows = windows[:count], windows[count:]
            states, frames = self._encode_windows(signal, lengths, batch, prompt)
            if joined is None:
                shape = list(states.shape)
                shape[0], shape[self._time] = len(clips), most_frames
                joined = states.new_zeros(shape)
            for window, window_states, window_frames in zip(batch, states, frames, strict=True):
                self._join(joined[window.clip], window, window_states)
                if window.last:
                    own[window.clip] = window.start + window_frames
        return joined, own

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        return self._family.finite(*encoded)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        return self._family.decode(*encoded)

    def _windows(self, clip: int, samples: int) -> list[_ContextChunk]:
        """A clip's windows, each a chunk after the one before; the last goes to the clip's end.

        The first has nothing on its left to see, so its frames count from its beginning, and
        those of the last to its end; so each is a whole window long, but for the last.
        """
        beyond = max(0, samples - self._window)
        count = -(-beyond // (self._chunk * self._frame)) + 1
        windows = []
        for index in range(count):
            start, last = index * self._chunk, index == count - 1
            taken = min(self._window, samples - start * self._frame)
            first = start + self._left if index else 0
            # A causal subsampling makes one frame more of any clip.
            end = start - (-taken // self._frame) + 1 if last else start + self._left + self._chunk
            windows.append(_ContextChunk(clip, start, taken, first, end, last))
        return windows

    def _encode_windows(
        self,
        signal: torch.Tensor,
        lengths: torch.Tensor,
        windows: list[_ContextChunk],
        prompt: Prompt,
    ) -> tuple[torch.Tensor, ...]:
        import torch

        # A length of which no subsampling makes a window's frames depend on the others in a pass:
        # see NemoRecognizer._independent_length.
        samples = -(-(windows[0].samples + self._hop) // self._frame) * self._frame - self._hop
        batch = signal.new_zeros(len(windows), samples)
        for row, window in zip(batch, windows, strict=True):
            start = window.start * self._frame
            row[: window.samples] = signal[window.clip, start : start + window.samples]
        taken = torch.tensor([window.samples for window in windows])
        return self._family.encode(batch, taken.to(lengths), prompt)

    def _join(self, joined: torch.Tensor, window: _ContextChunk, states: torch.Tensor) -> None:
        """Puts a window's own frames into their places of the clip's."""
        axis = self._time - 1
        skipped = window.first - window.start
        # The end of a last window is the most frames that there may be.
        count = window.end - window.first
        if window.last:
            count = min(count, states.shape[axis] - skipped)
        joined.narrow(axis, window.first, count).copy_(states.narrow(axis, skipped, count))


class _ContextChunk(NamedTuple):
    """A part of a clip that the encoder sees at once; places in frames of the clip.

    Attributes:
        clip: which one of the batch.
        start: its first frame.
        samples: its length.
        first: the first of its frames that are kept.
        end: the one after the last that is kept; of the last window an upper bound.
        last: whether it reaches to the clip's end.
    """

    clip: int
    start: int
    samples: int
    first: int
    end: int
    last: bool


def _encoder_of(model: Any, attention: str) -> Any:
    """The model's encoder, if it is a Conformer's and the decoder takes it frame by frame."""
    from nemo.collections.asr.modules import ConformerEncoder

    if registry.family_class(model).attends_to_whole_clip:
        raise _error(model, attention, "its decoder attends to a whole clip, of about 40 s at most")
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, ConformerEncoder):
        raise _error(model, attention, "its encoder is no Conformer or FastConformer")
    return encoder


def _attends_to_all(encoder: Any) -> bool:
    """Whether it is as NeMo's models for files are, not as those for streams."""
    return (
        encoder.self_attention_model == "rel_pos"
        and encoder.att_context_style == "regular"
        and list(encoder.att_context_size) == [-1, -1]
        and not encoder.use_pytorch_sdpa  # which NeMo has not for local attention
    )


def _error(model: Any, attention: str, reason: str) -> AttentionError:
    encoder = type(getattr(model, "encoder", None)).__name__
    return AttentionError(
        f"`attention={attention}` does not go with this {type(model).__name__} and its encoder "
        f"{encoder}: {reason}. Leave `attention` out; long rows are then cut into segments"
    )
