"""Test folders: what is in them, and what is refused."""

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from hifispeech.errors import AudioError, HifispeechError
from hifispeech.listening import create as module
from hifispeech.listening import definition as test
from hifispeech.listening.create import Options, create
from hifispeech.listening.loudness import loudness_lufs
from hifispeech.listening.stimuli import low_pass

RATE = 48000


def make(folders: Any, *names: str, output: str = "test", **options: Any) -> test.Definition:
    made = create(folders.truth, folders.systems(*names), folders.root / output, Options(**options))
    assert test.load(folders.root / output) == made.definition
    return made.definition


def test_abx_folder(folders: Any) -> None:
    made = make(folders, "quartz", "basalt", "mica", repeats=2)
    assert made.pairs == [("quartz", "basalt"), ("quartz", "mica"), ("basalt", "mica")]
    assert [item.name for item in made.items] == ["16000/clip0", "16000/clip1", "4000/clip0", "4000/clip1"]
    assert made.conditions == ["16000", "4000"]
    assert len(made.plan(0)) == 4 * 3 * 2
    assert sorted(made.items[0].files) == ["basalt", "mica", "quartz", "reference"]


def test_all_stimuli_of_an_item_are_alike_but_for_the_sound(folders: Any) -> None:
    """One loudness, one length, one format, one size; nothing in the file tells where it comes from."""
    made = make(folders, "quartz", "basalt", kind="mushra", anchors_hz=(3500.0, 7000.0))
    for item in made.items:
        paths = [folders.root / "test" / "audio" / name for name in item.files.values()]
        assert len(paths) == 5
        contents = [path.read_bytes() for path in paths]
        head = contents[0][: contents[0].index(b"data") + 8]  # all before the samples, lengths included
        assert all(content.startswith(head) for content in contents)
        assert {len(content) for content in contents} == {len(head) + 3 * item.samples}
        for path in paths:
            audio, rate = soundfile.read(path)
            assert loudness_lufs(audio[None], rate) == pytest.approx(-23, abs=0.05)


def test_names_are_opaque(folders: Any) -> None:
    make(folders, "quartz", "basalt")
    names = [path.name for path in (folders.root / "test" / "audio").iterdir()]
    assert len(names) == 12
    assert all(re.fullmatch(r"[0-9a-f]{16}\.wav", name) for name in names)


def test_gains_are_the_only_change(folders: Any) -> None:
    made = make(folders, "quartz", "basalt")
    item = made.items[0]
    source, _ = soundfile.read(folders.root / "quartz" / f"{item.name}.wav")
    stimulus, _ = soundfile.read(folders.root / "test" / "audio" / item.files["quartz"])
    gain = 10 ** (item.gains_db["quartz"] / 20)
    assert np.abs(stimulus - gain * source).max() < 1e-3  # gains_db is rounded


def test_seed_draws_the_same_items(folders: Any) -> None:
    first, second = (make(folders, "quartz", "basalt", output=name, items=2, seed=5) for name in ("a", "b"))
    assert [item.name for item in first.items] == [item.name for item in second.items]
    assert {item.condition for item in first.items} == {"4000", "16000"}
    assert first.plan(3) == second.plan(3)
    assert {*first.items[0].files.values()}.isdisjoint(second.items[0].files.values())


