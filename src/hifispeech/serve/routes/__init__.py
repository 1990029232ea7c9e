"""The routes of the service: audio, jobs, streams, the API reference."""
