"""What people meet: the command line, the demonstration, reports, pictures and files."""
