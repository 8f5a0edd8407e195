"""Tiny, random but deterministic NeMo ASR models, one for each decoder family.

They are real NeMo models (real classes, configurations shaped like those of the
published checkpoints, tokenizers inside the ``.nemo`` file) with two-layer encoders of
width 32, so that a build, a restore and a forward pass each take a moment on a CPU.
The weights are random, but the output layers are *calibrated* on synthetic audio:
logits are centered and the blank (or end-of-text) bias is set by a quantile.  Greedy
decoding therefore gives gibberish that is non-empty, differs from clip to clip and
depends on the whole clip, which is what a comparison of two ways to run the same model
needs; a plainly random model emits one token for ever, or none.

Importing this module is cheap: NeMo and torch are only imported by the functions.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from pathlib import Path

SAMPLE_RATE = 16000

FAMILIES = (
    "ctc_char",
    "ctc_bpe",
    "rnnt_char",
    "rnnt_bpe",
    "tdt_bpe",
    "hybrid_rnnt_ctc_bpe",
    "hybrid_tdt_ctc_bpe",
    "hybrid_rnnt_ctc_bpe_prompt",
    "aed_multitask",
)

#: A model whose prompt requests times, which it writes between its words.
AED_WITH_TIMES = "aed_multitask_times"

#: One with the first Canary's prompt, which names the task. It writes the first three languages.
AED_CANARY = "aed_canary"
CANARY_LANGUAGES = ("en", "es", "fr-FR", "de", "pt-BR", "pt-PT")

#: One with ``target_lang`` that is no hybrid, and none for all languages.
RNNT_WITH_PROMPT = "rnnt_bpe_prompt"

#: A TDT model of characters, of which NeMo's own texts lack the last letters of the alphabet.
TDT_OF_CHARACTERS = "tdt_char"

#: Values of ``target_lang`` known to the prompt-conditioned model.
PROMPT_LANGUAGES = {"en-US": 0, "de-DE": 1, "es-ES": 2, "auto": 3}

_CHARS = list(" abcdefghijklmnopqrstuvwxyz'")
_DURATIONS = [0, 1, 2, 3, 4]
_HIDDEN = 32
_AED_HIDDEN = 48
_AED_MAX_TOKENS = 64

_ENGLISH = """
the quick brown fox jumps over the lazy dog while seven wizards boil a large jar of honey
she sells sea shells by the sea shore and the shells she sells are surely sea shells
a journey of a thousand miles begins with a single step and a good pair of walking shoes
please leave your name and your number after the tone and we will call you back tomorrow
the weather in the north will be cold and windy with some rain in the early afternoon
he opened the window and listened to the quiet sound of water running under the bridge
nothing in the world is quite as useful as a map that somebody has already walked through
they were talking about the price of bread and whether the train would be late again
when the first light came over the hills the whole village was already out in the fields
it takes an expert to fix a machine like that but anybody can press the green button
we keep the keys in the kitchen next to the old radio and the box of matches
my brother wrote a letter to the mayor about the noise of the buses in our street
"""

_SPANISH = """
el perro de san roque no tiene rabo porque ramon ramirez se lo ha robado
en un lugar de la mancha de cuyo nombre no quiero acordarme vivia un hidalgo
los ninos juegan en la plaza mientras la abuela prepara la comida del domingo
manana por la manana vamos a tomar el tren de las ocho para llegar temprano
la casa de mi hermano tiene una puerta verde y dos ventanas que dan al jardin
no por mucho madrugar amanece mas temprano pero al que madruga dios le ayuda
"""


def write_clips(folder: Path, count: int) -> Path:
    """Writes clips of speechlike sound, each a tenth of a second longer; returns the folder."""
    import soundfile

    for index in range(count):
        clip = speechlike(0.4 + 0.1 * index, index)
        soundfile.write(folder / f"{index:02d}.wav", clip, SAMPLE_RATE)
    return folder


def speechlike(seconds: float, seed: int = 0):
    """A float32 clip that moves about like speech: syllables, pitch, formants, pauses."""
    import numpy as np

    rng = np.random.default_rng([seed, 7])
    total = round(seconds * SAMPLE_RATE)
    out = np.zeros(total + SAMPLE_RATE, dtype=np.float64)
    at = int(rng.uniform(0.0, 0.08) * SAMPLE_RATE)
    while at < total:
        n = int(rng.uniform(0.06, 0.35) * SAMPLE_RATE)
        t = np.arange(n) / SAMPLE_RATE
        if rng.random() < 0.7:  # voiced: harmonics under three formants
            pitch = rng.uniform(85, 260)
            formants = rng.uniform((250, 850, 2200), (850, 2400, 3400))
            phase = 2 * np.pi * np.cumsum(pitch * (1 + rng.uniform(-0.3, 0.3) * t)) / SAMPLE_RATE
            sound = np.zeros(n)
            for k in range(1, int(7000 / pitch)):
                gain = np.exp(-(((k * pitch - formants) / 150.0) ** 2)).sum() + 0.002
                sound += gain * np.sin(k * phase + rng.uniform(0, 6.28))
        else:  # unvoiced: band-limited noise
            spectrum = np.fft.rfft(rng.standard_normal(n))
            freq = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
            spectrum *= np.exp(-(((freq - rng.uniform(1000, 6500)) / rng.uniform(400, 2000)) ** 2))
            sound = np.fft.irfft(spectrum, n)
        sound *= np.hanning(n) * rng.uniform(0.02, 0.25) / (np.abs(sound).max() + 1e-9)
        m = min(n, len(out) - at)
        out[at : at + m] += sound[:m]
        at += int(n * rng.uniform(0.6, 1.0))
        if rng.random() < 0.15:
            at += int(rng.uniform(0.1, 0.5) * SAMPLE_RATE)
    out += rng.standard_normal(len(out)) * rng.uniform(1e-4, 2e-3)
    return out[:total].astype(np.float32)


def build(family: str, folder: Path) -> Path:
    """Write ``folder/<family>.nemo`` and return its path; the same weights every time."""
    if family not in _BUILDERS:
        raise ValueError(f"unknown family {family!r}; one of {', '.join(_BUILDERS)}")
    import torch
    from omegaconf import open_dict

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{family}.nemo"
    with tempfile.TemporaryDirectory() as scratch, _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + list(_BUILDERS).index(family))
        model = _BUILDERS[family](Path(scratch)).eval()
        with open_dict(
            model.cfg
        ):  # transcribe() of paths reads it; set now, lest the constructor load data
            model.cfg.validation_ds = {
                "manifest_filepath": None,
                "sample_rate": SAMPLE_RATE,
                "batch_size": 8,
                "shuffle": False,
                "use_start_end_token": False,
            }
        model.save_to(str(path))
    return path


@contextlib.contextmanager
def _one_thread():
    """The order of sums depends on the number of threads; tiny models are also faster with one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --------------------------------------------------------------------------- configuration


