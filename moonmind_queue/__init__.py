"""moonmind-queue."""
