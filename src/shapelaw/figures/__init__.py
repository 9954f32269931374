"""Pure views of results: they turn runs, fits and answers into pictures."""
