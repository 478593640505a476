"""What became of the data: what changed, in which order, and why.

diff.py      what differs between two states, thing by thing
ancestry.py  what a state knows of all branches, and what two have in common
plan.py      what a merge writes, and what is contested
merge.py     merge, pick, revert, reset, undo
notes.py     notes on versions
log.py       the commits by version, time, actor and primitive
digest.py    one hash of all that a state holds
replay.py    the commits of a stretch of history as steps, with what each changed
watch.py     the commits of a branch as they come
explain.py   why a value is what it is
tree.py      that as text and HTML
plain.py     what these find, as JSON can say it

Over the protocols alone, so over the kernel and the oracle alike.
"""
