"""``python -m moonmind_queue`` is ``moonmind-queue``."""

from moonmind_queue.cli import main

main()
