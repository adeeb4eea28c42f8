"""What every package may use: errors, units, clock and identifiers. It imports nothing of ours."""
