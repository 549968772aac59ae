"""Transfers that outlive the connections of their clients."""
