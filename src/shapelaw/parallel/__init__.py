"""How one run is shared out over several processes: which layouts there are, and what each does to model and gradients."""
