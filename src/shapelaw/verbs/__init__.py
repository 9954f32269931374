"""The doors: one module a command. The only floor that joins figures, tracking, sweeps and configuration."""