def _preprocessor(features: int, **extra) -> dict:
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": SAMPLE_RATE,
        "normalize": "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "window": "hann",
        "features": features,
        "n_fft": 512,
        "log": True,
        "frame_splicing": 1,
        "dither": 1e-5,
        "pad_to": 0,
        "pad_value": 0.0,
        **extra,
    }


def _encoder(features: int, **extra) -> dict:
    """FastConformer-like: depthwise-separable striding by 8."""
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": features,
        "feat_out": -1,
        "n_layers": 2,
        "d_model": _HIDDEN,
        "use_bias": True,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 16,
        "causal_downsampling": False,
        "ff_expansion_factor": 2,
        "self_attention_model": "rel_pos",
        "n_heads": 4,
        "att_context_size": [-1, -1],
        "att_context_style": "regular",
        "xscaling": False,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 9,
        "conv_norm_type": "batch_norm",
        "conv_context_size": None,
        "dropout": 0.1,
        "dropout_pre_encoder": 0.1,
        "dropout_emb": 0.0,
        "dropout_att": 0.1,
        "stochastic_depth_drop_prob": 0.0,
        **extra,
    }


def _conformer_encoder(features: int, **extra) -> dict:
    """Conformer-like: plain striding by 4."""
    conformer = {
        "subsampling": "striding",
        "subsampling_factor": 4,
        "xscaling": True,
        "conv_kernel_size": 15,
    }
    return _encoder(features, **{**conformer, **extra})


