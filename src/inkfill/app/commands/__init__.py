"""The commands, a file for each small group."""
