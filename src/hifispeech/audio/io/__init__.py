"""Audio files in and out, block by block: `open_reader`, `read`, `AudioWriter`, `write`."""

from hifispeech.audio.io.reader import AudioReader, open_reader, read
from hifispeech.audio.io.sndfile import TAGS, AudioInfo
from hifispeech.audio.io.writer import AudioWriter, choose_encoding, same_file, write

__all__ = [
    "TAGS",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "choose_encoding",
    "open_reader",
    "read",
    "same_file",
    "write",
]
