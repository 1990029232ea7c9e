"""The HTTP service (extra `serve`): `hifispeech serve`, or `create_app(Settings(...))` from `serve.app`."""
