"""The commands of `larrey-site`, one module a subject, each with ``add(build)``."""
