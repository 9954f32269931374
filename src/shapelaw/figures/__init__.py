"""Pure views of results: runs, fits and answers in, pictures out."""
