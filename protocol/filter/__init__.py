"""The prompt filter: what tracker and workers look for in what people ask, and what they make of it.

`normalise` makes the readings of a text, `wordlist` reads the lists, `match` finds their terms in a reading, `verdict`
decides, `doors` names every field through which words come. All of it is pure, and linear in the length of the text.
"""
