"""A stack → the Kubernetes objects that make it up: pure functions that return plain dicts.

`stack_objects` has all of them, `checks` what is wrong with a stack before anything is made of it.
"""
