"""Command line of rank_table.py: builds, merges, permutes, checks and draws HCCL rank tables."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from pangu_alpha.cli.options import Differs, add_options, add_rack_option, natural, path_text, positive
from pangu_alpha.cli.parser import Parser
from pangu_alpha.cluster.chips import CHIPS
from pangu_alpha.cluster.drawing import draw
from pangu_alpha.cluster.host_names import server_ids
from pangu_alpha.cluster.placement import Placement, in_order, permute
from pangu_alpha.cluster.tables.build import (
    Host,
    build,
    device_ids,
    hosts_by_rule,
    read_hccn_conf,
    read_hosts,
)
from pangu_alpha.cluster.tables.check import VERSIONS, check_document, spread
from pangu_alpha.cluster.tables.other_forms import converted
from pangu_alpha.cluster.tables.problem import RankTableError
from pangu_alpha.cluster.tables.rank_table import RankTable, from_document, merge, parse, read, write
from pangu_alpha.config.parallel import ParallelPlan
from pangu_alpha.files.paths import expand_path
from pangu_alpha.files.reading import read_text
from pangu_alpha.files.shown import quoted, shown
from pangu_alpha.parallel.mesh import Mesh

_EXAMPLES = """\
examples:
  rank_table.py build --hosts hosts.txt --output table.json
  rank_table.py build --hccn 10.0.0.1=node1/hccn.conf 10.0.0.2=node2/hccn.conf --output table.json
  rank_table.py build --servers 4 --server-ip '10.0.0.{server+1}' \\
      --device-ip '10.{device%4+1}.{server}.{device+1}' --output table.json
  rank_table.py build --from modelarts.json --output table.json
  rank_table.py merge node1.json node2.json --output table.json
  rank_table.py permute table.json --dp 16 --tp 8 --pp 16 --servers-per-rack 16 \\
      --placement 'rack=data server=stage device=tensor' --output placed.json
  rank_table.py check placed.json --dp 16 --tp 8 --pp 16
  rank_table.py draw placed.json --dp 16 --tp 8 --pp 16 --servers-per-rack 16 --output placed.png

exit code: 0 good; 1 check found problems; 2 wrong options, or a file that cannot be used
"""

_BUILD = """\
A host list has one server a line: id, devices (a number, slots=8, or ids such as 0-3; 8 where left out),
addresses with commas or the path of its hccn.conf. user@ is left out; node[01-04] stands for four servers. As
YAML: `hosts:`, a list of mappings with server, devices, device_ips, hccn_conf, super_pod, super_device_ids.
Ranks follow the list.

Address rules: {server} and {device} are numbers from 0; +N, //N and %N may follow the name, applied from the
left: 10.{device%4}.{server}.{device+1}
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rank_table.py",
        description="Build, merge, permute, check and draw HCCL rank tables.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _build_options(_command(commands, "build", "a table from a host list, hccn.conf files or rules", _BUILD))
    one = _command(commands, "merge", "one table of several; every device keeps its rank", "")
    one.add_argument(
        "tables", nargs="+", type=path_text, metavar="TABLE", help="tables of other servers each"
    )
    one.add_argument(
        "--renumber", action="store_true", help="give out ranks anew, in the order of the tables"
    )
    _output(one)
    one = _command(commands, "permute", "give ranks to devices so that axes run where they should", "")
    one.add_argument(
        "tables", nargs=1, type=path_text, metavar="TABLE", help="a table that lists servers rack by rack"
    )
    how = one.add_mutually_exclusive_group(required=True)
    how.add_argument("--placement", metavar="LEVELS", help="axes on racks, servers of a rack, devices of a "
        "server, outermost first: 'rack=data server=stage device=tensor'")  # fmt: skip
    how.add_argument("--order", type=_axes, metavar="AXES", help="axes from neighbouring devices outwards, "
        "whatever racks and servers hold: tp,pp,dp")  # fmt: skip
    _mesh_options(one, required=True)
    add_rack_option(one)
    _output(one)
    one = _command(commands, "check", "list every rule a table breaks; exit code 1 if there is one", "")
    one.add_argument("tables", nargs="+", type=path_text, metavar="TABLE")
    one.add_argument("--partial", action="store_true", help="the table is of some servers of a cluster: "
        "its ranks need not be whole")  # fmt: skip
    _mesh_options(one, required=False)
    one = _command(commands, "draw", "a picture of the grid a table realises", "")
    one.add_argument(
        "tables", nargs=1, type=path_text, metavar="TABLE", help="a table that lists servers rack by rack"
    )
    one.add_argument("--output", required=True, type=path_text, metavar="PNG", help="picture to write")
    _mesh_options(one, required=True)
    add_rack_option(one)
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
    parser.add_argument("--chip", choices=CHIPS, help="chip of the servers (default: 910C for version 1.2, "
        "910B-Box16 where a server has more than 8 devices or those of its second ring, else 910A, the "
        "strictest)")  # fmt: skip
    return parser


def _build_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--hosts", type=path_text, metavar="FILE", help="host list, text or YAML")
    source.add_argument("--hccn", nargs="+", action="extend", metavar="SERVER=FILE", help="the hccn.conf of "
        "each server")  # fmt: skip
    source.add_argument("--from", dest="source", type=path_text, metavar="FILE", help="a table of another "
        "form: group_list of ModelArts and of template 2")  # fmt: skip
    source.add_argument("--servers", type=positive, metavar="N", help="N like servers with addresses by rule")
    add("--server-ip", metavar="RULE", help="rule of the servers' addresses, with --servers")
    add("--device-ip", metavar="RULE", help="rule of the addresses of devices that the source gives none for")
    add("--devices", metavar="IDS", help="devices of every server, with --hccn or --servers: a number or ids "
        "(default: all of hccn.conf; 8)")  # fmt: skip
    add("--version", choices=VERSIONS, default="1.0", help="1.2 for super pods of 910C (default: 1.0)")
    add("--first-rank", type=natural, default=0, metavar="R", help="rank of the first device, for a part "
        "that is merged later (default: 0)")  # fmt: skip
    _output(parser)


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", required=True, type=path_text, metavar="TABLE", help="rank table to write"
    )


