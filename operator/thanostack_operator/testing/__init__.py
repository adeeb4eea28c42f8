"""What tests of the operator build on."""
