"""An order system on real orders: five services that know each other by their events alone.

`python -m examples.orders --url URL` runs it; README.md beside this file shows how it flows.
"""
