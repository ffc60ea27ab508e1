"""`make simulate`: the real tracker core under virtual time, a world of people around it, and whoever wants too much."""
