"""A phone call as it comes: 20 ms packets of G.711, some lost, late or out of order, upscaled live to 48 kHz.

Usage: python examples/telephony.py phone_8k.wav out.wav [--loss 0.1] [--law mulaw] [--seed 0]

`Receiver` is the part to copy: it is told of packets as they arrive and asked for speech every 20 ms. A
packet that is not there in time is replaced by rule: the packet before is played backwards, then forwards and
so on (no jump at its ends), fading to silence over 60 ms, and the packet after the gap is faded in over 5 ms.
A packet that comes later than that is dropped. So a loss never shifts time: sample `n` of the output always
belongs to time `n / 48000` of the call.
"""

import argparse
import io
from collections.abc import Iterator

import numpy as np
import soundfile

import hifispeech
from hifispeech.audio.io.pcm import PcmDecoder
from hifispeech.infer.live.stream import Stream

RATE = 8000
PACKET = 160  # samples: 20 ms
JITTER_PACKETS = 2  # how long a packet may be on its way: 40 ms, on top of the latency of the stream
FADE_OUT = 3 * PACKET
FADE_IN = 40
SUBTYPES = {"mulaw": "ULAW", "alaw": "ALAW"}


class Receiver:
    """Puts packets in order and fills the gaps; `tick` is called once every 20 ms."""

    def __init__(self, law: str = "mulaw") -> None:
        self.stream = Stream(RATE, 1)
        self.decoder = PcmDecoder(law)
        self.waiting: dict[int, np.ndarray] = {}
        self.next_packet = 0  # number of the packet that `tick` needs
        self.ticks = self.lost = 0
        self.last = np.zeros(PACKET, np.float32)  # the last packet played
        self.missed = 0  # samples filled in since it

    def receive(self, number: int, payload: bytes) -> None:
        """A packet has come: its number in the call, from 0, and its 160 bytes."""
        if number >= self.next_packet and len(payload) == PACKET:  # not too late, not damaged
            self.waiting[number] = self.decoder.push(payload)[0]

    def tick(self) -> np.ndarray:
        """What can be played after another 20 ms, float32 `[time]` at 48 kHz."""
        self.ticks += 1
        if self.ticks <= JITTER_PACKETS:
            return np.zeros(0, np.float32)
        return self.stream.push(self._next())

    def finish(self) -> np.ndarray:
        """The end of the call: what is still waiting."""
        rest = [self.stream.push(self._next()) for _ in range(min(self.ticks, JITTER_PACKETS))]
        return np.concatenate([*rest, self.stream.flush()])

    def _next(self) -> np.ndarray:
        packet = self.waiting.pop(self.next_packet, None)
        self.next_packet += 1
        if packet is None:
            self.lost += 1
            return self._fill()
        if self.missed:
            share = np.linspace(0, 1, FADE_IN, dtype=np.float32)
            packet = packet.copy()
            packet[:FADE_IN] = share * packet[:FADE_IN] + (1 - share) * self._fill()[:FADE_IN]
        self.last, self.missed = packet, 0
        return packet

    def _fill(self) -> np.ndarray:
        """20 ms in place of a lost packet: the last one to and fro, fading."""
        is_backwards = self.missed // PACKET % 2 == 0
        level = np.clip(1 - (self.missed + np.arange(PACKET)) / FADE_OUT, 0, 1)
        self.missed += PACKET
        return ((self.last[::-1] if is_backwards else self.last) * level).astype(np.float32)


def packets(audio: np.ndarray, law: str) -> Iterator[bytes]:
    """The call as its sender codes it, 20 ms at a time; the end is filled up with silence."""
    padded = np.pad(audio, (0, -len(audio) % PACKET))
    coded = io.BytesIO()
    soundfile.write(coded, padded, RATE, format="RAW", subtype=SUBTYPES[law])
    data = coded.getvalue()
    return (data[start : start + PACKET] for start in range(0, len(data), PACKET))


def network(sent: list[bytes], loss: float, seed: int) -> Iterator[list[tuple[int, bytes]]]:
    """What arrives in each 20 ms: some packets are lost, some up to 60 ms late, hence out of order."""
    rng = np.random.default_rng(seed)
    arriving: dict[int, list[tuple[int, bytes]]] = {}
    for number, payload in enumerate(sent):
        if rng.random() >= loss:
            delay = rng.choice([0, 1, 2, 3], p=[0.8, 0.12, 0.06, 0.02])
            arriving.setdefault(number + int(delay), []).append((number, payload))
    for time in range(len(sent)):
        yield arriving.get(time, [])


def call(audio: np.ndarray, law: str, loss: float, seed: int) -> tuple[np.ndarray, int]:
    """Send 8 kHz `[time]` through the network; the call at 48 kHz as it is heard, and packets filled in."""
    receiver = Receiver(law)
    heard = []
    for arrived in network(list(packets(audio, law)), loss, seed):
        for number, payload in arrived:
            receiver.receive(number, payload)
        heard.append(receiver.tick())
    return np.concatenate([*heard, receiver.finish()]), receiver.lost


def main() -> None:
    """Play a file through a bad line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="8 kHz mono recording, such as examples/phone_8k.wav")
    parser.add_argument("target", help="file to write")
    parser.add_argument("--loss", type=float, default=0.05, help="share of packets that is lost")
    parser.add_argument("--law", choices=list(SUBTYPES), default="mulaw")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    audio, rate = hifispeech.read(arguments.source)
    if rate != RATE:
        parser.error(f"{arguments.source} is at {rate} Hz; pass a recording at {RATE} Hz")
    heard, lost = call(audio[0], arguments.law, arguments.loss, arguments.seed)
    hifispeech.write(arguments.target, heard[None, : 6 * audio.shape[1]], 48000, force=True)
    print(f"{arguments.target}: {lost} packets of {-(-audio.shape[1] // PACKET)} were filled in")


if __name__ == "__main__":
    main()
