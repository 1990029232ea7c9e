"""Jobs: their SQLite table and the queue that runs them."""
