"""Whether this operator's manifests fit the version of the image that a stack names.

A stack that names a version keeps its image when the operator is upgraded, and gets the new one's
manifests all the same: flags that an old image does not know end its pods at their start. An
operator is made for images of its own minor version and of the one before.

A version that is no release, such as the tag of a branch, is compared with nothing. A skew holds
nothing back: a rollout that fails stops by itself at its first pod, and to be told before is all
that can be done without knowing every version's flags.
"""

from __future__ import annotations

import re

from .conditions import Claim

_RELEASE = re.compile(r"v?([0-9]+)\.([0-9]+)\.[0-9]+([-+_.].*)?")


def version_claim(wanted: str | None, own: str) -> Claim:
    """Return the condition that tells whether a stack's version is supported.

    Args:
        wanted: `spec.version`.
        own: the operator's, which stacks have that name none.

    Example:
        >>> version_claim("1.1.7", "1.2.0").holds
        True
    """
    if wanted is None or wanted == own:
        return Claim("VersionSupported", True, "Supported")
    image, operator = _minor(wanted), _minor(own)
    if image is None or operator is None:
        message = f"spec.version: {wanted} cannot be compared with this operator's version, {own}"
        return Claim("VersionSupported", None, "NoRelease", message)
    major, minor = operator
    supported = [(major, minor)] if minor == 0 else [(major, minor - 1), (major, minor)]
    if image in supported:
        return Claim("VersionSupported", True, "Supported")
    known = " and ".join(f"{a}.{b}" for a, b in supported)
    what = f"this operator, {own}, is made for images of {known}"
    if image > operator:
        message = f"spec.version: {what}, and {wanted} is newer: upgrade the operator"
        return Claim("VersionSupported", False, "VersionTooNew", message)
    message = (
        f"spec.version: {what}, and {wanted} is older: its containers may not know flags that they "
        f"are given, and not start: set it to {own}, or leave it out"
    )
    return Claim("VersionSupported", False, "VersionTooOld", message)


def _minor(version: str) -> tuple[int, int] | None:
    """Return major and minor number of a release; None of anything else."""
    found = _RELEASE.fullmatch(version)
    return (int(found[1]), int(found[2])) if found else None
