"""Read a stack's volume claims, and whether their classes let them grow, into its `Observed`.

A list by label has the claims that StatefulSets made. One that somebody else made under the name of
an ingestor's is used just the same, and asked for by that name. Classes belong to no namespace, so
an operator that is limited to some may not read them; what is not known is tried.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from .api.stack import ThanosStack
from .kube import STORAGE_CLASSES, VOLUME_CLAIMS, ApiError, KubeClient
from .manifests.names import STACK_LABEL, Object, ingestor_name
from .plan.observed import Observed, dig
from .plan.volumes import claim_names, class_of, volumes_of


async def with_claims(stack: ThanosStack, kube: KubeClient, observed: Observed) -> Observed:
    """Return what there is of a stack with its claims.

    Raises:
        ApiError: if the API server does not answer.
    """
    try:
        observed = replace(observed, claims=await _claims(stack, kube, observed))
        small = {
            class_of(ring.claims[claim])
            for ring in volumes_of(stack, observed)
            for claim in ring.small
        }
    except ApiError as error:
        if error.status == 403:
            return replace(observed, claims=None)
        raise
    names = sorted(small - {""})
    expandable = await asyncio.gather(*(_is_expandable(kube, name) for name in names))
    known = zip(names, expandable, strict=True)
    return replace(observed, expandable={name: it for name, it in known if it is not None})


async def _claims(stack: ThanosStack, kube: KubeClient, observed: Observed) -> dict[str, Object]:
    """Return the claims by label, and those by name of StatefulSets that are there."""
    listed = await kube.list(VOLUME_CLAIMS, stack.namespace, f"{STACK_LABEL}={stack.name}")
    found = {claim["metadata"]["name"]: claim for claim in listed}
    missing = [
        name
        for ring in stack.spec.receive.rings
        if observed.find("StatefulSet", ingestor_name(stack.name, ring.name)) is not None
        for name in claim_names(stack, ring, observed)
        if name not in found
    ]
    others = await asyncio.gather(
        *(kube.get(VOLUME_CLAIMS, stack.namespace, name) for name in missing)
    )
    named = zip(missing, others, strict=True)
    return found | {name: claim for name, claim in named if claim is not None}


async def _is_expandable(kube: KubeClient, name: str) -> bool | None:
    """Return whether claims of a class may grow; None if it is not there or may not be read."""
    try:
        found = await kube.get(STORAGE_CLASSES, None, name)
    except ApiError as error:
        if error.status == 403:
            return None
        raise
    return None if found is None else bool(dig(found, "allowVolumeExpansion"))
