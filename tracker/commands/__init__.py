"""What `potluck-tracker` does, one file for each command; `tracker.__main__` reads the command line."""
