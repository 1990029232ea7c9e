"""`python -m hifispeech` is the `hifispeech` command."""

from hifispeech.cli import main

if __name__ == "__main__":
    main()