def _mesh_options(parser: argparse.ArgumentParser, required: bool) -> None:
    grid = Differs(required=required, shown="the table is not checked for a grid")
    add_options(parser, ParallelPlan, dp=grid, tp=grid, pp=grid)


def _axes(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs rank_table.py; raises ValueError for what the user can fix."""
    options = _parser().parse_args(arguments)
    commands = {"build": _build, "merge": _merge, "permute": _permute, "check": _check, "draw": _draw}
    return commands[options.command](options)


def _build(options: argparse.Namespace) -> int:
    if options.source is not None:
        return _write(_converted(options), options)
    table = build(_hosts(options), options.version, options.first_rank, options.device_ip)
    return _write(table, options, partial=options.first_rank > 0)


def _hosts(options: argparse.Namespace) -> list[Host]:
    if (options.servers is None) != (options.server_ip is None):
        raise ValueError("--servers and --server-ip belong together; give both or neither")
    if options.hosts is not None:
        if options.devices is not None:
            raise ValueError("--devices: the host list names the devices; write them there")
        return read_hosts(options.hosts)
    if options.servers is not None:
        devices = device_ids(8 if options.devices is None else options.devices)
        return hosts_by_rule(options.servers, options.server_ip, devices)
    return [_hccn_host(pair, options.devices) for pair in options.hccn]


def _converted(options: argparse.Namespace) -> RankTable:
    """Converts the table of --from, which already contains everything."""
    for name in ("devices", "device_ip", "first_rank"):
        if getattr(options, name):
            name = "--" + name.replace("_", "-")
            raise ValueError(f"{name}: the file of --from has devices, addresses and ranks; leave it out")
    if options.version != "1.0":
        raise ValueError(f"--version: {options.source} does not say which super pods there are; leave it out")
    document = converted(parse(read_text(options.source), options.source), options.source)
    if problems := check_document(document, chip=options.chip):
        raise RankTableError(options.source, problems)
    return from_document(document)


def _hccn_host(pair: str, devices: str | None) -> Host:
    server, equals, path = pair.partition("=")
    if not (server and equals and path):
        raise ValueError(f"--hccn: {quoted(pair)} must be SERVER=FILE")
    names = server_ids(server)
    if len(names) != 1:
        raise ValueError(f"--hccn: {quoted(server)} names {len(names)} servers; each has a file of its own")
    addresses = read_hccn_conf(path := expand_path(path))
    ids = tuple(addresses) if devices is None else device_ids(devices)
    for device in ids:
        if device not in addresses:
            raise ValueError(f"{path}: no address_{device}; correct --devices or the file")
    return Host(names[0], ids, tuple(addresses[device] for device in ids))


def _merge(options: argparse.Namespace) -> int:
    tables = [(path, read(path, chip=options.chip, partial=True)) for path in options.tables]
    return _write(merge(tables, options.renumber), options)


def _permute(options: argparse.Namespace) -> int:
    mesh = Mesh(options.dp, options.tp, options.pp)
    table = read(options.tables[0], chip=options.chip)
    if options.order is not None:
        if options.servers_per_rack is not None:
            raise ValueError("--servers-per-rack: belongs to --placement; --order needs no racks")
        return _write(in_order(table, mesh, options.order), options)
    per_rack = len(table.servers) if options.servers_per_rack is None else options.servers_per_rack
    return _write(permute(table, mesh, Placement.parse(options.placement), per_rack), options)


def _check(options: argparse.Namespace) -> int:
    degrees = (options.dp, options.tp, options.pp)
    if None in degrees and degrees != (None, None, None):
        raise ValueError("--dp, --tp and --pp belong together; give all or none")
    mesh = None if None in degrees else Mesh(*degrees)
    broken = False
    for path in options.tables:
        document = parse(read_text(path), path)
        problems = check_document(document, mesh, options.chip, options.partial)
        broken |= bool(problems)
        print(f"{shown(path)}: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
        for problem in problems:
            print(f"  - {problem}")
        if mesh is not None and not problems and (note := spread(document, mesh)) is not None:
            print(f"  note: {note}")
    return int(broken)


def _draw(options: argparse.Namespace) -> int:
    table = read(options.tables[0], chip=options.chip)
    mesh = Mesh(options.dp, options.tp, options.pp)
    draw(table, mesh, options.output, options.servers_per_rack)
    print(f"{options.output}: {mesh}, {len(table.servers)} server(s)")
    return 0


def _write(table: RankTable, options: argparse.Namespace, partial: bool = False) -> int:
    replaced = ", the old file is replaced" if os.path.lexists(options.output) else ""
    write(table, options.output, options.chip, partial)
    ranks = [rank for server in table.servers for rank in server.ranks]
    print(
        f"{options.output}: version {table.version}, {len(table.servers)} server(s), {table.size} devices, "
        f"ranks {min(ranks)} to {max(ranks)}; checked{replaced}"
    )
    return 0


if __name__ == "__main__":
    from pangu_alpha.cli import run_main

    run_main(main)
