"""Preparation: bandwidth decides, speakers split, shards read back, interrupted runs go on."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hifispeech.datasets.corpora import (
    VCTK_TEST,
    Source,
    assign_splits,
    recognise,
    sources_in,
    sources_of_manifest,
)
from hifispeech.datasets.prepare import JOURNAL, MANIFEST, Options, prepare, process, trim
from hifispeech.datasets.shards import AUDIO_FILE, CLIPS_FILE, Shards
from hifispeech.errors import AudioError

Speech = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory, synthetic_speech: Speech) -> Path:
    """Two speakers in full band (one file at 44.1 kHz, stereo), and files that cannot be used."""
    root = tmp_path_factory.mktemp("recordings")
    for name in ("anna", "ben", "odd"):
        (root / name).mkdir()
    soundfile.write(root / "anna" / "1.wav", synthetic_speech(1.0, seed=1), 48000)
    soundfile.write(root / "anna" / "2.flac", synthetic_speech(1.2, seed=2), 48000)
    stereo = np.stack([synthetic_speech(1.0, 44100, seed=s) for s in (3, 4)], axis=1)
    soundfile.write(root / "ben" / "1.wav", stereo, 44100)
    soundfile.write(root / "odd" / "phone.wav", synthetic_speech(1.0, 8000, seed=5), 8000)
    soundfile.write(root / "odd" / "silent.wav", np.zeros(48000, np.float32), 48000)
    soundfile.write(root / "odd" / "short.wav", synthetic_speech(0.1, seed=6), 48000)
    (root / "odd" / "broken.wav").write_bytes(b"RIFF and nothing else")
    return root


def find(root: Path, **options: str) -> list[Source]:
    return sources_in(root, options.get("preset", "auto"), options.get("pattern"), "CC0", root / "out")


def manifest_rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / MANIFEST).open(newline="") as file:
        return {Path(row["path"]).name: row for row in csv.DictReader(file)}


@pytest.mark.usefixtures("in_this_process")
def test_folders_become_shards(recordings: Path, tmp_path: Path) -> None:
    summary = prepare(find(recordings), tmp_path, Options(trim=False))
    assert summary.kept == 3 and summary.speakers == {"train": 1, "valid": 1}
    assert summary.rejected == {"narrow": 1, "silent": 1, "short": 1, "unreadable": 1}
    train, valid = Shards(tmp_path, "train"), Shards(tmp_path, "valid")
    assert {clip.speaker.split("/")[1] for clip in train.clips} == {"anna"}
    wav, rate = soundfile.read(recordings / "anna" / "1.wav", dtype="float32")
    assert rate == 48000
    np.testing.assert_allclose(train.read(train.clips[0]), wav, atol=1 / 32768)
    assert [clip.length for clip in train.clips] == [48000, 57600]
    assert valid.clips[0].length == 48000  # 44.1 kHz resampled
    rows = manifest_rows(tmp_path)
    assert len(rows["phone.wav"]["sha256"]) == 64 and "4000 Hz" in rows["phone.wav"]["note"]
    assert rows["phone.wav"]["kept"] == "False" and rows["2.flac"]["lossless"] == "True"
    assert rows["2.flac"]["licence"] == "CC0" and float(rows["2.flac"]["duration_s"]) == 1.2


@pytest.mark.usefixtures("in_this_process")
def test_narrow_files_are_marked_when_kept(recordings: Path, tmp_path: Path) -> None:
    summary = prepare(find(recordings), tmp_path, Options(min_bandwidth_hz=0.0))
    assert summary.narrow == 1
    clips = [clip for split in ("train", "valid") for clip in Shards(tmp_path, split).clips]
    (phone,) = (clip for clip in clips if clip.speaker.endswith("odd"))
    assert 3000 < phone.bandwidth_hz <= 4000
    assert "marked" in manifest_rows(tmp_path)["phone.wav"]["note"]


def test_workers_change_nothing(recordings: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        prepare(find(recordings), tmp_path / str(workers), Options(), workers=workers)
    for name in (AUDIO_FILE, CLIPS_FILE, MANIFEST, JOURNAL):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


CRASHING_DECODER = """
import json, os, signal, sys
from pathlib import Path
from hifispeech.datasets import prepare
from hifispeech.datasets.corpora import sources_in

read = prepare.process

def process(source, options):
    if source.path.name == "1.wav" and source.path.parent.name == "anna":
        os.kill(os.getpid(), signal.SIGSEGV)
    if source.path.name == "short.wav":
        raise KeyError("a bug")
    return read(source, options)

prepare.process = process  # in the workers, too: they import this script again

