"""Data sets: every preset picks what its paper tests on from the published layout."""

from pathlib import Path

import pytest

from hifispeech.errors import AudioError
from hifispeech.evaluate.sets import PRESETS, find_clips


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


LAYOUTS = {
    "vctk": (
        ["wav48_silence_trimmed/p360/p360_001_mic1.flac", "wav48_silence_trimmed/s5/s5_010_mic1.flac"],
        [
            "wav48_silence_trimmed/p360/p360_001_mic2.flac",
            "wav48_silence_trimmed/p225/p225_001_mic1.flac",
            "wav48_silence_trimmed/p315/p315_001_mic1.flac",
        ],
        {"p360", "s5"},
    ),
    "expresso": (
        ["audio_48khz/read/ex01/happy/base/ex01_happy_00085.wav"],
        [
            "audio_48khz/read/ex03/default/longform/ex03_default_longform_00001.wav",
            "audio_48khz/conversational/ex04-ex01/laughing/ex04-ex01_laughing_001.wav",
        ],
        {"ex01"},
    ),
    "vocalset": (
        [
            "data_by_singer/female1/arpeggios/belt/f1_arpeggios_belt_c_a.wav",
            "FULL/male11/excerpts/vibrato/m11_caro_vibrato.wav",
        ],
        ["data_by_vowel/a/f1_arpeggios_belt_c_a.wav"],
        {"female1", "male11"},
    ),
    "ravdess-speech": (
        ["Actor_01/03-01-05-01-02-01-01.wav"],
        ["Actor_01/03-02-05-01-02-01-01.wav", "Actor_01/02-01-05-01-02-01-01.mp4"],
        {"01"},
    ),
    "ravdess-song": (
        ["Actor_24/03-02-05-01-02-01-24.wav"],
        ["Actor_24/03-01-05-01-02-01-24.wav"],
        {"24"},
    ),
    "ears": (
        ["p102/emo_adoration_freeform.wav"],
        ["p001/emo_adoration_freeform.wav"],
        {"p102"},
    ),
    "daps": (
        ["clean/f1_script1_clean.wav"],
        ["ipad_office1/f1_script1_ipad_office1.wav"],
        {"f1"},
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_takes_its_test_part_only(name: str, tmp_path: Path) -> None:
    wanted, others, speakers = LAYOUTS[name]
    touch(tmp_path, *wanted, *others)
    clips = find_clips(f"{name}:{tmp_path}")
    assert sorted(clip.name for clip in clips) == sorted(wanted)
    assert {clip.speaker for clip in clips} == speakers
    assert {clip.set for clip in clips} == {name}


def test_vctk_has_the_eight_speakers_of_the_paper() -> None:
    assert PRESETS["vctk"].test == {"p360", "p361", "p362", "p363", "p364", "p374", "p376", "s5"}


def test_official_list_of_expresso_is_obeyed_where_it_is_there(tmp_path: Path) -> None:
    touch(tmp_path, *(f"read/ex01/sad/base/ex01_sad_0000{i}.wav" for i in range(3)))
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "test.txt").write_text("ex01_sad_00001\nex01-ex02_awe_001 (0.0, 60.0)\n")
    assert [Path(clip.name).stem for clip in find_clips(f"expresso:{tmp_path}")] == ["ex01_sad_00001"]


def test_folder_names_the_set_and_the_speakers(tmp_path: Path) -> None:
    touch(tmp_path / "talks", "anna/b.wav", "anna/a.wav", "ben/c.flac", "ben/notes.txt")
    clips = find_clips(str(tmp_path / "talks"))
    assert [(c.set, c.name, c.speaker) for c in clips] == [
        ("talks", "anna/a.wav", "anna"),
        ("talks", "anna/b.wav", "anna"),
        ("talks", "ben/c.flac", "ben"),
    ]
    assert [c.name for c in find_clips(f"mine={tmp_path / 'talks'}", every=2)] == ["anna/a.wav", "ben/c.flac"]
    assert find_clips(f"mine={tmp_path / 'talks'}", limit=1)[0].set == "mine"


def test_csv_keeps_files_that_are_missing(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    (tmp_path / "list.csv").write_text("path,speaker\na.wav,anna\ngone/b.wav,ben\n")
    clips = find_clips(str(tmp_path / "list.csv"))
    assert [(c.set, c.name, c.speaker) for c in clips] == [
        ("list", "a.wav", "anna"),
        ("list", "gone/b.wav", "ben"),
    ]


def test_names_of_a_csv_never_lead_out_of_the_results(tmp_path: Path) -> None:
    """Audio of a run is kept under these names: with ".." a recording could be overwritten."""
    up = "../" * 20 + str(tmp_path / "d" / "b.wav").lstrip("/")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.csv").write_text(
        f"path,speaker\n../d/a.wav,x\n{up},x\n{tmp_path / 'd' / 'c.wav'},x\n./s/../e.wav,x\n"
    )
    names = [clip.name for clip in find_clips(str(tmp_path / "lists" / "list.csv"))]
    below_root = (tmp_path / "d").as_posix().lstrip("/")
    assert names == [f"{below_root}/{stem}.wav" for stem in "abc"] + ["e.wav"]


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'nosuch' is unknown; pass a folder or one of vctk"):
        find_clips(f"nosuch:{tmp_path}")
    with pytest.raises(AudioError, match="no such folder"):
        find_clips(str(tmp_path / "none"))
    touch(tmp_path, "a.wav")
    with pytest.raises(AudioError, match="fits the set vctk"):
        find_clips(f"vctk:{tmp_path}")
