"""Turns a graph into ordered kernel calls, and plans their memory."""
