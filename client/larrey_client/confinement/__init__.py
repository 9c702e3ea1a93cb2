"""Barriers around a process that holds patients' rows, set by the process itself for good.

Linux only, by the system calls themselves, since the standard library offers none of them. Must
run before any thread exists and before numerical libraries are imported. What could not be
enforced is reported, never assumed.
"""
