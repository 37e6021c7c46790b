"""Runs on several machines: handed out to a cluster, and taken over by their committed tables."""
