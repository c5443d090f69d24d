"""What a user imports: the contract's stubs, the client, the command line."""
