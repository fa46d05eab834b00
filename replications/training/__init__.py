"""The one loop, its schedules, checkpoints, determinism and distribution."""
