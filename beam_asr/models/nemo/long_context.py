"""Encodes long audio by NeMo's local attention or by overlapping chunks.

Local attention lets each frame attend only to its neighbors, 128 on either side; the forward pass
is otherwise the model's. Chunked inference cuts the audio into overlapping context chunks, encodes
each with full attention, and joins the frames of their middles, which have enough context on both
sides; the decoder then has one long clip. A context chunk is a chunk of 10 s with the 10 s before
it and the 5 s behind it, the figures of NeMo's speech_to_text_streaming_infer_rnnt.py; so each
second of a long clip is encoded 2.5 times.

The memory of an encoder, in bytes, for a clip of ``n`` frames (80 ms each for a FastConformer), at
``b`` bytes a number, 4 for fp32. Layers run one after the other, so it is that of one layer,
however many there are:

    full      7.5 * heads * n^2 * b, of scores, shifted positions, softmax and their copies
    local     2 * channels * (mel frames / 2) * (mels / 2) * b, of the first convolution
    chunked   that of one pass of context chunks, and width * n * b for the joined frames

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

from beam_asr.errors import AttentionError, shortened
from beam_asr.models.nemo.families import registry
from beam_asr.records.prompt import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch

    from beam_asr.models.nemo.families.base import DecoderFamily


LOCAL = "rel_pos_local_attn"
# Frames on either side that a frame attends to: what NeMo's model cards say for long audio.
LOCAL_FRAMES = 128
LEFT_SECONDS = 10.0
CHUNK_SECONDS = 10.0
RIGHT_SECONDS = 5.0
# Padded seconds of context chunks in one pass: two of them, the fastest on a CPU.
PASS_SECONDS = 50.0


def use_local(model: Any) -> None:
    """Makes a model's encoder attend only to near frames.

    Weights, device, precision and mode stay as they are. An encoder that is local already keeps
    the context that it was trained with.

    Raises:
        AttentionError: the encoder does not attend to all frames by relative positions, or the
            decoder attends to all of them itself.
    """
    encoder = _frame_encoder(model, "local")
    if encoder.self_attention_model == LOCAL:
        return
    if not _attends_to_all(encoder):
        raise _error(model, "local", "its encoder does not attend to all frames by rel_pos")
    if encoder.use_pytorch_sdpa:
        raise _error(model, "local", "its attention is PyTorch's (use_pytorch_sdpa)")
    names_before = [set(layer.self_attn.state_dict()) for layer in encoder.layers]
    example = next(encoder.parameters())
    try:
        model.change_attention_model(LOCAL, [LOCAL_FRAMES, LOCAL_FRAMES])
        # Splits tensors that are too large to be indexed.
        model.change_subsampling_conv_chunking_factor(1)
    except Exception as error:  # such as of a key that its configuration lacks
        reason = f"NeMo cannot change its attention ({type(error).__name__}: {shortened(error)})"
        raise _error(model, "local", reason) from error
    for layer, names in zip(encoder.layers, names_before, strict=True):
        attention = layer.self_attn
        if getattr(attention, "att_context_size", None) != [LOCAL_FRAMES, LOCAL_FRAMES]:
            raise _error(model, "local", "a layer of its encoder keeps its attention")
        # NeMo makes the new modules with biases, random ones, also where the model has none.
        for name, parameter in attention.named_parameters():
            if name not in names:
                parameter.data.zero_()
        attention.to(example.device, example.dtype).train(layer.training)
    encoder.pos_enc.to(example.device, example.dtype).train(encoder.training)


class Chunked:
    """Encodes clips of any length by context chunks, for any family that decodes by frames.

    A clip that is no longer than a context chunk goes through the encoder as it is. A longer one
    has as many frames as the whole clip would have, and frame ``i`` stands for the samples from
    ``i * frame`` on, wherever the chunks are. The spectrogram of each context chunk is normalized
    by itself, as in NeMo's script.

    Attributes:
        pass_seconds: padded seconds of context chunks that go through the encoder in one pass.

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
        encoder = _frame_encoder(model, "chunked")
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
        self._context_samples = sum(frames) * self._frame

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        """Encodes as the family does, with the context chunks of all clips batched in passes."""
        if signal.shape[1] <= self._context_samples:
            return self._family.encode(signal, lengths, prompt)
        clips = [
            self._context_chunks(clip, samples) for clip, samples in enumerate(lengths.tolist())
        ]
        chunks = sorted(
            (chunk for clip in clips for chunk in clip), key=lambda chunk: -chunk.samples
        )
        max_frames = max(clip[-1].end for clip in clips)
        joined: Any = None
        clip_frames = lengths.new_zeros(len(clips))
        while chunks:
            count = max(1, int(self.pass_seconds * self._rate) // chunks[0].samples)
            batch, chunks = chunks[:count], chunks[count:]
            states, frames = self._encode_chunks(signal, lengths, batch, prompt)
            if joined is None:
                shape = list(states.shape)
                shape[0], shape[self._time] = len(clips), max_frames
                joined = states.new_zeros(shape)
            for chunk, chunk_states, chunk_frames in zip(batch, states, frames, strict=True):
                self._join(joined[chunk.clip], chunk, chunk_states)
                if chunk.last:
                    clip_frames[chunk.clip] = chunk.start + chunk_frames
        return joined, clip_frames

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        """Tells which clips are finite, as the family does."""
        return self._family.finite(*encoded)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        """Decodes as the family does."""
        return self._family.decode(*encoded)

    def _context_chunks(self, clip: int, samples: int) -> list[_ContextChunk]:
        """Cuts a clip into context chunks, one chunk apart; the last reaches the clip's end.

        The first has no left context, so its frames are used from its start, and those of the last
        to its end. So all but the last have the full length.
        """
        beyond = max(0, samples - self._context_samples)
        count = -(-beyond // (self._chunk * self._frame)) + 1
        chunks = []
        for index in range(count):
            start, last = index * self._chunk, index == count - 1
            chunk_samples = min(self._context_samples, samples - start * self._frame)
            first = start + self._left if index else 0
            if last:  # a causal subsampling makes one frame more of any clip
                end = start - (-chunk_samples // self._frame) + 1
            else:
                end = start + self._left + self._chunk
            chunks.append(_ContextChunk(clip, start, chunk_samples, first, end, last))
        return chunks

    def _encode_chunks(
        self,
        signal: torch.Tensor,
        lengths: torch.Tensor,
        chunks: list[_ContextChunk],
        prompt: Prompt,
    ) -> tuple[torch.Tensor, ...]:
        import torch

        # With this length, no subsampling makes a chunk's frames depend on the others in a pass:
        # see NemoRecognizer._independent_length.
        samples = -(-(chunks[0].samples + self._hop) // self._frame) * self._frame - self._hop
        batch = signal.new_zeros(len(chunks), samples)
        for row, chunk in zip(batch, chunks, strict=True):
            start = chunk.start * self._frame
            row[: chunk.samples] = signal[chunk.clip, start : start + chunk.samples]
        chunk_lengths = torch.tensor([chunk.samples for chunk in chunks])
        return self._family.encode(batch, chunk_lengths.to(lengths), prompt)

    def _join(self, joined: torch.Tensor, chunk: _ContextChunk, states: torch.Tensor) -> None:
        """Copies the frames of a chunk, without its context, to their places in the clip."""
        axis = self._time - 1
        skipped = chunk.first - chunk.start
        count = chunk.end - chunk.first
        if chunk.last:  # its end is an upper bound
            count = min(count, states.shape[axis] - skipped)
        joined.narrow(axis, chunk.first, count).copy_(states.narrow(axis, skipped, count))


class _ContextChunk(NamedTuple):
    """A part of a clip that the encoder sees at once; positions are frames of the clip.

    Attributes:
        clip: index in the batch.
        start: the first frame, with its context.
        samples: the length, with its context.
        first: the first frame without the context.
        end: the frame after the last one without the context; of the last chunk an upper bound.
        last: whether it reaches the clip's end.
    """

    clip: int
    start: int
    samples: int
    first: int
    end: int
    last: bool


def _frame_encoder(model: Any, attention: str) -> Any:
    """Returns the model's encoder; raises unless it is a Conformer with a frame-wise decoder."""
    from nemo.collections.asr.modules import ConformerEncoder

    if registry.family_class(model).attends_to_whole_clip:
        raise _error(model, attention, "its decoder attends to a whole clip, of about 40 s at most")
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, ConformerEncoder):
        raise _error(model, attention, "its encoder is no Conformer or FastConformer")
    return encoder


def _attends_to_all(encoder: Any) -> bool:
    """Tells whether an encoder is one of NeMo's for files rather than for streams."""
    return (
        encoder.self_attention_model == "rel_pos"
        and encoder.att_context_style == "regular"
        and list(encoder.att_context_size) == [-1, -1]
    )


def _error(model: Any, attention: str, reason: str) -> AttentionError:
    encoder = type(getattr(model, "encoder", None)).__name__
    return AttentionError(
        f"`attention={attention}` does not go with this {type(model).__name__} and its encoder "
        f"{encoder}: {reason}. Leave `attention` out; long rows are then cut into segments"
    )
