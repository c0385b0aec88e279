#include "tests/sim/sim.h"

const char *const sim_fault_names[FAULT_KINDS] = {"power_loss", "daemon_crash", "daemon_hung", "frozen_host",
						  "partition", "flap", "slow_disk", "all_down"};

static void daemon_returns(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	if (life != h->life || (h->state != HOST_OFF && h->state != HOST_NO_DAEMON))
		return;
	sim_trace(s, "fault ends: host %u is back", h->id);
	host_start_daemon(s, h);
	group_changed(s, 20000 + sim_random(s, 100000));
}

static void host_down(struct sim *s, struct sim_host *h, bool power, uint64_t for_us)
{
	if (h->state != HOST_UP && h->state != HOST_FROZEN)
		return;
	host_stop_daemon(s, h);
	h->state = power ? HOST_OFF : HOST_NO_DAEMON;
	sim_after(s, for_us, daemon_returns, h, 0, NULL);
	group_changed(s, power ? 1000000 + sim_random(s, 1500000) : 20000);
}

static void goes_on(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	if (life != h->life)
		return;
	h->hung = false;
	if (h->state == HOST_FROZEN) {
		h->state = HOST_UP;
		/* Nothing happens at all when it was shorter than the token. */
		group_changed(s, 100 + sim_random(s, 200000));
	}
	sim_trace(s, "fault ends: host %u goes on", h->id);
	host_disk_answers(s, h);
	group_kick(s, h);
}

static void heal_cables(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	for (unsigned i = 1; i <= s->o.hosts; i++)
		s->part[i] = 0;
	sim_trace(s, "fault ends: cables are whole");
	group_changed(s, 100000 + sim_random(s, 1000000));
}

static void disk_ok(struct sim *s, struct sim_host *h, uint64_t life, uint64_t arg, void *p)
{
	h->slow_disk = false;
}

static void fault(struct sim *s, struct sim_host *none, uint64_t life, uint64_t arg, void *p)
{
	struct sim_host *h = &s->host[1 + sim_random(s, s->o.hosts)];
	enum sim_fault kind = sim_random(s, FAULT_KINDS);
	uint64_t for_us = 1000 + sim_random(s, sim_chance(s, 0.3) ? 40000000 : 4000000);

	if (s->quiet)
		return;
	sim_trace(s, "fault: %s, host %u, for %lu ms", sim_fault_names[kind], h->id, for_us / 1000);
	s->r->faults[kind]++;
	switch (kind) {
	case FAULT_POWER_LOSS:
		host_down(s, h, true, for_us);
		break;
	case FAULT_DAEMON_CRASH:
		host_down(s, h, false, for_us / 8);
		break;
	case FAULT_DAEMON_HUNG:
		h->hung = h->state == HOST_UP;
		sim_after(s, for_us, goes_on, h, 0, NULL);
		break;
	case FAULT_FROZEN_HOST:
		if (h->state != HOST_UP)
			break;
		h->state = HOST_FROZEN;
		sim_after(s, for_us, goes_on, h, 0, NULL);
		if (for_us > 1000000)
			group_changed(s, 1000000 + sim_random(s, 1000000));
		break;
	case FAULT_PARTITION:
	case FAULT_FLAP:
		for (unsigned i = 1; i <= s->o.hosts; i++)
			s->part[i] = sim_random(s, 2 + sim_random(s, 2));
		sim_after(s, kind == FAULT_FLAP ? for_us / 50 : for_us, heal_cables, NULL, 0, NULL);
		group_changed(s, 1000000 + sim_random(s, 1500000));
		break;
	case FAULT_SLOW_DISK:
		h->slow_disk = true;
		sim_after(s, for_us, disk_ok, h, 0, NULL);
		break;
	case FAULT_ALL_DOWN:
		for (unsigned i = 1; i <= s->o.hosts; i++)
			host_down(s, &s->host[i], true, for_us / 4 + sim_random(s, 3000000));
		break;
	default:
		break;
	}
	sim_after(s, (uint64_t)(2e6 / s->o.fault_rate * (sim_random(s, 1000) / 1000.0)), fault, NULL, 0, NULL);
}

void faults_schedule(struct sim *s)
{
	sim_after(s, 0, fault, NULL, 0, NULL);
}

void faults_heal_all(struct sim *s)
{
	sim_trace(s, "all faults end");
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_host *h = &s->host[i];

		s->part[i] = 0;
		h->slow_disk = h->hung = false;
		if (h->state == HOST_OFF || h->state == HOST_NO_DAEMON)
			host_start_daemon(s, h);
		if (h->state == HOST_FROZEN)
			h->state = HOST_UP;
		host_disk_answers(s, h);
		group_kick(s, h);
	}
	group_changed(s, 500000);
}
