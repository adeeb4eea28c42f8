"""Whose data a request is: names of tenants, and where a request says one.

names        what a tenant may be called, since the name is a folder
rule         header, certificate field or default
certificate  one field of a client's certificate
"""
