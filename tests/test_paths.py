"""Which result goes where: no result may take the place of another input of the run."""

import os
from pathlib import Path

import pytest

from hifispeech.errors import AudioError
from hifispeech.paths import Plan, list_audio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"content is not looked at")
    return tmp_path


def test_a_result_never_replaces_another_input(folder: Path) -> None:
    """`hifispeech upscale *.wav --force`, run twice: the first result would be an input of the second run."""
    result = (folder / "a.wav").rename(folder / "b_48k.wav")
    with pytest.raises(AudioError, match=r"b_48k\.wav: is an input of this run"):
        Plan.make([folder / "b.wav", result])


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_links_do_not_hide_an_input(folder: Path, link) -> None:  # type: ignore[no-untyped-def]
    link(folder / "a.wav", folder / "b_48k.wav")
    with pytest.raises(AudioError, match="is an input of this run"):
        Plan.make([folder / "a.wav", folder / "b.wav"])


def test_existing_results_of_other_names_are_left_to_the_writer(folder: Path) -> None:
    (folder / "a_48k.wav").write_bytes(b"an earlier result")
    plan = Plan.make([folder / "a.wav", folder / "b.wav"])
    assert plan.jobs == [(folder / f"{name}.wav", folder / f"{name}_48k.wav") for name in "ab"]


def test_plan_knows_the_folder_of_all_results(folder: Path) -> None:
    a, b, out = folder / "a.wav", folder / "b.wav", folder / "out"
    assert Plan.make([a], out).folder is None and Plan.make([a, b]).folder is None
    assert Plan.make([a, b], out).folder == Plan.make([folder], out).folder == out
    assert Plan.make([folder]).folder == folder.with_name(f"{folder.name}_48k")


def test_only_a_name_of_the_user_needs_its_folder(folder: Path) -> None:
    a, out = folder / "a.wav", folder / "out"
    assert Plan.make([a], out / "b.flac") == Plan([(a, out / "b.flac")], is_named=True)
    assert Plan.make([a], out, "FLAC") == Plan([(a, out / "a.flac")], suffix=".flac")
    with pytest.raises(ValueError, match="contradicts"):
        Plan.make([a], out / "b.flac", "wav")


def test_hidden_files_and_folders_are_left_out(folder: Path) -> None:
    (folder / ".work").mkdir()
    (folder / ".work" / "c.wav").write_bytes(b"half")
    (folder / "._d.wav").write_bytes(b"of another system")
    assert [path.name for path, _ in list_audio([folder])] == ["a.wav", "b.wav"]
    assert [path.name for path, _ in list_audio([folder / ".work"])] == ["c.wav"]


def test_folder_onto_itself_is_refused_as_a_whole(folder: Path) -> None:
    with pytest.raises(AudioError, match="same file"):
        Plan.make([folder], folder)
    assert len(Plan.make([folder], folder, "flac").jobs) == 2
