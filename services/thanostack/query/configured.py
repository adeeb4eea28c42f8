"""The endpoints that flags and the endpoint file name, as they are now.

The file is read again when it is time; one that is bad then, or names a bad certificate, changes
nothing and is told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from thanostack.lib.foundation.errors import SettingsInvalid
from thanostack.query.discovery import EndpointSpec
from thanostack.query.endpoint_config import parse_endpoints
from thanostack.query.endpoints import EndpointTLS
from thanostack.query.settings import QuerySettings
from thanostack.runtime.process import Process

_CONTENT: Final = "--endpoint.sd-config"
_FILE: Final = "--endpoint.sd-config-file"
Specs = tuple[EndpointSpec, ...]


def configured_endpoints(
    settings: QuerySettings, process: Process, tls: EndpointTLS
) -> Callable[[], Specs]:
    """Return a function that gives the endpoints as they are configured now.

    Args:
        settings: flags, and where the file is.
        process: its clock says when it is time, its log is told about a bad file.
        tls: prepared for whatever the function returns.

    Raises:
        SettingsInvalid: if the endpoint file or a certificate is bad at the start.
    """
    listed = _read(settings)
    tls.prepare(listed)
    read_s = process.clock.monotonic_s()

    def configured() -> Specs:
        nonlocal listed, read_s
        now_s = process.clock.monotonic_s()
        if now_s - read_s < settings.endpoint_sd_config_reload_interval / 1000:
            return listed
        read_s = now_s
        try:
            found = _read(settings)
            tls.prepare(found)
        except SettingsInvalid as error:
            process.log.warning("endpoint file is wrong, keeping the last one", err=error)
        else:
            listed = found
        return listed

    return configured if settings.endpoint_sd_config_file else lambda: listed


def _read(settings: QuerySettings) -> Specs:
    path = settings.endpoint_sd_config_file
    text, place = settings.endpoint_sd_config, _CONTENT
    if path:
        place = f"{_FILE}: {path}"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsInvalid(f"{_FILE}: cannot read {path}: {error}") from error
    tls, listed = parse_endpoints(text, place, settings.endpoint_tls)
    fixed = (
        (settings.endpoint, False, False),
        (settings.store, False, False),
        (settings.endpoint_strict, True, False),
        (settings.endpoint_group, False, True),
        (settings.endpoint_group_strict, True, True),
    )
    return (
        *(
            EndpointSpec(address, strict=strict, group=group, tls=tls)
            for addresses, strict, group in fixed
            for address in addresses
        ),
        *listed,
    )
