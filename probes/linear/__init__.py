"""Linear probes: within a domain, between domains, of the domain, against control tasks."""
