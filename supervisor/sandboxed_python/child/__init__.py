"""Inside the confined interpreter: the audit hook's friendly errors, ``sys.permission``, and running the program.

Runs in: child. Nothing here is relied upon for enforcement.
"""
