"""The hub of a lab, on the supervisor's side: bridges, cables, the shared store and the observer.

All of it lives in the supervisor's own net and mount namespace and dies with the supervisor.
"""

import asyncio
import contextlib
import os
import signal
import time

from .layout import GUEST_HUB_ADDRESS, HUB_ADDRESS, SYSTEM_PATH, TICK_PORT, LabError, host_number, link_names

COMMAND_TIMEOUT_S = 20
STORE_START_TIMEOUT_S = 20
STORE_STOP_TIMEOUT_S = 10
NFS_PORT = 2049
MOUNT_PORT = 20048
ENVIRONMENT = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}

GANESHA_CONF = """\
NFS_CORE_PARAM {{
  Protocols = 3, 4;
  Bind_addr = {address};
  NFS_Port = {nfs_port};
  MNT_Port = {mount_port};
  Enable_NLM = false;
  Enable_RQUOTA = false;
  mount_path_pseudo = true;
}}
NFSV4 {{
  Graceless = true;
  Lease_Lifetime = 10;
  Grace_Period = 10;
  RecoveryBackend = fs;
}}
EXPORT {{
  Export_Id = 1;
  Path = {store};
  Pseudo = /pool;
  Access_Type = RW;
  Squash = No_Root_Squash;
  SecType = sys;
  Protocols = 3, 4;
  Transports = TCP;
  FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


async def run(argv, text=None):
    """Run a short command of the hub; LabError with its own words if it fails."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=ENVIRONMENT)
    try:
        output, _ = await asyncio.wait_for(process.communicate((text or "").encode()), COMMAND_TIMEOUT_S)
    except asyncio.TimeoutError:
        process.kill()
        raise LabError(f"{argv[0]} did not end within {COMMAND_TIMEOUT_S} s") from None
    if process.returncode != 0:
        raise LabError(f"{' '.join(argv)} failed ({process.returncode}): {output.decode(errors='replace').strip()}")
    return output.decode(errors="replace")


