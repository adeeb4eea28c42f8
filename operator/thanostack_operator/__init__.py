"""Run Thanostack on Kubernetes from one custom resource, `ThanosStack`.

Reads the resource and the objects it owns, writes those objects by server-side apply, asks routers
for the hash of their hashrings and ingestors for their drain. Never touches a sample, never deletes
a volume, and imports nothing of the services: what both must agree on is data, checked by tests.
"""
