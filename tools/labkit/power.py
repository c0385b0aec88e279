"""The lab's power controller: TCP, one command per line, `ok ...` or `error ...` as answer.

    status|off|on|reboot NODE    off answers only when no process of the host is left
    delay SECONDS                every later act waits that long first
    fail on|off                  every later act and status is refused
    lie on|off                   off, on and reboot say ok and do nothing; status tells the same lie
"""

import asyncio

from .layout import HUB_ADDRESS, POWER_PORT, LabError, host_names

LINE_MAX = 256
DELAY_MAX_S = 600


class PowerController:
    """Knows nothing of namespaces: `power_on` and `power_off` are the supervisor's, per host name."""

    def __init__(self, hosts, power_on, power_off, log):
        self.hosts = hosts
        self.power_on = power_on
        self.power_off = power_off
        self.log = log
        self.delay_s = 0.0
        self.failing = False
        self.lying = False
        self.lies = {}

    async def start(self):
        self.server = await asyncio.start_server(self.serve, HUB_ADDRESS, POWER_PORT, limit=LINE_MAX)

    async def serve(self, reader, writer):
        try:
            while True:
                line = await reader.readline()
                if not line:
                    break
                reply = await self.command(line.decode(errors="replace"))
                writer.write(reply.encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # a line that is too long, or a caller that hung up
        finally:
            writer.close()

    async def command(self, line):
        words = line.split()
        if len(words) != 2:
            return "error usage: status|off|on|reboot NODE, delay SECONDS, fail on|off, lie on|off"
        verb, argument = words
        try:
            if verb in ("delay", "fail", "lie"):
                reply = self.turn_knob(verb, argument)
            elif verb in ("status", "off", "on", "reboot"):
                reply = await self.act(verb, self.find(argument))
            else:
                reply = f"error no command {verb!r}"
        except LabError as error:
            reply = f"error {error}"
        self.log("power", command=" ".join(words), reply=reply)
        return reply

    def find(self, node):
        """A host by name (hostB, hostb) or number (2)."""
        for number, name in enumerate(host_names(len(self.hosts)), 1):
            if node.lower() == name.lower() or node == str(number):
                return self.hosts[name]
        raise LabError(f"no such node {node}")

    def turn_knob(self, knob, value):
        if knob == "delay":
            try:
                seconds = float(value)
            except ValueError:
                seconds = -1
            if not 0 <= seconds <= DELAY_MAX_S:
                raise LabError(f"delay {value}: a number from 0 to {DELAY_MAX_S}")
            self.delay_s = seconds
            return f"ok delay {seconds:g}"
        if value not in ("on", "off"):
            raise LabError(f"{knob} {value}: on or off")
        if knob == "fail":
            self.failing = value == "on"
        else:
            self.lying = value == "on"
            self.lies.clear()
        return f"ok {knob} {value}"

    async def act(self, verb, host):
        self.log("power-begin", command=f"{verb} {host.name}")
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.failing:
            raise LabError("the power controller was told to fail")
        if verb == "status":
            real = "on" if host.powered() else "off"
            return f"ok {self.lies.get(host.name, real) if self.lying else real}"
        if self.lying:
            self.lies[host.name] = "off" if verb == "off" else "on"
            return f"ok {self.lies[host.name]}"
        if verb in ("off", "reboot"):
            await self.power_off(host)
        if verb in ("on", "reboot"):
            await self.power_on(host)
        return "ok on" if host.powered() else "ok off"
