"""What a caller of Riptide needs: the contract, an async client and a command line."""
