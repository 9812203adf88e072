"""Repeated measurements and subjects: noise ceilings, and the bootstrap of RSA."""
