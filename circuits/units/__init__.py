"""Channels, heads and neurons: which a metric rests on, and what a few of them preserve."""
