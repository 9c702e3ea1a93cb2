"""A site's own rows: read, checked against the contract, split, freed of who objects, prepared.

`identity`, `files` and `opposition` need the standard library alone, and the agent may import them;
everything else imports numpy or pyarrow and belongs to the trainer and to commands.
"""
