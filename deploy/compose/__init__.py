"""The stack for Docker users."""
