"""What stands between users and code: lazy names, names of version 0.1, checked arguments."""
