"""Systems to score: models, baselines, folders of ready outputs, external programs."""

from hifispeech.evaluate.systems.system import (
    BASELINES,
    PACKAGE,
    RATE,
    Output,
    System,
    check,
    digest,
    find_output,
    parse_systems,
    run,
)

__all__ = [
    "BASELINES",
    "PACKAGE",
    "RATE",
    "Output",
    "System",
    "check",
    "digest",
    "find_output",
    "parse_systems",
    "run",
]
