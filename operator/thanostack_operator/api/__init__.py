"""The custom resource as pydantic models: what a user may write, and what the status says.

    fields, pod, files ◄── receive, query ◄── stack        the spec; rules between fields in `rules`
                                        status             what the operator writes
    schema ──► crd                                         models → CustomResourceDefinition
    reading                                                a resource → `ThanosStack`, or problems

The models are the source of `crds/` and of the chart's copy, which tests compare. Fields exist only
for containers that exist. Every list and string has a bound, so that the API server accepts the
rules that go with them.
"""