def _common(features: int, encoder: dict, **preprocessor) -> dict:
    return {
        "sample_rate": SAMPLE_RATE,
        "log_prediction": True,
        "skip_nan_grad": False,
        "preprocessor": _preprocessor(features, **preprocessor),
        "spec_augment": {
            "_target_": "nemo.collections.asr.modules.SpectrogramAugmentation",
            "freq_masks": 2,
            "time_masks": 5,
            "freq_width": 27,
            "time_width": 0.05,
        },
        "encoder": encoder,
        "optim": {"name": "adamw", "lr": 0.001},
    }


def _ctc_decoder(vocabulary: list) -> dict:
    return {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": _HIDDEN,
        "num_classes": len(vocabulary) if vocabulary else -1,
        "vocabulary": vocabulary,
    }


def _ctc_decoding() -> dict:
    return {
        "strategy": "greedy_batch",
        "preserve_alignments": None,
        "compute_timestamps": None,
        "batch_dim_index": 0,
    }


def _transducer(durations: list | None) -> dict:
    extra = len(durations) if durations else 0
    defaults = {"enc_hidden": _HIDDEN, "pred_hidden": _HIDDEN, "joint_hidden": _HIDDEN}
    joint = {
        "_target_": "nemo.collections.asr.modules.RNNTJoint",
        "log_softmax": None,
        "preserve_memory": False,
        "fuse_loss_wer": True,
        "fused_batch_size": 4,
        "jointnet": {"joint_hidden": _HIDDEN, "activation": "relu", "dropout": 0.2},
    }
    decoding = {
        "strategy": "greedy_batch",
        "greedy": {"max_symbols": 5, "loop_labels": True, "use_cuda_graph_decoder": True},
        "beam": {"beam_size": 2, "return_best_hypothesis": False, "score_norm": True},
    }
    loss = {
        "loss_name": "default",
        "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0, "clamp": -1.0},
    }
    if durations:
        defaults |= {"num_tdt_durations": extra, "tdt_durations": durations}
        joint |= {"num_extra_outputs": extra}
        decoding |= {"model_type": "tdt", "durations": durations}
        loss = {
            "loss_name": "tdt",
            "tdt_kwargs": {
                "fastemit_lambda": 0.0,
                "clamp": -1.0,
                "durations": durations,
                "sigma": 0.02,
                "omega": 0.1,
            },
        }
    return {
        "compute_eval_loss": False,
        "rnnt_reduction": "mean_volume",
        "model_defaults": defaults,
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {
                "pred_hidden": _HIDDEN,
                "pred_rnn_layers": 1,
                "t_max": None,
                "dropout": 0.2,
            },
        },
        "joint": joint,
        "decoding": decoding,
        "loss": loss,
    }


def _aux_ctc() -> dict:
    return {
        "ctc_loss_weight": 0.3,
        "use_cer": False,
        "ctc_reduction": "mean_batch",
        "decoder": _ctc_decoder([]),
        "decoding": {"strategy": "greedy_batch"},
    }


def _bpe(folder: Path, text: str = _ENGLISH, size: int = 64) -> dict:
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model

    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.txt"
    corpus.write_text(text.strip() + "\n", encoding="utf-8")
    create_spt_model(
        data_file=str(corpus),
        vocab_size=size,
        sample_size=-1,
        do_lower_case=False,
        tokenizer_type="bpe",
        output_dir=str(folder),
    )
    return {"dir": str(folder), "type": "bpe"}


def _make(class_name: str, cfg: dict):
    from nemo.collections.asr import models
    from omegaconf import OmegaConf

    model = getattr(models, class_name)(cfg=OmegaConf.create(cfg)).eval()
    _enliven(model)
    return model


# ----------------------------------------------------------------------------- calibration


def _batch():
    """Calibration audio: (B, T) and (B,)."""
    import numpy as np
    import torch

    clips = [
        speechlike(seconds, seed)
        for seed, seconds in enumerate((1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 8.0, 10.0))
    ]
    lengths = [len(clip) for clip in clips]
    padded = np.stack([np.pad(clip, (0, max(lengths) - len(clip))) for clip in clips])
    return torch.from_numpy(padded), torch.tensor(lengths)


def _valid(states, lengths):
    """(B, D, T) and lengths to the (N, D) frames that are not padding."""
    import torch

    return torch.cat([states[i, :, : int(n)].T for i, n in enumerate(lengths)])


