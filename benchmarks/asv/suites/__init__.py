"""Suites for airspeed velocity: a class for each thing that takes time, by size.

``time_`` are seconds, ``peakmem_`` bytes of the whole process, ``track_ratio_`` the time over that
of what cannot be done without: ratios carry over between machines where seconds do not. Every
class lists its smallest parameters first; the tests run those.
"""
