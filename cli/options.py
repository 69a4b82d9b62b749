"""The kinds of options that several commands have, with what each of them may be."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from headrace.settings import host_port

# The API's int32, uint32 and int64.
MAX_INT32 = 2**31 - 1
MAX_UINT32 = 2**32 - 1
MAX_ID = 2**63 - 1
MAX_PORT = 65535
# protobuf's Duration: about 10,000 years.
MAX_SECONDS = 315_576_000_000


def servers(text: str) -> str:
    """Refuse what is not HOST:PORT, or several joined by commas."""
    for part in text.split(",") if text else ():
        try:
            host_port(part.strip() or "nothing")
        except ValueError as error:
            raise typer.BadParameter(
                f"{part!r} is no address; it must be {error}, or several joined by commas"
            ) from None
    return text


def finite(number: float) -> float:
    """Refuse NaN, which lies in no range and outside of none."""
    if not math.isfinite(number):
        raise typer.BadParameter(f"{number} is no number")
    return number


def id_argument(metavar: str, text: str = "Its id.") -> Any:
    """A resource by its id."""
    return typer.Argument(metavar=metavar, help=text, min=1, max=MAX_ID)


def id_option(*names: str, help: str, min: int = 1, **more: Any) -> Any:
    """A resource by its id; with min=0, 0 is none."""
    return typer.Option(*names, help=help, min=min, max=MAX_ID, **more)


def count_option(*names: str, help: str, min: int = 0) -> Any:
    """A number of things."""
    return typer.Option(*names, help=help, min=min, max=MAX_INT32)


def port_option(name: str, help: str) -> Any:
    """A port; 0: any free one."""
    return typer.Option(name, help=help, min=0, max=MAX_PORT)


def kafka_option(help: str) -> Any:
    """Addresses of a Kafka cluster."""
    return typer.Option("--kafka", metavar="HOST:PORT", callback=servers, help=help)


def delimiter(text: str) -> str:
    """One character; `tab` for that one, which is hard to type. Refuse what numbers and quotes are made of."""
    one = "\t" if text in ("tab", "\\t") else text
    if len(one) != 1 or not one.isascii() or one.isalnum() or one in '"\r\n.+-_':
        raise typer.BadParameter(f"{text!r} separates no numbers; give one character, as ';', or tab")
    return one


PlatformKafka = Annotated[str, kafka_option("Use this Kafka, not the embedded broker.")]
Kafka = Annotated[str, kafka_option("Default: that of this home.")]
Delimiter = Annotated[str, typer.Option("--delimiter", callback=delimiter, help="Of a CSV file: a character, or tab.")]
NoHeader = Annotated[
    bool, typer.Option("--no-header", help="The CSV file has no line with names: the columns are c1, c2, …")
]
Port = Annotated[int, port_option("--port", "Of the control plane. 0: any free one.")]
GatewayPort = Annotated[int, port_option("--gateway-port", "Of REST API and pages.")]
TensorflowPort = Annotated[int, port_option("--tensorflow-port", "Of the TensorFlow executor.")]
PytorchPort = Annotated[int, port_option("--pytorch-port", "Of the PyTorch executor.")]
LoggerPort = Annotated[int, port_option("--logger-port", "Of the logger's metrics.")]
BrokerPort = Annotated[int, port_option("--broker-port", "Of the embedded broker.")]
