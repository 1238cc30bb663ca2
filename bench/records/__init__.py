"""What is stored and by which rules: the record, the protocol, the folder that holds them."""