def _encode(model):
    """Encoder states (B, D, T) and lengths of the calibration audio."""
    import torch

    signal, length = _batch()
    with torch.no_grad():
        processed, frames = model.preprocessor(input_signal=signal, length=length)
        encoded, frames = model.encoder(audio_signal=processed, length=frames)
    return encoded, frames


def _enliven(model):
    """Scale the subsampling so that the audio, not the biases and the edges, drives it."""
    import torch

    def rescale(module, _inputs, output):
        channel = 1 if output.dim() == 4 else 2
        axes = [axis for axis in range(output.dim()) if axis != channel]
        mean, std = output.mean(axes), output.std(axes).clamp_min(1e-3)
        module.weight.div_(std.reshape(-1, *[1] * (module.weight.dim() - 1)))
        if module.bias is None:
            return None
        module.bias.sub_(mean).div_(std)
        shape = [-1 if axis == channel else 1 for axis in range(output.dim())]
        return (output - mean.reshape(shape)) / std.reshape(shape)

    signal = torch.from_numpy(speechlike(10.0, seed=99))[None]
    with torch.no_grad():
        for kind in (torch.nn.Conv2d, torch.nn.Linear):
            layers = [
                layer for layer in model.encoder.pre_encode.modules() if isinstance(layer, kind)
            ]
            hooks = [layer.register_forward_hook(rescale) for layer in layers]
            features, frames = model.preprocessor(
                input_signal=signal, length=torch.tensor([signal.shape[1]])
            )
            model.encoder(audio_signal=features, length=frames)
            for hook in hooks:
                hook.remove()


def _standardise(linear, inputs, scale: float):
    """Random weights so that the outputs over `inputs` have mean 0 and deviation `scale`."""
    import torch

    with torch.no_grad():
        mean, std = inputs.mean(0), inputs.std(0).clamp_min(1e-3)
        weight = (
            torch.randn(linear.weight.shape[0], inputs.shape[1]) / math.sqrt(inputs.shape[1]) / std
        )
        outputs = (inputs - mean) @ weight.T
        weight *= scale / outputs.std(0).clamp_min(1e-6)[:, None]
        linear.weight.copy_(weight.reshape(linear.weight.shape))
        linear.bias.copy_(-(weight @ mean))


def _favour(linear, inputs, index: int, share: float, rivals: slice):
    """Set bias `index` so that it beats every one of `rivals` for a `share` of `inputs`."""
    import torch

    with torch.no_grad():
        weight = linear.weight.reshape(linear.weight.shape[0], -1)
        logits = inputs @ weight.T + linear.bias
        candidates = torch.zeros(logits.shape[1], dtype=torch.bool)
        candidates[rivals] = True
        candidates[index] = False
        gap = logits[:, candidates].max(1).values - logits[:, index]
        linear.bias[index] += torch.quantile(gap, share)


def _calibrate_ctc(decoder, frames, has_unk: bool, blank: float = 0.62):
    linear = decoder.decoder_layers[0]
    _standardise(linear, frames, scale=3.0)
    if has_unk:
        linear.bias.data[0] = -50.0
    _favour(linear, frames, linear.bias.numel() - 1, blank, slice(0, linear.bias.numel() - 1))


