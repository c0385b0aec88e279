"""The command line of tools/lab: words to Lab calls, answers to text."""

import argparse
import json
import os
import sys

from .lab import Lab
from .layout import LabError, service_environment


def build_parser():
    parser = argparse.ArgumentParser(prog="lab", description="A cluster of namespace hosts on this machine.")
    parser.add_argument("--name", default="lab", help="which lab (default: lab)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start a lab")
    up.add_argument("--hosts", type=int, default=3)
    up.add_argument("--build", help="meson build folder with the programs (default: build)")
    up.add_argument("--token", type=int, default=1000, help="corosync token in ms, for who writes corosync.conf")
    up.add_argument("--with-parent", type=int, metavar="PID", help="go down by itself when this process ends")
    commands.add_parser("down", help="end a lab and remove what it kept")
    status = commands.add_parser("status", help="hosts, store, observer")
    status.add_argument("--json", action="store_true")
    run = commands.add_parser("exec", help="run a command in a host")
    run.add_argument("host")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD...")
    for name, text in (("kill", "power loss"), ("on", "power on"), ("freeze", "stop every process of a host"),
                       ("thaw", "continue them")):
        commands.add_parser(name, help=text).add_argument("host")
    cut = commands.add_parser("cut", help="cut a host's cable")
    cut.add_argument("host")
    how = cut.add_mutually_exclusive_group()
    for direction in ("in", "out", "guest", "all"):
        how.add_argument(f"--{direction}", dest="direction", action="store_const", const=direction)
    heal = commands.add_parser("heal", help="mend a host's cables, or all")
    heal.add_argument("host", nargs="?")
    clock = commands.add_parser("clock", help="set the wall clock of a host's daemons off")
    clock.add_argument("host")
    clock.add_argument("seconds", type=int)
    store = commands.add_parser("store", help="the shared NFS store")
    store.add_argument("action", choices=("start", "stop", "kill"))
    service = commands.add_parser("service", help="a host's services")
    service.add_argument("host")
    service.add_argument("action", choices=("status", "start", "stop", "restart", "kill", "pause", "cont"))
    service.add_argument("service", nargs="?")
    commands.add_parser("power", help="a line to the power controller").add_argument("line", nargs="+")
    return parser


def print_status(status, as_json):
    if as_json:
        print(json.dumps(status, indent=2))
        return
    print(f"{'HOST':8} {'ADDRESS':12} {'POWER':6} {'PID':>7}  STATE")
    for host in status["hosts"]:
        state = ["frozen"] if host["frozen"] else []
        state += [f"cut:{cut}" for cut in host["cuts"]]
        state += ["watchdog armed"] if host["watchdog"] == "armed" else []
        print(f"{host['name']:8} {host['address']:12} {host['power']:6} {host['pid'] or '-':>7}  {' '.join(state)}")
    print(f"store {status['store']}, observer {status['observer']}")


def print_services(reply):
    for service in reply.get("services", [reply]):
        state = f"pid {service['pid']}" if service["pid"] else "stopped"
        if not service["pid"] and service["wanted"]:
            state = f"waits for {service['missing']}" if service["missing"] else "about to start"
        print(f"{service['name']:14} {state}, started {service['starts']} times, last exit {service['last_exit']}")


def run_command(lab, args):
    if args.command in ("up", "down"):
        getattr(lab, args.command)()
    elif args.command == "status":
        print_status(lab.status(), args.json)
    elif args.command == "exec":
        argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
        if not argv:
            raise LabError("exec: which command? lab exec HOST -- CMD...")
        entered = lab.enter_argv(args.host, argv)
        os.execvpe(entered[0], entered, service_environment())
    elif args.command == "cut":
        lab.cut(args.host, args.direction or "both")
    elif args.command == "clock":
        lab.clock(args.host, args.seconds)
    elif args.command == "store":
        lab.store(args.action)
    elif args.command == "service":
        if args.service is None and args.action != "status":
            raise LabError(f"service {args.action}: which? corosync, gantry-agent or clusterd")
        print_services(lab.service(args.host, args.action, args.service))
    elif args.command == "power":
        reply = lab.power(" ".join(args.line))
        print(reply)
        return 0 if reply.startswith("ok") else 1
    else:
        getattr(lab, args.command)(args.host)
    return 0


def main():
    args = build_parser().parse_args()
    try:
        if args.command == "up":
            lab = Lab(args.name, args.hosts, args.build, args.token, args.with_parent)
        else:
            lab = Lab(args.name)
        return run_command(lab, args)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
