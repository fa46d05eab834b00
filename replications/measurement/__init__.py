"""What a run or a method costs: device, time, memory, energy, FLOPs, provenance. Nothing here knows a task."""
