"""Circuits as sets of edges: found from scores, judged by faithfulness and minimality."""