def _calibrate_transducer(model, encoded, lengths, has_unk: bool, blank: float, rounds: int = 5):
    import torch

    decoder, joint = model.decoder, model.joint
    vocabulary = decoder.vocab_size  # also the blank's index
    linear = joint.joint_net[-1]
    frames = _valid(encoded, lengths)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():  # a livelier prediction network
            if "bias" not in name:
                parameter.mul_(3.0)
        # Prediction states after random prefixes, and after each token as the first.
        tokens = torch.randint(1, vocabulary, (48, 24))
        states = decoder.predict(tokens, state=None, add_sos=True)[0].reshape(
            -1, decoder.pred_hidden
        )
        firsts = decoder.predict(torch.arange(vocabulary)[:, None], state=None, add_sos=True)[0][
            :, 1
        ]
        _standardise(joint.enc, frames, scale=1.0)
        _standardise(joint.pred, states, scale=0.7)
        f = joint.enc(frames[torch.randint(len(frames), (6000,))])
        g = joint.pred(states[torch.randint(len(states), (6000,))])
        hidden = torch.relu(f + g)
        _standardise(linear, hidden, scale=3.0)
        # A token makes itself less likely to come next: no endless runs of it.
        after = torch.relu(f[:500, None] + joint.pred(firsts)[None]).mean(0) - hidden.mean(0)
        linear.weight[:vocabulary] -= 5.0 * after / after.square().sum(1, keepdim=True)
        for _ in range(rounds):  # center along the model's own greedy paths
            hidden = _transducer_path(model, encoded, lengths)
            logits = hidden @ linear.weight.T
            linear.bias.copy_(linear.bias + 0.7 * (-logits.mean(0) - linear.bias))
            if has_unk:
                linear.bias[0] = -50.0
            for duration in range(linear.bias.numel() - vocabulary - 1):  # TDT: 1 and 2 most often
                linear.bias[vocabulary + 1 + duration] += (-0.5, 1.5, 1.5, 0.5, -0.5)[duration]
            _favour(linear, hidden, vocabulary, blank, slice(0, vocabulary))


def _transducer_path(model, encoded, lengths, most_symbols: int = 5):
    """The joint's hidden states that greedy decoding passes through."""
    import torch

    decoder, joint = model.decoder, model.joint
    blank, linear = decoder.vocab_size, joint.joint_net[-1]
    frames = joint.enc(encoded.permute(0, 2, 1)[:, :100])
    lengths = lengths.clamp(max=frames.shape[1])
    rows = torch.arange(len(frames))
    g, state = decoder.predict(None, state=None, add_sos=False, batch_size=len(frames))
    t, symbols, seen = torch.zeros_like(lengths), torch.zeros_like(lengths), []
    while bool((active := t < lengths).any()):
        hidden = torch.relu(frames[rows, t.clamp(max=frames.shape[1] - 1)] + joint.pred(g[:, 0]))
        seen.append(hidden[active])
        logits = linear(hidden)
        token = logits[:, : blank + 1].argmax(-1)
        emit = active & (token != blank)
        symbols = torch.where(emit, symbols + 1, symbols)
        step = (
            logits[:, blank + 1 :].argmax(-1)
            if logits.shape[1] > blank + 1
            else torch.zeros_like(t)
        )
        step = torch.where((step == 0) & (~emit | (symbols >= most_symbols)), 1, step)
        next_g, next_state = decoder.predict(
            token.masked_fill(~emit, 0)[:, None], state=state, add_sos=False
        )
        g = torch.where(emit[:, None, None], next_g, g)
        state = [torch.where(emit[None, :, None], new, old) for new, old in zip(next_state, state)]
        t, symbols = t + step, torch.where(step > 0, 0, symbols)
    return torch.cat(seen)


# -------------------------------------------------------------------------------- families


def _ctc_char(_folder: Path):
    cfg = _common(64, _conformer_encoder(64), pad_to=16)
    cfg |= {"labels": _CHARS, "decoder": _ctc_decoder(_CHARS), "decoding": _ctc_decoding()}
    model = _make("EncDecCTCModel", cfg)
    _calibrate_ctc(model.decoder, _valid(*_encode(model)), has_unk=False)
    return model


def _ctc_bpe(folder: Path):
    cfg = _common(80, _encoder(80))
    cfg |= {"tokenizer": _bpe(folder), "decoder": _ctc_decoder([]), "decoding": _ctc_decoding()}
    model = _make("EncDecCTCModelBPE", cfg)
    _calibrate_ctc(model.decoder, _valid(*_encode(model)), has_unk=True, blank=0.55)
    return model


def _rnnt_char(_folder: Path):
    cfg = _common(64, _conformer_encoder(64)) | {"labels": _CHARS} | _transducer(None)
    model = _make("EncDecRNNTModel", cfg)
    _calibrate_transducer(model, *_encode(model), has_unk=False, blank=0.8)
    return model


def _rnnt_bpe(folder: Path):
    cfg = _common(80, _encoder(80)) | {"tokenizer": _bpe(folder)} | _transducer(None)
    model = _make("EncDecRNNTBPEModel", cfg)
    _calibrate_transducer(model, *_encode(model), has_unk=True, blank=0.75)
    return model


