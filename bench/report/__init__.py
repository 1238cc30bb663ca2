"""What people and programs are shown: terminal, HTML, files. Computes nothing."""
