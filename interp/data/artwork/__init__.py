"""The embedded study: drawings from installed packages, rendered in six domains."""
