"""Suites for airspeed velocity: a class for each thing that takes time, by size.

``time_`` are seconds, ``peakmem_`` bytes of the whole process, ``track_ratio_`` the time over that
of the necessary work; ratios, unlike seconds, carry over between machines. Every
class lists its smallest parameters first; the tests run those.
"""
