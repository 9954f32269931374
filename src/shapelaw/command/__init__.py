"""Training by a program of one's own (trainer=command): its command line, the metrics that it appends to a file, its process.

Nothing here imports torch. Folder, lock, state, journal and tracked run are those of every run.
"""
