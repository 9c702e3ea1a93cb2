"""A site's own rows: read, checked against the contract, split, freed of who objects, prepared.

`identity`, `files`, `reading`, `secret` and `opposition` need the standard library alone, and the
agent may import them; everything else imports numpy or pyarrow and is for trainer and commands.
"""
