"""The commands below `samd-gateway` that ask a gateway, a module a subject, each with `add`."""

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from samd_gateway.client import Client


class Parents(msgspec.Struct, frozen=True, kw_only=True):
    """Parsers with the options that commands share: `gateway`, which one to ask; `plain`, `--json`."""

    gateway: argparse.ArgumentParser
    plain: argparse.ArgumentParser

    @property
    def both(self) -> list[argparse.ArgumentParser]:
        return [self.gateway, self.plain]


def connected(
    action: Callable[["Client", argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """A command's function: the action, given a client of the gateway that was named."""

    def run(arguments: argparse.Namespace) -> int:
        from samd_gateway.client import Client

        logging.getLogger("httpx").setLevel(logging.WARNING)
        client = Client(
            arguments.gateway,
            token_file=getattr(arguments, "token_file", None),
            ca_file=getattr(arguments, "gateway_ca_file", None),
        )
        try:
            return action(client, arguments)
        finally:
            client.close()

    return run