if __name__ == "__main__":
    root, folder = map(Path, sys.argv[1:3])
    sources = sources_in(root, "auto", None, "CC0", folder)
    summary = prepare.prepare(sources, folder, prepare.Options(), workers=int(sys.argv[3]))
    print(json.dumps([summary.kept, summary.rejected]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_crashing_decoder_costs_its_file_only(recordings: Path, tmp_path: Path, workers: int) -> None:
    """A second run does not meet the file again, so it cannot end every run."""
    (tmp_path / "script.py").write_text(CRASHING_DECODER)
    words = [sys.executable, tmp_path / "script.py", recordings, tmp_path / "out", str(workers)]
    for _ in range(2):
        run = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        kept, rejected = json.loads(run.stdout)
        assert kept == 2
        assert rejected == {"crashed": 1, "narrow": 1, "silent": 1, "failed": 1, "unreadable": 1}
    with (tmp_path / "out" / MANIFEST).open(newline="") as file:
        notes = {row["path"]: row["note"] for row in csv.DictReader(file)}
    assert "died (SIGSEGV" in notes[str(recordings / "anna" / "1.wav")]
    assert "a bug" in notes[str(recordings / "odd" / "short.wav")]


@pytest.mark.usefixtures("in_this_process")
def test_interrupted_run_goes_on(recordings: Path, tmp_path: Path) -> None:
    """Stopped after the second file, with half a clip and half a journal line written."""
    sources = find(recordings)
    prepare(sources, tmp_path / "whole", Options())

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        prepare(sources, folder, Options(), on_file=stop)
    with (folder / AUDIO_FILE).open("ab") as file:
        file.write(b"half a clip")
    with (folder / JOURNAL).open("a") as file:
        file.write('{"path": "/half')
    seen: list[tuple[int, int]] = []
    prepare(sources, folder, Options(), on_file=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(sources) - 2, len(sources) - 2)
    for name in (AUDIO_FILE, CLIPS_FILE, MANIFEST):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("in_this_process")
def test_other_options_need_another_folder(recordings: Path, tmp_path: Path) -> None:
    prepare(find(recordings), tmp_path, Options())
    with pytest.raises(ValueError, match="another folder"):
        prepare(find(recordings), tmp_path, Options(trim=False))


@pytest.mark.usefixtures("in_this_process")
def test_nothing_to_keep_is_an_error(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no file can be kept"):
        prepare(find(recordings / "odd"), tmp_path, Options())


def test_trim_keeps_a_margin(synthetic_speech: Speech) -> None:
    speech = synthetic_speech(1.0, seed=7)
    silence = np.zeros(48000, np.float32)
    trimmed = trim(np.concatenate([silence, speech, silence]), 48000)
    assert 48000 <= len(trimmed) <= 48000 + 2 * 0.2 * 48000 + 960
    assert np.array_equal(trim(silence, 48000), silence)


def test_measured_bandwidth_can_be_given(recordings: Path) -> None:
    path = recordings / "anna" / "1.wav"
    entry, samples = process(Source(path, "s", "x", "CC0", bandwidth_hz=17000.0), Options(0.0))
    assert entry.bandwidth_hz == 17000.0 and entry.kept and len(samples) == 48000


@pytest.mark.usefixtures("in_this_process")
def test_manifest(recordings: Path, tmp_path: Path) -> None:
    path = recordings / "list.csv"
    path.write_text(
        "path,split,source,licence,speaker,kind,bandwidth_hz,lossless\n"
        "anna/1.wav,train,corpus,CC BY 4.0,anna,speech,20500,0\n"
        "ben/1.wav,valid,corpus,CC BY 4.0,ben,speech,,\n"
        "anna/2.flac,eval,corpus,CC BY 4.0,anna,speech,24000,1\n"
    )
    summary = prepare(sources_of_manifest(path, "unknown"), tmp_path, Options())
    assert summary.speakers == {"train": 1, "valid": 1, "eval": 1}
    (clip,) = Shards(tmp_path, "train").clips
    assert (clip.bandwidth_hz, clip.lossless, clip.licence) == (20500.0, False, "CC BY 4.0")
    path.write_text("file,speaker\na,b\n")
    with pytest.raises(ValueError, match="'path'"):
        sources_of_manifest(path, "unknown")
    path.write_text("path,speaker,bandwidth_hz\na.wav,b,wide\n")
    with pytest.raises(ValueError, match=r"list\.csv:2.*wide"):
        sources_of_manifest(path, "unknown")
    path.unlink()


def test_folders_narrow_a_manifest(recordings: Path) -> None:
    """A recording is taken once, as listed: its speaker may be one that is kept out of training."""
    path = recordings / "list.csv"
    path.write_text("path,speaker,split\nanna/1.wav,anna,train\nben/1.wav,ben,valid\n")
    (found,) = sources_of_manifest(path, "CC0", [recordings / "ben"])
    assert (found.speaker, found.split) == ("ben", "valid")
    with pytest.raises(ValueError, match="lists no file in"):
        sources_of_manifest(path, "CC0", [recordings / "nobody"])
    path.unlink()


def test_project_manifest_is_read(data_dir: Path) -> None:
    sources = sources_of_manifest(data_dir / "manifest.csv", "unknown")
    assert {"train", "valid", "eval"} <= {source.split for source in sources}
    assert all(source.bandwidth_hz for source in sources) and sources[0].path.is_file()


LAYOUT_PATHS = {
    "vctk": ["wav48_silence_trimmed/p225/p225_001_mic1.flac", "wav48_silence_trimmed/s5/s5_001_mic1.flac"],
    "ravdess": ["Actor_01/03-01-01-01-01-01-01.wav", "Actor_12/03-02-06-01-02-02-12.wav"],
    "ears": ["p001/emo_adoration_sentences.wav", "p102/rainbow_01_fast.wav"],
    "hifitts": [
        "audio/11614_other/10547/thousandnights8_04_anonymous_0001.flac",
        "audio/92_clean/1/x_1.flac",
    ],
    "daps": ["clean/f1_script1_clean.wav", "clean/m10_script5_clean.wav"],
    "libritts-r": [
        "train-clean-100/19/198/19_198_000000_000000.wav",
        "dev-clean/84/1/84_1_000001_000002.wav",
    ],
}
SPEAKERS = {
    "vctk": {"p225", "s5"},
    "ravdess": {"01", "12"},
    "ears": {"p001", "p102"},
    "hifitts": {"11614", "92"},
    "daps": {"f1", "m10"},
    "libritts-r": {"19", "84"},
}


@pytest.mark.parametrize("name", LAYOUT_PATHS)
def test_corpora_are_recognised(name: str, tmp_path: Path) -> None:
    layout = recognise(LAYOUT_PATHS[name])
    assert layout is not None and layout.name == name
    for path in LAYOUT_PATHS[name]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = find(tmp_path)
    assert {source.speaker for source in found} == {f"{name}/{speaker}" for speaker in SPEAKERS[name]}
    assert {source.licence for source in found} == {layout.licence}


def test_vctk_preset_is_the_papers_split(tmp_path: Path) -> None:
    """110 speakers of the corpus: 8 test, p280 and p315 out, 100 left for training; first microphone only."""
    others = [f"p{225 + i}" for i in range(130) if 225 + i not in (280, 315)][:100]
    for speaker in [*others, *VCTK_TEST, "p280", "p315"]:
        folder = tmp_path / "wav48_silence_trimmed" / speaker
        folder.mkdir(parents=True)
        for microphone in (1, 2):
            (folder / f"{speaker}_001_mic{microphone}.flac").touch()
    found = find(tmp_path, preset="vctk")
    assert len(found) == 108 and not any("mic2" in source.path.name for source in found)
    test = {source.speaker for source in found if source.split == "test"}
    names = {"p360", "p361", "p362", "p363", "p364", "p374", "p376", "s5"}
    assert test == {f"vctk/{name}" for name in names}
    assert len({source.speaker for source in found} - test) == 100
    splits = list(assign_splits({source.speaker: source.split for source in found}, []).values())
    assert (splits.count("train"), splits.count("test"), splits.count("valid")) == (100, 8, 0)


def test_pattern(recordings: Path) -> None:
    found = find(recordings, pattern=r"^(?P<speaker>a\w+)/")
    assert {source.speaker.split("/")[1] for source in found} == {"anna"}
    for pattern, message in ((r"(\w+)", "speaker"), ("(", "regular expression")):
        with pytest.raises(ValueError, match=message):
            find(recordings, pattern=pattern)
    with pytest.raises(AudioError, match="no file fits"):
        find(recordings, preset="vctk")
    with pytest.raises(ValueError, match="libritts-r"):
        find(recordings, preset="timit")


def test_splits() -> None:
    names: dict[str, str | None] = {f"x/s{i:02}": None for i in range(40)}
    splits = assign_splits(names, [])
    assert sorted(name for name, split in splits.items() if split == "valid") == ["x/s19", "x/s39"]
    assert assign_splits({"x/a": None, "x/b": None}, []) == {"x/a": "train", "x/b": "valid"}
    assert assign_splits({"x/a": None}, []) == {"x/a": "train"}
    assert assign_splits({"x/a": None, "x/b": "test"}, ["a"]) == {"x/a": "valid", "x/b": "test"}
    with pytest.raises(ValueError, match="nobody"):
        assign_splits({"x/a": None}, ["nobody"])
