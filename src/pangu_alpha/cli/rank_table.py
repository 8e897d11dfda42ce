"""Command line of rank_table.py: build, merge, permute, check and draw HCCL rank tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pangu_alpha.parallel.draw import draw
from pangu_alpha.parallel.mesh import Mesh
from pangu_alpha.parallel.placement import Placement, permute
from pangu_alpha.parallel.rank_table import RankTable, merge, parse, read, write
from pangu_alpha.parallel.rank_table_build import (
    Host,
    build,
    device_ids,
    hosts_by_rule,
    read_hccn_conf,
    read_hosts,
)
from pangu_alpha.parallel.rank_table_check import CHIPS, VERSIONS, check_document

_EXAMPLES = """\
examples:
  rank_table.py build --hosts hosts.txt --output table.json
  rank_table.py build --hccn 10.0.0.1=node1/hccn.conf 10.0.0.2=node2/hccn.conf --output table.json
  rank_table.py build --servers 4 --server-ip '10.0.0.{server+1}' \\
      --device-ip '10.{device%4+1}.{server}.{device+1}' --output table.json
  rank_table.py merge node1.json node2.json --output table.json
  rank_table.py permute table.json --dp 16 --tp 8 --pp 16 --servers-per-rack 16 \\
      --placement 'rack=data server=stage device=tensor' --output placed.json
  rank_table.py check placed.json --dp 16 --tp 8 --pp 16
  rank_table.py draw placed.json --dp 16 --tp 8 --pp 16 --servers-per-rack 16 --output placed.png

exit code: 0 good; 1 check found problems; 2 wrong options, or a file that cannot be used
"""

_BUILD = """\
A host list has one server a line: id, devices (a number, or ids such as 0-3; 8 where left out), addresses
with commas or the path of its hccn.conf. As YAML: `hosts:`, a list of mappings with server, devices,
device_ips, hccn_conf, super_pod, super_device_ids. Ranks follow the list.

Address rules: {server} and {device} are numbers from 0; +N, //N and %N may follow the name, applied from the
left: 10.{device%4}.{server}.{device+1}
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rank_table.py",
        description="Build, merge, permute, check and draw HCCL rank tables.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _build_options(_command(commands, "build", "a table from a host list, hccn.conf files or rules", _BUILD))
    one = _command(commands, "merge", "one table of several; every device keeps its rank", "")
    one.add_argument("tables", nargs="+", metavar="TABLE", help="tables of other servers each")
    one.add_argument(
        "--renumber", action="store_true", help="give out ranks anew, in the order of the tables"
    )
    _output(one)
    one = _command(commands, "permute", "give ranks to devices so that axes run where they should", "")
    one.add_argument("tables", nargs=1, metavar="TABLE", help="a table that lists servers rack by rack")
    one.add_argument("--placement", required=True, metavar="LEVELS", help="axes on racks, servers of a rack, "
        "devices of a server, outermost first: 'rack=data server=stage device=tensor'")  # fmt: skip
    _mesh_options(one, required=True)
    _rack_option(one)
    _output(one)
    one = _command(commands, "check", "list every rule a table breaks; exit code 1 if there is one", "")
    one.add_argument("tables", nargs="+", metavar="TABLE")
    one.add_argument("--partial", action="store_true", help="the table is of some servers of a cluster: "
        "its ranks need not be whole")  # fmt: skip
    _mesh_options(one, required=False)
    one = _command(commands, "draw", "a picture of the grid a table realises", "")
    one.add_argument("tables", nargs=1, metavar="TABLE", help="a table that lists servers rack by rack")
    one.add_argument("--output", required=True, metavar="PNG", help="picture to write")
    _mesh_options(one, required=True)
    _rack_option(one)
    return parser


def _command(
    commands: argparse._SubParsersAction, name: str, text: str, epilog: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--chip", choices=CHIPS, help="chip of the servers (default: 910A, the strictest; "
        "910C for version 1.2)")  # fmt: skip
    return parser


def _build_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--hosts", metavar="FILE", help="host list, text or YAML")
    source.add_argument("--hccn", nargs="+", metavar="SERVER=FILE", help="the hccn.conf of each server")
    source.add_argument("--servers", type=int, metavar="N", help="N like servers with addresses by rule")
    add("--server-ip", metavar="RULE", help="rule of the servers' addresses, with --servers")
    add("--device-ip", metavar="RULE", help="rule of the addresses of devices that the source gives none for")
    add("--devices", metavar="IDS", help="devices of every server, with --hccn or --servers: a number or ids "
        "(default: all of hccn.conf; 8)")  # fmt: skip
    add("--version", choices=VERSIONS, default="1.0", help="1.2 for super pods of 910C (default: 1.0)")
    add("--first-rank", type=int, default=0, metavar="R", help="rank of the first device, for a part that is "
        "merged later (default: 0)")  # fmt: skip
    _output(parser)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="TABLE", help="rank table to write")


