"""Agentmux on this queue: tasks of a graph, worked off by agents.

A task is a job under its own id, a run of it an attempt, its state and its history are those of the
job in other words (``vocabulary``). There is no second state machine and no second worker: what is
here reads files, gives the worker its profile, and writes files for tools that read files.
"""
