"""The test kit: builders, references, contracts and faults, for our tests and other people's."""