def test_anchor_meets_the_mask_of_bs_1534() -> None:
    """3.5 kHz: flat within 0.1 dB up to there, 25 dB down at 4 kHz, 50 dB at 4.5 kHz; and in time."""
    pulse = np.zeros((1, RATE), np.float32)
    pulse[0, RATE // 2] = 1.0
    out = low_pass(pulse, RATE, 3500)
    assert int(np.abs(out[0]).argmax()) == RATE // 2
    gain_db = 20 * np.log10(np.abs(np.fft.rfft(out[0])) + 1e-9)
    assert np.abs(gain_db[:3501]).max() < 0.1
    assert gain_db[4000:].max() < -25
    assert gain_db[4500:].max() < -50


def test_reference_in_the_same_folders_or_by_name_alone(folders: Any) -> None:
    for condition in ("4000", "16000"):
        shutil.copytree(folders.truth, folders.root / "sorted" / condition)
    made = create(folders.root / "sorted", folders.systems("quartz", "basalt"), folders.root / "test")
    assert len(made.definition.items) == 4


def test_small_differences_of_length_are_cut(folders: Any) -> None:
    path = folders.root / "quartz" / "4000" / "clip0.wav"
    audio, _ = soundfile.read(path)
    folders.write(path, audio[:-1000])
    made = create(folders.truth, folders.systems("quartz", "basalt"), folders.root / "test")
    assert made.cut == 1
    assert [item.samples for item in made.definition.items] == [28800, 28800, 27800, 28800]


def test_mushra_has_both_anchors_of_bs_1534_unless_told_otherwise(folders: Any) -> None:
    made = make(folders, "quartz", kind="mushra", items=1)
    assert made.anchors == ["anchor 3.5 kHz", "anchor 7 kHz"]
    heard = {name: soundfile.read(folders.root / "test" / "audio" / file)[0]
             for name, file in made.items[0].files.items()}  # fmt: skip
    shares = {}
    for name, audio in heard.items():
        power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
        cutoffs = [round(hz * len(audio) / RATE) for hz in (3500 * 9 / 7, 7000 * 9 / 7)]
        shares[name] = [power[cutoff:].sum() / power.sum() for cutoff in cutoffs]
    assert max(shares["anchor 3.5 kHz"]) < 1e-5 and shares["anchor 7 kHz"][1] < 1e-5
    assert shares["anchor 7 kHz"][0] > 1e-4 and min(shares["reference"]) > 1e-4


def test_short_clips_work(empty_folders: Any) -> None:
    empty_folders.add(("",), 2, 0.05)
    made = make(empty_folders, "quartz", "basalt", kind="mushra")
    assert made.conditions == ["all"]


def test_stereo_works(empty_folders: Any) -> None:
    rng = np.random.default_rng(0)
    for folder in ("truth", "quartz", "basalt"):
        empty_folders.write(empty_folders.root / folder / "a.wav", 0.1 * rng.standard_normal((RATE, 2)))
    assert make(empty_folders, "quartz", "basalt").items[0].channels == 2


def spoil(folders: Any, what: str) -> None:
    """Make one thing wrong with quartz/4000/clip1.wav."""
    path = folders.root / "quartz" / "4000" / "clip1.wav"
    audio, _ = soundfile.read(path)
    if what == "missing":
        path.unlink()
    elif what == "reference missing":
        (folders.truth / "clip1.wav").unlink()
    elif what == "doubled":
        shutil.copy(path, path.with_suffix(".flac"))
    elif what == "two references":
        folders.write(folders.truth / "more" / "clip1.wav", audio)
    elif what == "rate":
        folders.write(path, audio[::3], 16000)
    elif what == "channels":
        folders.write(path, np.stack([audio, audio], axis=1))
    elif what == "length":
        folders.write(path, audio[:-4800])
    elif what == "silent":
        folders.write(path, 0 * audio)
    elif what == "damaged":
        path.write_bytes(b"RIFF nothing")
    elif what == "no folder":
        shutil.rmtree(folders.root / "quartz")
    elif what == "no audio":
        shutil.rmtree(folders.root / "quartz")
        (folders.root / "quartz").mkdir()


SPOILED = {
    "missing": r"quartz: 1 file is missing that others have: 4000/clip1; every system",
    "reference missing": r"truth: 2 files are missing that others have: 16000/clip1, 4000/clip1",
    "doubled": r"clip1\.\w+ and .*clip1\.\w+ have the same name; remove one",
    "two references": r"16000/clip1 has 2 references .* give the reference folder the same structure",
    "rate": r"clip1\.wav: has 16000 Hz, its reference .*clip1\.wav 48000 Hz; bring all to one rate",
    "channels": r"clip1\.wav: has 2 channels, its reference .* 1; all stimuli",
    "length": r"clip1\.wav: is 0\.500 s long, its reference .* 0\.600 s; at most 50 ms may differ",
    "silent": r"item 4000/clip1: quartz is silent",
    "damaged": r"clip1\.wav",
    "no folder": r"quartz: is no folder",
    "no audio": r"quartz: this folder holds no audio",
}


@pytest.mark.parametrize("what", SPOILED)
def test_bad_files_are_refused_and_nothing_is_left(folders: Any, what: str) -> None:
    if what == "two references":  # neither lies where the outputs do
        (folders.truth / "other").mkdir()
        (folders.truth / "clip1.wav").rename(folders.truth / "other" / "clip1.wav")
    spoil(folders, what)
    before = sorted(folders.root.iterdir())
    with pytest.raises(AudioError, match=SPOILED[what]):
        make(folders, "quartz", "basalt")
    assert sorted(folders.root.iterdir()) == before


def test_long_and_many_channelled_files_are_refused(empty_folders: Any) -> None:
    for folder in ("truth", "quartz", "basalt"):
        empty_folders.write(empty_folders.root / folder / "a.wav", np.zeros(61 * 8000), 8000)
    with pytest.raises(AudioError, match="is longer than 60 s"):
        make(empty_folders, "quartz", "basalt")
    empty_folders.write(empty_folders.truth / "a.wav", np.zeros((8000, 6)), 8000)
    with pytest.raises(AudioError, match="has 6 channels; a listening test plays 1 or 2"):
        make(empty_folders, "quartz", "basalt")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["quartz"], {}, "1 systems given; the test 'abx' takes 2 to 9"),
        (["quartz", "basalt"], {"kind": "mos"}, "kind 'mos' is unknown"),
        (["quartz", "basalt"], {"pairs": [("quartz", "mica")]}, "pair quartz,mica does not name two"),
        (["quartz", "basalt"], {"pairs": [("quartz", "quartz")]}, "does not name two"),
        (["quartz", "basalt"], {"pairs": [("quartz", "basalt"), ("basalt", "quartz")]}, "given twice"),
        (["quartz", "basalt"], {"repeats": 0}, "repeats must be at least 1"),
        (["quartz", "basalt"], {"items": 99}, "from 1 to 4"),
        (["quartz", "basalt"], {"loudness_lufs": 0}, "outside -60 to -5"),
        (["quartz", "basalt"], {"title": "Is Quartz better?"}, "names the system 'quartz'"),
        (["quartz"], {"kind": "mushra", "anchors_hz": (1.0, 2.0, 3.0)}, "3 anchors given; at most 2"),
        (["quartz"], {"kind": "mushra", "anchors_hz": (30000.0,)}, "does not fit audio of 48000 Hz"),
    ],
)
def test_bad_options_are_refused(
    folders: Any, names: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((HifispeechError, ValueError), match=message):
        make(folders, *names, **options)


@pytest.mark.parametrize("name", ["reference", "anchor 3.5 kHz", "", "a/b", "=1+1", "x" * 61, "a,b"])
def test_bad_names_are_refused(folders: Any, name: str) -> None:
    systems = {name: folders.root / "quartz", "basalt": folders.root / "basalt"}
    with pytest.raises(HifispeechError, match="cannot name a system"):
        create(folders.truth, systems, folders.root / "test")


def test_an_existing_folder_is_kept(folders: Any, abx_test: Path) -> None:
    systems = folders.systems("quartz", "basalt")
    before = test.load(abx_test)
    with pytest.raises(HifispeechError, match="exists already"):
        create(folders.truth, systems, abx_test)
    assert test.load(abx_test) == before
    create(folders.truth, systems, abx_test, force=True)
    assert test.load(abx_test).id != before.id
    with pytest.raises(HifispeechError, match="is no listening test"):
        create(folders.truth, systems, folders.truth, force=True)
    with pytest.raises(HifispeechError, match="no such folder"):
        create(folders.truth, systems, folders.root / "no" / "where")


def test_answers_are_never_replaced(folders: Any, abx_test: Path) -> None:
    from hifispeech.listening.store import Store

    store = Store(abx_test, test.load(abx_test))
    session = store.join("anna")
    store.record(session.listener, 1, "a", 1.0)
    with pytest.raises(HifispeechError, match="holds answers of listeners"):
        create(folders.truth, folders.systems("quartz", "basalt"), abx_test, force=True)
    assert len(store.answers()) == 1


def test_an_interrupted_run_leaves_nothing(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def fail(*args: Any, **words: Any) -> None:
        written.append(args)
        if len(written) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "write", fail)
    before = sorted(folders.root.iterdir())
    with pytest.raises(KeyboardInterrupt):
        make(folders, "quartz", "basalt")
    assert sorted(folders.root.iterdir()) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no file", "is no listening test"),
        ("no json", "is damaged"),
        ("other json", "is not a hifispeech listening test"),
        ("version", "has version 99"),
        ("key", "is damaged"),
        ("path", "is no name of a stimulus"),
        ("no audio", "is missing"),
    ],
)
def test_damaged_tests_are_refused(abx_test: Path, damage: str, message: str) -> None:
    path = abx_test / "test.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    if damage == "version":
        values["version"] = 99
    elif damage == "key":
        del values["items"][0]["files"]
    elif damage == "path":
        values["items"][0]["files"]["quartz"] = "../../../etc/passwd"
    elif damage == "other json":
        values = {}
    path.write_text(json.dumps(values), encoding="utf-8")
    if damage == "no file":
        path.unlink()
    elif damage == "no json":
        path.write_text("{", encoding="utf-8")
    elif damage == "no audio":
        next((abx_test / "audio").iterdir()).unlink()
    with pytest.raises(HifispeechError, match=message):
        test.load(abx_test)


def test_a_damaged_store_is_no_reason_to_replace_a_test(folders: Any, abx_test: Path) -> None:
    from hifispeech.listening.store import Store

    (abx_test / "answers.sqlite").write_bytes(b"not a database, but it may once have been one" * 99)
    with pytest.raises(HifispeechError, match="cannot be used"):
        Store(abx_test, test.load(abx_test))
    with pytest.raises(HifispeechError, match="holds answers"):
        create(folders.truth, folders.systems("quartz", "basalt"), abx_test, force=True)


def test_a_store_of_another_test_is_refused(folders: Any, abx_test: Path) -> None:
    from hifispeech.listening.store import Store

    Store(abx_test, test.load(abx_test))
    with sqlite3.connect(abx_test / "answers.sqlite") as db:
        db.execute("UPDATE test SET id = 'another'")
    with pytest.raises(HifispeechError, match="holds answers to another test"):
        Store(abx_test, test.load(abx_test))
