"""The machine under a run: processes, random numbers, memory, signals and files."""
