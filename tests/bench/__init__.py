"""`make bench`: how fast and how small, as figures that one run makes and compares."""
