"""Many turns from a file, each answered once."""
