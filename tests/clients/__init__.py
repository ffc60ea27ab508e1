"""The gateway, tried with what others wrote."""
