"""MCP servers: tools with which agents work off tasks, keep files and hand out jobs.

A profile is a set of tools: ``state`` and ``artifacts`` are those of Agentmux, ``queue`` is the
queue itself. A tool calls the SQL functions that everybody calls, as the role of ``DATABASE_URL``,
so an agent can do through it what that role may, and nothing else. Only ``server`` and ``loopback``
know the MCP SDK, which is an extra.
"""
