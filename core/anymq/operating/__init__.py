"""Administration of topics, groups and dead letters."""