class Network:
    """The two bridges, the hosts' cables, and which of them are cut."""

    def __init__(self):
        self.lock = asyncio.Lock()

    async def start(self):
        lines = ["link set lo up"]
        for bridge, address in (("br-lab", HUB_ADDRESS), ("br-guest", GUEST_HUB_ADDRESS)):
            # A bridge without an address of its own takes its ports' lowest, and changes it when a host boots:
            # then the neighbours that the others have learned are wrong for a minute.
            lines += [f"link add {bridge} address {hardware_address(bridge, 254)} "
                      "type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                      f"addr add {address}/24 dev {bridge}", f"link set {bridge} up"]
        await run(["ip", "-batch", "-"], "\n".join(lines) + "\n")

    async def plug(self, host, pid):
        """Lay both cables from the hub to the host whose namespaces `pid` is in."""
        lines = []
        for link, peer, bridge in zip(link_names(host), ("eth0", "eth1"), ("br-lab", "br-guest")):
            lines += [f"link add {link} type veth peer name {peer} netns {pid} "
                      f"address {hardware_address(bridge, host_number(host))}", f"link set {link} master {bridge}"]
        await run(["ip", "-batch", "-"], "\n".join(lines) + "\n")

    async def unplug(self, host):
        """Take the hub's ends away at once; the kernel may already have done so."""
        for link in link_names(host):
            with contextlib.suppress(LabError):
                await run(["ip", "link", "del", link])

    async def apply_cuts(self, hosts):
        """Make links and filters match the `cuts` (of both, guest, in, out) of every host of `hosts()`."""
        async with self.lock:  # the last to come sees, and sets, the latest
            lines, outgoing, incoming = cut_commands(hosts())
            try:
                await run(["ip", "-force", "-batch", "-"], lines)
            except LabError as error:
                if "Cannot find device" not in str(error):  # a host that died just now
                    raise
            rules = ["add table bridge gantrylab", "delete table bridge gantrylab", "table bridge gantrylab {",
                     "chain outgoing { type filter hook prerouting priority -300; policy accept;", *outgoing, "}",
                     "chain incoming { type filter hook postrouting priority 300; policy accept;", *incoming, "}", "}"]
            await run(["nft", "-f", "-"], "\n".join(rules) + "\n")


def hardware_address(bridge, number):
    """Fixed, as a real card's: a host that boots again must be found under what the others remember."""
    return f"02:{'79' if bridge == 'br-lab' else '80'}:00:00:00:{number:02x}"


def cut_commands(hosts):
    """Text for ip, and nft rules of what hosts may not send and not receive."""
    lines, outgoing, incoming = [], [], []
    for host in hosts:
        lab, guest = link_names(host.name)
        lines.append(f"link set {lab} {'down' if 'both' in host.cuts else 'up'}")
        lines.append(f"link set {guest} {'down' if 'guest' in host.cuts else 'up'}")
        if "out" in host.cuts:
            outgoing.append(f'iifname "{lab}" drop')
        if "in" in host.cuts:
            incoming.append(f'oifname "{lab}" drop')
    return "\n".join([*lines, ""]), outgoing, incoming


class Store:
    """The NFS server: rpcbind and nfs-ganesha, exporting the state folder's store/ as /pool."""

    def __init__(self, state):
        self.state = state
        self.rpcbind = None
        self.ganesha = None

    def running(self):
        return self.ganesha is not None and self.ganesha.returncode is None

    def prepare(self):
        for folder in ("store", "nfs"):
            (self.state / folder).mkdir(exist_ok=True)
        (self.state / "nfs" / "ganesha.conf").write_text(GANESHA_CONF.format(
            address=HUB_ADDRESS, nfs_port=NFS_PORT, mount_port=MOUNT_PORT, store=self.state / "store"))

    async def start(self):
        if self.running():
            return
        folder = self.state / "nfs"
        if self.rpcbind is None or self.rpcbind.returncode is not None:
            self.rpcbind = await spawn(["rpcbind", "-w", "-f"], folder / "rpcbind.log")
            await self.wait_port(self.rpcbind, "rpcbind", "127.0.0.1", 111, folder / "rpcbind.log")
        log = folder / "ganesha.log"
        self.ganesha = await spawn(["ganesha.nfsd", "-F", "-f", str(folder / "ganesha.conf"), "-L", str(log),
                                    "-p", "/run/ganesha/ganesha.pid"], folder / "ganesha.out")
        for port in (NFS_PORT, MOUNT_PORT):
            await self.wait_port(self.ganesha, "nfs-ganesha", HUB_ADDRESS, port, log)

    async def wait_port(self, process, what, address, port, log):
        deadline = time.monotonic() + STORE_START_TIMEOUT_S
        while True:
            try:
                _, writer = await asyncio.open_connection(address, port)
                writer.close()
                return
            except OSError:
                pass
            if process.returncode is not None:
                raise LabError(f"{what} ended with {process.returncode} at its start; see {log}")
            if time.monotonic() > deadline:
                raise LabError(f"{what} does not listen on port {port} after {STORE_START_TIMEOUT_S} s; see {log}")
            await asyncio.sleep(0.02)

    async def stop(self, signum=signal.SIGTERM):
        if not self.running():
            return
        self.ganesha.send_signal(signum)
        try:
            await asyncio.wait_for(self.ganesha.wait(), STORE_STOP_TIMEOUT_S)
        except asyncio.TimeoutError:
            self.ganesha.kill()
            await self.ganesha.wait()


async def spawn(argv, log):
    """Start a daemon of the hub that stays in the foreground, its output appended to `log`."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        return await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL, stdout=output,
                                                    stderr=output, env=ENVIRONMENT)
    finally:
        os.close(output)


async def start_observer(state, build):
    """Start the build's gantry-observer, if it has been built; the process or None."""
    program = build / "tests" / "lab" / "gantry-observer"
    if not os.access(program, os.X_OK):
        return None
    process = await spawn([str(program), GUEST_HUB_ADDRESS, str(TICK_PORT), str(state / "observer.ticks")],
                          state / "observer.log")
    with contextlib.suppress(asyncio.TimeoutError):
        code = await asyncio.wait_for(process.wait(), 0.05)
        raise LabError(f"gantry-observer ended with {code} at its start; see {state / 'observer.log'}")
    return process
