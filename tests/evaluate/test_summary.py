"""Summaries and tables: nothing is dropped in silence, marks mean what they say, files read back equal."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hifispeech.errors import AudioError
from hifispeech.evaluate import tables
from hifispeech.evaluate.metrics import badness, metric_of, value_of
from hifispeech.evaluate.results import Row, failure_lines, read_rows, write_rows
from hifispeech.evaluate.summary import Summary, summarise


def rows(clips: int = 12) -> list[Row]:
    """`good` is better than `bad` on every clip, `twin` differs from `good` by noise; LSD and SI-SDR."""
    made = []
    for i in range(clips):
        for rate in (8000, 16000):
            base = 1 + 0.1 * i + 8000 / rate
            lsd = {"good": base, "twin": base + 0.001 + 0.01 * (-1) ** i, "bad": base + 1 + 0.01 * i}
            for system, exact in lsd.items():
                value = round(exact, 4)
                facts = {"duration_s": 2.0, "seconds": 0.5} if system == "good" else {}
                made.append(
                    Row(
                        "speech",
                        f"clip{i}.wav",
                        "anna",
                        rate,
                        system,
                        {"lsd": value, "si_sdr": -value},
                        facts,
                    )
                )
    return made


@pytest.fixture(scope="module")
def summary() -> Summary:
    return summarise(rows(), memory_mb={"good": 100.0})


RUN = {
    "command": "hifispeech evaluate",
    "systems": {"good": "fast", "twin": "dir:x", "bad": "mirror"},
    "degrade": "sinc: soxr VHQ",
    "align": False,
    "bits": "16",
    "seed": 0,
    "workers": 1,
    "machine": "x86_64",
    "software": {"python": "3.11"},
}


def test_means_costs_and_worst(summary: Summary) -> None:
    entry = summary.entry("speech", 8000, "good", "lsd")
    assert entry is not None
    assert entry.mean.mean == pytest.approx(1 + 0.55 + 1)
    assert entry.mean.low < entry.mean.mean < entry.mean.high
    assert (entry.mean.count, entry.expected) == (12, 12)
    assert summary.costs["good"] == {"real_time_factor": 4.0, "peak_memory_mb": 100.0}
    assert summary.costs["bad"] == {"real_time_factor": None, "peak_memory_mb": None}
    worst = summary.worst["good"]
    assert [row.file for row in worst][:2] == ["clip11.wav", "clip10.wav"]
    assert len(worst) == 10 and all(row.rate == 8000 for row in worst)


def test_bold_is_the_best_and_the_dagger_what_cannot_be_told_from_it(summary: Summary) -> None:
    lines = tables.value_table(summary, "speech", "lsd")
    by_system = {line.split(" | ")[0].strip("| "): line for line in lines[2:]}
    assert by_system["good"].count("**") == 4
    assert by_system["twin"].count("†") == 2
    assert "†" not in by_system["bad"] and "**" not in by_system["bad"]
    higher = tables.value_table(summary, "speech", "si_sdr")
    assert higher[2].startswith("| good | **")


def test_a_failed_clip_is_counted_named_and_not_averaged() -> None:
    made = rows()
    made[0] = Row("speech", "clip0.wav", "anna", 8000, "good", error="no output")
    summary = summarise(made)
    entry = summary.entry("speech", 8000, "good", "lsd")
    assert entry is not None and (entry.mean.count, entry.expected) == (11, 12)
    page = "\n".join(tables.markdown(summary, RUN, tables.Pictures()))
    assert (
        "**Failed or incomplete results: 1.**" in page
        and "- speech/clip0.wav, 8 kHz, good: no output" in page
    )
    assert "(11 of 12)" in page and "(11/12)" in "\n".join(tables.latex(summary, RUN))
    versus = next(v for v in summary.comparisons if v.rate == 8000 and v.first == "good")
    assert versus.comparison.count == 11


def test_a_system_that_skips_hard_clips_is_not_the_best_and_its_mean_is_marked() -> None:
    """`bad` scores best of all, on the one clip that it does."""
    made = []
    for row in rows():
        if row.system != "bad":
            made.append(row)
        elif row.file == "clip0.wav":
            made.append(replace(row, values={"lsd": 0.1}))
        else:
            made.append(replace(row, values={}, error="hung"))
    lines = tables.value_table(summarise(made), "speech", "lsd")
    by_system = {line.split(" | ")[0].strip("| "): line for line in lines}
    assert by_system["bad"].count("(1 of 12)") == 2 and "**" not in by_system["bad"]
    assert by_system["bad"].endswith("0.100 (incomplete) |")
    assert by_system["good"].count("**") == 4


def test_a_system_that_delivers_nothing_stays_in_the_tables() -> None:
    made = [*rows(2), *(Row("speech", f"clip{i}.wav", "anna", 8000, "gone", error="hung") for i in range(2))]
    summary = summarise(made)
    assert "| gone | - (0 of 2) | - (0 of 2) | - |" in tables.value_table(summary, "speech", "lsd")
    assert "gone & -- (0/2) & -- (0/2) & - \\\\" in tables.latex(summary, RUN)


def test_what_all_rates_or_systems_share_is_said_once() -> None:
    every = [Row("s", "a.wav", "", rate, name, error="silent") for rate in (8000, 16000) for name in "xy"]
    some = [Row("s", "b.wav", "", rate, "x", error="hung") for rate in (8000, 16000)]
    one = [Row("s", "b.wav", "", 16000, "y", error="died")]
    assert failure_lines([*every, *some, *one], (8000, 16000), "xy") == [
        "s/a.wav, all rates, all systems: silent",
        "s/b.wav, all rates, x: hung",
        "s/b.wav, 16 kHz, y: died",
    ]


def test_what_alignment_found_is_told_by_system() -> None:
    facts = [{"delay_samples": d, "gain": g} for d, g in ((480, 0.5), (478, 0.25), (482, 1.0))]
    made = [Row("s", f"{i}.wav", "", 8000, "peer", {"lsd": 1.0}, f) for i, f in enumerate(facts)]
    page = tables.markdown(summarise(made), RUN, tables.Pictures())
    assert "| peer | 480 [478, 482] | 0.500 [0.250, 1.000] |" in page
    assert "## Alignment" not in tables.markdown(summarise(rows(2)), RUN, tables.Pictures())


def test_digital_silence_is_counted_once_a_clip_and_reported() -> None:
    facts = [{"silent_frames": silent, "frames": 100} for silent in (0, 30, 12)]
    made = [
        Row("s", f"{i}.wav", "", rate, "x", {"lsd_p2": 1.0}, fact)
        for i, fact in enumerate(facts)
        for rate in (8000, 16000)
    ]
    summary = summarise(made)
    assert summary.silence == {"s": (42, 300, 2)}
    page = tables.markdown(summary, RUN, tables.Pictures())
    assert (
        "42 of 300 frames of the truth, in 2 clips, are digital silence and left out of LSD P2." in page
        and "LSD (protocol P2), lower is better (16-bit samples):" in page
    )


def test_values_not_asked_for_are_not_missing() -> None:
    made = [
        Row(r.set, r.file, r.speaker, r.rate, r.system, {"lsd": 1.0} | ({"visqol": 4.0} if i < 6 else {}))
        for i, r in enumerate(rows(2))
    ]
    summary = summarise(made, skipped={"speech/clip1.wav": frozenset({"visqol"})})
    assert {e.expected for e in summary.entries if e.value == "visqol"} == {1}
    assert {e.expected for e in summary.entries if e.value == "lsd"} == {2}


def test_comparisons_are_corrected_over_all_pairs_and_rates(summary: Summary) -> None:
    family = [v for v in summary.comparisons if v.value == "lsd"]
    assert len(family) == 3 * 2
    assert all(v.p >= v.comparison.p for v in family)
    assert min(v.p for v in family) == pytest.approx(6 * min(v.comparison.p for v in family))
    table = list(csv.DictReader(io.StringIO(tables.comparisons_csv(summary))))
    assert len(table) == 12 and {row["first"] for row in table} == {"good", "twin"}


def test_latex_has_balanced_tables_and_no_bare_specials(summary: Summary) -> None:
    made = [Row("set_1", r.file, "a&b", r.rate, f"{r.system}_x", r.values) for r in rows(3)]
    text = "\n".join(tables.latex(summarise(made), RUN))
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 2
    assert text.count("\\begin{tabular}{lccc}") == 2
    assert "good\\_x" in text and "set\\_1" in text
    assert text.replace("\\%", "").count("%") == 1  # the comment
    assert tables._tex("a^b~c\\d") == "a\\textasciicircum{}b\\textasciitilde{}c\\textbackslash{}d"


def test_csv_reads_back_equal(tmp_path: Path) -> None:
    made = [
        *rows(2),
        Row("s", "x, y.wav", "z", 8000, "good", {"lsd": float("inf")}, {"gain": 0.5}, "n", 'a "b"'),
    ]
    write_rows(tmp_path / "scores.csv", made)
    assert read_rows(tmp_path / "scores.csv") == made
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(AudioError, match="not a table of scores"):
        read_rows(tmp_path / "other.csv")
    with pytest.raises(AudioError, match="no such file"):
        read_rows(tmp_path / "none.csv")


def test_json_is_plain_even_with_infinity() -> None:
    summary = summarise([Row("s", "a.wav", "z", 8000, "good", {"si_sdr": float("inf")})])
    text = json.dumps(summary.as_json(), allow_nan=False)
    assert json.loads(text)["entries"][0]["mean"]["mean"] == "inf"
    assert "inf" in "\n".join(tables.markdown(summary, RUN, tables.Pictures()))


def test_directions_and_metrics_of_values() -> None:
    for name in ("lsd", "lsd_high", "lsd_p2", "mr_stft", "phase_ip", "texture", "nobody_knows"):
        assert badness(name, 1) < badness(name, 2), name
    for name in ("si_sdr", "ssim", "visqol", "pesq", "log_sispec", "kept_snr"):
        assert badness(name, 2) < badness(name, 1), name
    assert badness("contrast_time", 1) < badness("contrast_time", 1.2) < badness("contrast_time", 0.5)
    assert badness("floor_bias", 0) < badness("floor_bias", -1) == badness("floor_bias", 1)
    assert value_of("lsd").title == "LSD (protocol P1)" and value_of("other").title == "other"
    assert metric_of("lsd_p2_high") == "lsd_p2" and metric_of("phase_gd") == "phase"
    assert metric_of("mr_stft") == "mr_stft"