def _mesh_options(parser: argparse.ArgumentParser, required: bool) -> None:
    note = "" if required else "; with the others, the table is also checked for this grid"
    parser.add_argument("--dp", type=int, required=required, help=f"data parallel degree{note}")
    parser.add_argument("--tp", type=int, required=required, help="tensor parallel degree")
    parser.add_argument("--pp", type=int, required=required, help="pipeline stages")


def _rack_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--servers-per-rack", type=int, metavar="N", help="(default: one rack holds all)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs rank_table.py; raises ValueError for what the user can mend."""
    options = _parser().parse_args(arguments)
    commands = {"build": _build, "merge": _merge, "permute": _permute, "check": _check, "draw": _draw}
    return commands[options.command](options)


def _build(options: argparse.Namespace) -> int:
    if options.first_rank < 0:
        raise ValueError(f"--first-rank: {options.first_rank} must not be negative")
    table = build(_hosts(options), options.version, options.first_rank, options.device_ip)
    return _write(table, options, partial=options.first_rank > 0)


def _hosts(options: argparse.Namespace) -> list[Host]:
    if bool(options.servers) != bool(options.server_ip):
        raise ValueError("--servers and --server-ip belong together; give both or neither")
    if options.hosts:
        if options.devices:
            raise ValueError("--devices: the host list names the devices; write them there")
        return read_hosts(options.hosts)
    if options.servers:
        if options.servers < 1:
            raise ValueError(f"--servers: {options.servers} must be at least 1")
        return hosts_by_rule(options.servers, options.server_ip, device_ids(options.devices or 8))
    return [_hccn_host(pair, options.devices) for pair in options.hccn]


def _hccn_host(pair: str, devices: str | None) -> Host:
    server, equals, path = pair.partition("=")
    if not (server and equals and path):
        raise ValueError(f"--hccn: {pair!r} must be SERVER=FILE")
    addresses = read_hccn_conf(path)
    ids = device_ids(devices) if devices else tuple(addresses)
    for device in ids:
        if device not in addresses:
            raise ValueError(f"{path}: no address_{device}; correct --devices or the file")
    return Host(server, ids, tuple(addresses[device] for device in ids))


def _merge(options: argparse.Namespace) -> int:
    tables = [(path, read(path, chip=options.chip, partial=True)) for path in options.tables]
    return _write(merge(tables, options.renumber), options)


def _permute(options: argparse.Namespace) -> int:
    mesh = Mesh(options.dp, options.tp, options.pp)
    table = read(options.tables[0], chip=options.chip)
    per_rack = options.servers_per_rack or len(table.servers)
    return _write(permute(table, mesh, Placement.parse(options.placement), per_rack), options)


def _check(options: argparse.Namespace) -> int:
    degrees = (options.dp, options.tp, options.pp)
    if None in degrees and degrees != (None, None, None):
        raise ValueError("--dp, --tp and --pp belong together; give all or none")
    mesh = None if None in degrees else Mesh(*degrees)
    broken = False
    for path in options.tables:
        document = parse(Path(path).read_text("utf-8"), path)
        problems = check_document(document, mesh, options.chip, options.partial)
        broken |= bool(problems)
        print(f"{path}: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
        for problem in problems:
            print(f"  - {problem}")
    return int(broken)


def _draw(options: argparse.Namespace) -> int:
    table = read(options.tables[0], chip=options.chip)
    mesh = Mesh(options.dp, options.tp, options.pp)
    draw(table, mesh, options.output, options.servers_per_rack)
    print(f"{options.output}: {mesh}, {len(table.servers)} server(s)")
    return 0


def _write(table: RankTable, options: argparse.Namespace, partial: bool = False) -> int:
    write(table, options.output, options.chip, partial)
    ranks = [rank for server in table.servers for rank in server.ranks]
    print(
        f"{options.output}: version {table.version}, {len(table.servers)} server(s), {table.size} devices, "
        f"ranks {min(ranks)} to {max(ranks)}; checked"
    )
    return 0


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
