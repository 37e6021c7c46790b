"""What stands between users and code: lazy names, what is called late, checked arguments."""
