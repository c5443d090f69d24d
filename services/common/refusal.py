"""Why a process refuses to start."""


class ConfigurationError(ValueError):
    """What the operator gave cannot be run: settings, certificates, keys, an address. One sentence says why."""
