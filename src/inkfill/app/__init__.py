"""The application: command line, demonstration, reports, figures and output files."""
