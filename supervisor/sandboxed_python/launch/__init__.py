"""Starting a confined interpreter and looking after it until it ends.

Runs in: supervisor (confine: child).
"""
