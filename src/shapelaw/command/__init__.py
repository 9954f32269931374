"""Training by the user's own program (trainer=command): its command line, its process and its metrics file.

Nothing here imports torch. Folder, lock, state, journal and tracked run are the same as for every run.
"""
