"""`potluck gateway`: the doors through which programs written for other services ask a horde.

One process on this machine, one account, one or several hordes. Each door is a package that knows one API and nothing
of the others: `openai` (/v1), `aihorde` (/api/v2) and `a1111` (/sdapi/v1). What they share is here:

```
asks       what any door makes of its client's words, and what comes of it
hordes     the hordes that are asked, and which of them an ask goes to (`catalogue`)
running    asks that go on in the background, for doors whose clients poll
files      pictures under unguessable names, for answers that hold a link
errors     what can go wrong, in a few kinds which each door puts in its own words
bodies     what came in a request, read and checked
access     who may ask at all: Host, Origin and keys; `key` and `tls` are its files
door       what a door is; `serve` plugs the doors in
```
"""
