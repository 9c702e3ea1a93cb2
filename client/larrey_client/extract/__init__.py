"""From a hospital's database to a snapshot on disk, by a process that can reach nothing else."""
