"""A whole federation on one machine: the programs, files and keys that hospitals would have."""