def _tdt_char(_folder: Path):
    cfg = _common(64, _conformer_encoder(64)) | {"labels": _CHARS} | _transducer(_DURATIONS)
    model = _make("EncDecRNNTModel", cfg)
    _calibrate_transducer(model, *_encode(model), has_unk=False, blank=0.6)
    return model


def _tdt_bpe(folder: Path):
    cfg = (
        _common(128, _encoder(128, use_bias=False))
        | {"tokenizer": _bpe(folder)}
        | _transducer(_DURATIONS)
    )
    model = _make("EncDecRNNTBPEModel", cfg)
    _calibrate_transducer(model, *_encode(model), has_unk=True, blank=0.6)
    return model


def _hybrid(folder: Path, encoder: dict, durations: list | None):
    cfg = (
        _common(80, encoder)
        | {"tokenizer": _bpe(folder), "aux_ctc": _aux_ctc()}
        | _transducer(durations)
    )
    model = _make("EncDecHybridRNNTCTCBPEModel", cfg)
    encoded, lengths = _encode(model)
    _calibrate_transducer(model, encoded, lengths, has_unk=True, blank=0.5 if durations else 0.85)
    _calibrate_ctc(model.ctc_decoder, _valid(encoded, lengths), has_unk=True)
    return model


def _hybrid_rnnt_ctc_bpe(folder: Path):
    return _hybrid(folder, _conformer_encoder(80), None)


def _hybrid_tdt_ctc_bpe(folder: Path):
    return _hybrid(folder, _encoder(80), _DURATIONS)


def _hybrid_rnnt_ctc_bpe_prompt(folder: Path):
    return _with_prompt(
        "EncDecHybridRNNTCTCBPEModelWithPrompt", folder, PROMPT_LANGUAGES, {"aux_ctc": _aux_ctc()}
    )


def _rnnt_bpe_prompt(folder: Path):
    """As NeMo's own example of a configuration, without "auto"."""
    languages = {"en-US": 0, "en-GB": 1, "es-ES": 2, "de-DE": 3}
    return _with_prompt("EncDecRNNTBPEModelWithPrompt", folder, languages, {})


def _with_prompt(class_name: str, folder: Path, languages: dict[str, int], extra: dict):
    import torch

    cfg = _common(80, _encoder(80)) | {"tokenizer": _bpe(folder), **extra} | _transducer(None)
    cfg["subsampling_factor"] = 8
    cfg["model_defaults"] |= {
        "initialize_prompt_feature": True,
        "num_prompts": 8,
        "prompt_dictionary": dict(languages),
    }
    model = _make(class_name, cfg)
    encoded, lengths = _encode(model)
    with torch.no_grad():
        frames = _valid(encoded, lengths)
        first = model.prompt_kernel[0]
        mean, std = frames.mean(0), frames.std(0).clamp_min(1e-3)
        first.weight[:, :_HIDDEN] /= std / 2.0
        first.bias -= first.weight[:, :_HIDDEN] @ mean
        first.weight[:, _HIDDEN:] *= 6.0  # the language has to matter
        signal, length = _batch()
        indices = torch.arange(len(length)) % len(languages)
        encoded, lengths = model.forward(
            input_signal=signal, input_signal_length=length, prompt_indices=indices
        )
    _calibrate_transducer(model, encoded, lengths, has_unk=True, blank=0.6)
    if extra:
        _calibrate_ctc(model.ctc_decoder, _valid(encoded, lengths), has_unk=True)
    return model


