"""`hifispeech stream`: raw PCM or a microphone in, 48 kHz out while it comes. Mounted by `cli.program`."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hifispeech.cli.common import EXIT_CODES, Cutoff, Debug, Model, parse_cutoff, show_warnings
from hifispeech.cli.pipe import STDIN, STDOUT, check_stream
from hifispeech.errors import AudioError
from hifispeech.weights.packaged import STREAMING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Block = npt.NDArray[np.float32]

log = logging.getLogger(__name__)

READ_BYTES = 65_536
EXAMPLE = "ffmpeg ... -f s16le - | hifispeech stream --rate 8000 | ..."

app = typer.Typer()


@app.command(epilog=EXIT_CODES)
def stream(
    rate: Annotated[int, typer.Option(metavar="HZ", help="Sample rate of the input.")],
    sample_format: Annotated[
        Literal["s16le", "f32le", "mulaw", "alaw"],
        typer.Option("--format", help="Samples on standard input: 16-bit, float, or G.711."),
    ] = "s16le",
    channels: Annotated[int, typer.Option(min=1, metavar="N", help="Interleaved channels.")] = 1,
    output_format: Annotated[
        Literal["s16le", "f32le"], typer.Option(help="Samples on standard output, always at 48 kHz.")
    ] = "s16le",
    cutoff: Cutoff = "auto",
    mic: Annotated[bool, typer.Option("--mic", help="Listen to the microphone; Ctrl-C ends.")] = False,
    play: Annotated[bool, typer.Option("--play", help="Play on the loudspeaker.")] = False,
    model: Model = STREAMING,
    debug: Debug = False,
) -> None:
    """Upscale live speech: raw samples in, raw samples at 48 kHz out, at most 80 ms later.

    Reads standard input as it comes and writes each block to standard output
    at once. 'auto' follows the bandwidth as it changes. --mic and --play need
    the extra 'live'.

    [bold]Examples[/bold]

      ffmpeg -i call.wav -f s16le - | hifispeech stream --rate 8000 > call_48k.pcm

      hifispeech stream --rate 16000 --mic --play
    """
    cutoff_hz = parse_cutoff(cutoff)
    show_warnings(True)
    from hifispeech.infer.live.stream import Stream

    live = Stream(rate, channels, model, cutoff_hz=cutoff_hz)  # before the microphone: it takes a while
    with ExitStack() as stack:
        write = _speaker(stack, channels) if play else _standard_output(output_format)
        blocks = _microphone(stack, rate, channels) if mic else _standard_input(sample_format, channels)
        for block in blocks:
            write(live.push(block))
        write(live.flush())


def _standard_input(sample_format: str, channels: int) -> "Iterator[Block]":
    """Blocks as large as what the pipe holds, at least a byte."""
    check_stream(sys.stdin, STDIN, EXAMPLE)
    return _read(sample_format, channels)


def _read(sample_format: str, channels: int) -> "Iterator[Block]":
    from hifispeech.audio.io.pcm import PcmDecoder

    decoder = PcmDecoder(sample_format, channels)
    is_first = True
    while data := os.read(sys.stdin.fileno(), READ_BYTES):
        if is_first and data.startswith(b"RIFF"):
            raise AudioError(
                f"{STDIN}: is a WAV file, raw samples are expected; use hifispeech upscale -, "
                "or let ffmpeg write -f s16le"
            )
        is_first = False
        yield decoder.push(data)
    if decoder.left:
        log.warning("%s: its last %d bytes are no whole frame; left out", STDIN, len(decoder.left))


def _standard_output(sample_format: str) -> "Callable[[Block], None]":
    from hifispeech.audio.io.pcm import encode

    check_stream(sys.stdout, STDOUT, EXAMPLE)

    def write(block: "Block") -> None:
        data = memoryview(encode(block, sample_format))
        try:
            while data:
                data = data[os.write(sys.stdout.fileno(), data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise AudioError(
                f"{STDOUT}: cannot be written ({error.strerror}); check what it is connected to"
            ) from error

    return write


def _microphone(stack: ExitStack, rate: int, channels: int) -> "Iterator[Block]":
    """Blocks until Ctrl-C, which lets the rest come out before the program ends."""
    from hifispeech.infer.live.devices import Microphone

    microphone = stack.enter_context(closing(Microphone(rate, channels)))
    before = signal.signal(signal.SIGINT, lambda number, frame: microphone.stop())
    stack.callback(signal.signal, signal.SIGINT, before)
    return iter(microphone)


def _speaker(stack: ExitStack, channels: int) -> "Callable[[Block], None]":
    from hifispeech.infer.live.devices import Speaker

    return stack.enter_context(closing(Speaker(channels))).write
