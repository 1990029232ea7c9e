"""Streams: live speech in blocks of any size, with a fixed latency."""
