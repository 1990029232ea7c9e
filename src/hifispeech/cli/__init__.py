"""The `hifispeech` command line program: `program` is the root, one module for each group of subcommands."""

from hifispeech.cli.program import app, main

__all__ = ["app", "main"]
