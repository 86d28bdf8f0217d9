"""Fault injection on real servers, in the manner of Jepsen.

Producer and consumer processes use only the public interface of anymq and append each event to a
journal of their own. Meanwhile the nemesis kills, pauses and disconnects servers, processes and
connections. Afterwards the judge checks all journals.
"""
