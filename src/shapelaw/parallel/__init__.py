"""How one run is divided among several processes: the layouts, and what each does to model and gradients."""
