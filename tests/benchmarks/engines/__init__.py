"""What users would take instead of dpcore, each set to do the same work as well as it can.

An engine is a context manager: what it starts, it starts there, and that is not timed.
It then has ``wide(size)``: so many tasks that do nothing and one that waits for all;
``chain(size)``: each takes what the one before gave; ``arrays(size)``: half of the tasks
give 1 MB to the other half; and returns a number, which is the same for all.  What it
needs for that and can be made before is made by ``prepare(shape, size)``.
"""
