"""What is stored and by which rules: the record, the protocol, the folder they lie in."""
