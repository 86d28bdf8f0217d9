"""An order system on real order data: five services that communicate only by events.

Run it with `python -m examples.orders --url URL`; README.md in this folder shows the flow.
"""
