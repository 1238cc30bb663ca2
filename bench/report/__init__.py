"""What people and programs are shown: terminal, HTML, files. It computes nothing."""
