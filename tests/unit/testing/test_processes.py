"""Ports for servers of a test."""

from thanostack.testing.processes import free_port


def test_no_port_is_given_twice():
    """Twenty servers that start together choose from ten thousand: two would meet now and then."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)
