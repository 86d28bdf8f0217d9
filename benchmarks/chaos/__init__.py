"""Faults for real: what is published and consumed in other processes is judged afterwards.

Producers and consumers (`producer`, `consumer`) know the public interface alone and write each
thing that happens to a file of their own (`journal`). Meanwhile servers, processes and connections
are broken (`nemesis`, `proxy`); at the end the files are judged (`judge`).
"""