def _aed_multitask(folder: Path, times: int = 0, first_canary: bool = False):
    """With so many tokens that are times, as ``<|0|>``, in frames of the encoder."""
    import torch
    from nemo.collections.common.tokenizers.canary_tokenizer import CanaryTokenizer
    from omegaconf import open_dict

    switches = [
        f"<|{no}{name}|>" for name in ("pnc", "itn", "timestamp", "diarize") for no in ("", "no")
    ]
    emotions = [f"<|emo:{name}|>" for name in ("undefined", "neutral", "happy", "sad", "angry")]
    special = ["<|startofcontext|>", "<|en|>", "<|es|>", "<|unklang|>", *switches, *emotions]
    special += [f"<|{frame}|>" for frame in range(times)]
    if first_canary:
        names = (*CANARY_LANGUAGES, "transcribe", "translate")
        special = [f"<|{name}|>" for name in names]
    CanaryTokenizer.build_special_tokenizer(special, folder / "spl_tokens")
    cfg = _common(128, _encoder(128))
    cfg |= {
        "label_smoothing": 0.0,
        "use_loss_mask_for_prompt": False,
        # Only while building: NeMo would look into whatever model this process restored last.
        "restore_timestamps_model": False,
        "prompt_format": "canary2",
        "prompt_defaults": [
            {
                "role": "user",
                "slots": {
                    "decodercontext": "",
                    "source_lang": "<|en|>",
                    "target_lang": "<|en|>",
                    "emotion": "<|emo:undefined|>",
                    "pnc": "<|pnc|>",
                    "itn": "<|noitn|>",
                    "diarize": "<|nodiarize|>",
                    "timestamp": "<|notimestamp|>",
                },
            },
            {"role": "user_partial", "slots": {"decodercontext": ""}},
        ],
        "model_defaults": {
            "asr_enc_hidden": _HIDDEN,
            "lm_enc_hidden": _AED_HIDDEN,
            "lm_dec_hidden": _AED_HIDDEN,
        },
        "tokenizer": {
            "dir": None,
            "type": "agg",
            "langs": {
                "spl_tokens": {"dir": str(folder / "spl_tokens"), "type": "bpe"},
                "en": _bpe(folder / "en"),
                "es": _bpe(folder / "es", _SPANISH, 48),
            },
            "custom_tokenizer": {
                "_target_": "nemo.collections.common.tokenizers.canary_tokenizer.CanaryTokenizer",
                "tokenizers": None,
            },
        },
        "transf_encoder": {"num_layers": 0},
        "transf_decoder": {
            "_target_": "nemo.collections.asr.modules.transformer.get_nemo_transformer",
            "model_name": None,
            "pretrained": False,
            "encoder": False,
            "pre_ln_final_layer_norm": True,
            "config_dict": {
                "max_sequence_length": _AED_MAX_TOKENS,
                "num_token_types": 0,
                "embedding_dropout": 0.1,
                "learn_positional_encodings": False,
                "hidden_size": _AED_HIDDEN,
                "inner_size": 2 * _AED_HIDDEN,
                "num_layers": 2,
                "num_attention_heads": 4,
                "ffn_dropout": 0.1,
                "attn_score_dropout": 0.1,
                "attn_layer_dropout": 0.1,
                "hidden_act": "relu",
                "pre_ln": True,
                "vocab_size": None,
            },
        },
        "head": {
            "_target_": "nemo.collections.asr.parts.submodules.token_classifier.TokenClassifier",
            "num_layers": 1,
            "activation": "relu",
            "log_softmax": True,
            "hidden_size": _AED_HIDDEN,
            "num_classes": None,
            "dropout": 0.0,
            "use_transformer_init": True,
        },
        # The published models: beam strategy of size 1.  A text that does not end is cut at
        # min(max_sequence_length, encoder frames of the *padded* batch + max_generation_delta),
        # which is max_sequence_length here whatever the batch.
        "decoding": {
            "strategy": "beam",
            "return_best_hypothesis": True,
            "beam": {"beam_size": 1, "len_pen": 0.0, "max_generation_delta": _AED_MAX_TOKENS},
        },
        "loss": {
            "_target_": "nemo.collections.common.losses.SmoothedCrossEntropyLoss",
            "label_smoothing": 0.0,
            "pad_id": None,
        },
    }
    if first_canary:
        cfg |= {"prompt_format": "canary", "prompt_defaults": None}
        cfg["tokenizer"]["langs"]["fr-FR"] = _bpe(folder / "fr", _SPANISH, 48)
    model = _make("EncDecMultiTaskModel", cfg)
    encoded, lengths = _encode(model)
    with torch.no_grad():
        _standardise(model.encoder_decoder_proj, _valid(encoded, lengths), scale=1.0)
        decoder = model.transf_decoder.decoder
        for layer in decoder.layers:  # look at single frames, and hear them well
            for attention in (layer.first_sub_layer, layer.second_sub_layer):
                attention.query_net.weight *= 2.0
                attention.key_net.weight *= 2.0
            layer.second_sub_layer.out_projection.weight *= 2.0
        # Embedding and classifier are tied, so a random decoder repeats its last token; the
        # signs of the last layer norm undo that.
        signs = torch.randint(0, 2, (_AED_HIDDEN,)) * 2.0 - 1.0
        decoder.final_layer_norm.weight.copy_(3.0 * signs)
        _calibrate_aed(model, encoded, lengths)
    with open_dict(model.cfg):
        del model.cfg.restore_timestamps_model
    return model


