"""What people and programs are shown: terminal, HTML, files; computes no result."""
