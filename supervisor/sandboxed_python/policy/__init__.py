"""What the user granted, and the one function that judges a request by it.

Runs in: both. Pure: no kernel calls; the few file-system look-ups are injected. Import from the modules:
``table`` (the permissions), ``patterns`` (paths), ``model`` (the policy), ``decide`` (the judgement), ``files`` with
``contents`` and ``formats`` (policy files).
"""
