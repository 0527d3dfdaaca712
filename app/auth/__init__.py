"""Who calls and what that allows, as far as it needs no I/O.

``callers``: scopes and workspaces. ``keys``: API keys. ``tokens``: JSON Web Tokens. ``addresses``: where a
call comes from. ``rules``: what the settings have to be before the API may serve.
"""
