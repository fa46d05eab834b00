"""From the knobs of config/config.yaml to the jobs of the workflow. Imports neither torch nor pandas."""
