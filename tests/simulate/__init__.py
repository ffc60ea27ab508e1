"""`make simulate`: the real tracker core in virtual time, people around it, and whoever wants too much."""