def _calibrate_aed(model, encoded, lengths, end: float = 0.09, rounds: int = 6):
    """Center the logits along the model's own greedy texts, then let `end` of the steps end it."""
    import torch

    memory = model.encoder_decoder_proj(encoded.permute(0, 2, 1))
    mask = (torch.arange(memory.shape[1])[None] < lengths[:, None]).to(memory.dtype)
    turns = model.prompt.get_default_dialog_slots()
    turns[0]["slots"] |= {"source_lang": "en", "target_lang": "en"}  # not "<|en|>": see encode_turn
    if "task" in turns[0]["slots"]:
        turns[0]["slots"] |= {"task": "asr", "pnc": "yes"}
    prompt = model.prompt.encode_dialog(turns)["context_ids"]
    head = model.log_softmax.mlp.layer0
    eos = model.tokenizer.eos_id
    allowed = torch.zeros(head.bias.numel(), dtype=torch.bool)
    for language, tokenizer in model.tokenizer.tokenizers_dict.items():
        if language == "en":
            start = model.tokenizer.token_id_offset[language]
            allowed[start + 1 : start + tokenizer.vocab_size] = True  # all but <unk>
    for token, index in model.tokenizer.special_tokens.items():
        if token.strip("<|>").isdigit():
            allowed[index] = True
    bias = torch.where(allowed, 0.0, -50.0)
    for _ in range(rounds):
        tokens = prompt[None].repeat(len(memory), 1)
        seen = []
        for _ in range(40):
            states = model.transf_decoder(
                input_ids=tokens,
                decoder_mask=torch.ones_like(tokens),
                encoder_embeddings=memory,
                encoder_mask=mask,
            )
            seen.append(states[:, -1] @ head.weight.T)
            tokens = torch.cat([tokens, (seen[-1] + bias).argmax(-1, keepdim=True)], 1)
        logits = torch.cat(seen)
        # The next round follows other texts, so move only part of the way.
        bias = torch.where(allowed, bias + 0.6 * (-logits.mean(0) - bias), bias)
    gap = (logits + bias)[:, allowed].max(1).values - logits[:, eos]
    bias[eos] = torch.quantile(gap, end)
    head.bias.copy_(bias)


def _aed_multitask_times(folder: Path):
    return _aed_multitask(folder, times=12)


def _aed_canary(folder: Path):
    return _aed_multitask(folder, first_canary=True)


_BUILDERS = {
    name: globals()[f"_{name}"]
    for name in (*FAMILIES, AED_WITH_TIMES, AED_CANARY, RNNT_WITH_PROMPT, TDT_OF_CHARACTERS)
}


def with_aligner(multitask: Path, ctc: Path, path: Path) -> Path:
    """Writes a multitask model with a CTC model in it that tells the times, as Canary v2 has."""
    import tarfile

    import yaml

    own = "timestamps_asr_model_"
    with tempfile.TemporaryDirectory() as scratch:
        for model, prefix in ((multitask, ""), (ctc, own)):
            into = Path(scratch) / (prefix or "all")
            with tarfile.open(model) as archive:
                archive.extractall(into, filter="data")
        folder, taken = Path(scratch) / "all", Path(scratch) / own
        config = yaml.safe_load((taken / "model_config.yaml").read_text(encoding="utf-8"))
        for key, value in config["tokenizer"].items():
            if str(value).startswith("nemo:"):
                config["tokenizer"][key] = f"nemo:{own}{value.removeprefix('nemo:')}"
        (taken / "model_config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        for file in taken.iterdir():
            name = file.name.removeprefix("model_") if "model_" in file.name[:6] else file.name
            file.rename(folder / f"{own}{name}")
        with tarfile.open(path, "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.add(file, f"./{file.name}")
    return path
