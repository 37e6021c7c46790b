"""Measures, discovery methods and names of heads judged on planted models with a known answer."""
