"""The common ground of comparison: one module (or package) a task, named as in the papers' YAML."""
