"""A corpus on a Ray cluster: the run, its actors, the work on files, where they lie and the journal."""
