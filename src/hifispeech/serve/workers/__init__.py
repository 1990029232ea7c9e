"""Worker processes: the pool on the server's side, a request to a worker, and the worker itself."""
