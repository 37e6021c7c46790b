"""What stands between users and code: names found late, checked arguments."""
