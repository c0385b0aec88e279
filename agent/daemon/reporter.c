#include "agent/daemon/reporter.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/core/domain_word.h"
#include "agent/daemon/agent_clients.h"
#include "agent/daemon/domain_ready.h"
#include "agent/daemon/host_info.h"
#include "agent/daemon/migration_host.h"
#include "agent/daemon/volume_task.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pb.h"

#define REPORT_EVERY_MS 1000
#define REPORT_MIGRATING_MS 250

struct reporter {
	struct agent *agent;
	struct buf last; /* packed, without what changes all the time */
	uint64_t sent_ms;
	bool now;
};

struct reporter *reporter_new(struct agent *a)
{
	struct reporter *r = mem_alloc(sizeof(*r));

	r->agent = a;
	return r;
}

void reporter_free(struct reporter *r)
{
	buf_free(&r->last);
	free(r);
}

void reporter_send_now(struct agent *a)
{
	a->reporter->now = true;
	agent_wake(a);
}

/* User and system time of the process, from its stat file; fields 14 and 15 are counted behind the ") " of the name. */
static uint64_t reporter__cpu_time_ns(pid_t pid)
{
	_cleanup_free_ char *path = str_printf("/proc/%d/stat", (int)pid);
	uint64_t user = 0, system = 0;
	char line[1024];
	FILE *f = fopen(path, "re");
	char *end;

	if (f == NULL)
		return 0;
	if (fgets(line, sizeof(line), f) != NULL && (end = strrchr(line, ')')) != NULL)
		if (sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user,
			   &system) != 2)
			user = system = 0;
	fclose(f);
	return (user + system) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* A guest that was let go on after an error of its storage is believed when it has run for a while (domain_io.h). */
static enum actual_state reporter__actual(const struct domain *d)
{
	return d->io_error != NULL && (d->actual == ACTUAL_RUNNING || d->actual == ACTUAL_STARTING) ? ACTUAL_PAUSED
												     : d->actual;
}

static Gantry__DomainReport *reporter__domain(const struct domain *d, const Gantry__DomainGoal *goal, bool changing)
{
	Gantry__DomainReport *r = PB_NEW(Gantry__DomainReport, gantry__domain_report__init);
	struct domain_word word = domain_word(&(struct domain_facts){
	    .goal = goal,
	    .actual = reporter__actual(d),
	    .generation = d->generation,
	    .end = d->end,
	    .has_run = d->running_since_ms != 0,
	    .ended_generation = d->ended_generation,
	    .ended_state = d->ended_state,
	});

	pb_set_string(&r->uuid, d->uuid);
	r->generation = goal->generation;
	r->state = word.state;
	if (word.of == WORD_OF_END) {
		pb_set_string(&r->reason, d->ended_reason);
		r->guest_shutdown = d->ended_guest_shutdown;
		r->guest_reboot = d->ended_guest_reboot;
		r->hung = d->ended_hung;
		return r;
	}
	if (word.of == WORD_OF_OLDER)
		pb_set_string(&r->reason, "an older QEMU of the domain is being ended");
	else if (d->io_error != NULL)
		pb_set_string(&r->reason, d->io_error);
	else if (d->trouble != NULL)
		pb_set_string(&r->reason, d->trouble);
	else if (domain_ready_reason(d) != NULL)
		pb_set_string(&r->reason, domain_ready_reason(d));
	if (d->qemu != NULL && !d->qemu_dead && d->generation == goal->generation) {
		r->pid = qemu_process_pid(d->qemu);
		r->running_since_ms = d->running_since_ms;
		r->ready = d->ready;
		const char *accel;
		if (agent_accel_for(d->agent, d->spec, &accel, NULL) == 0)
			pb_set_string(&r->accel, accel);
		if (d->vnc != NULL)
			pb_set_string(&r->vnc, d->vnc);
		if (changing)
			r->cpu_time_ns = reporter__cpu_time_ns(r->pid);
	}
	return r;
}

static void reporter__pools(const struct agent *a, Gantry__AgentReport *report, bool changing)
{
	Gantry__PoolReport *const *pools;
	size_t n = storage_pool_reports(a->storage, &pools);

	for (size_t i = 0; i < n; i++) {
		Gantry__PoolReport *pool = pb_clone(pools[i]);
		if (!changing)
			pool->capacity_bytes = pool->free_bytes = 0;
		PB_APPEND(report, pools, pool);
	}
}

/* changing: with the figures that differ each time; those alone are no reason to send at once. */
static Gantry__AgentReport *reporter__build(const struct agent *a, bool changing)
{
	Gantry__AgentReport *report = PB_NEW(Gantry__AgentReport, gantry__agent_report__init);

	report->host = host_info_message(a);
	report->self_fenced = a->fenced;
	report->memory_free_bytes = host_info_memory_free(a);
	if (a->goals != NULL) {
		report->goals_index = a->goals->index;
		for (size_t i = 0; i < a->goals->n_domains; i++) {
			struct domain *d = agent_find_domain(a, a->goals->domains[i]->spec->uuid);
			if (d != NULL)
				PB_APPEND(report, domains, reporter__domain(d, a->goals->domains[i], changing));
		}
	}
	migration_host_report(a, report);
	volume_task_report(a, report);
	reporter__pools(a, report, changing);
	return report;
}

static void reporter__send(struct reporter *r)
{
	Gantry__AgentMessage message = GANTRY__AGENT_MESSAGE__INIT;

	message.body_case = GANTRY__AGENT_MESSAGE__BODY_REPORT;
	message.report = reporter__build(r->agent, true);
	agent_clients_broadcast(r->agent, &message);
	gantry__agent_report__free_unpacked(message.report, NULL);
	r->sent_ms = agent_now_ms(r->agent);
	r->now = false;
}

void reporter_update(struct reporter *r)
{
	uint64_t now = agent_now_ms(r->agent);
	uint64_t every = migration_host_active(r->agent) ? REPORT_MIGRATING_MS : REPORT_EVERY_MS;
	Gantry__AgentReport *report = reporter__build(r->agent, false);
	struct buf packed = {0};

	pb_pack(report, &packed);
	gantry__agent_report__free_unpacked(report, NULL);
	bool same = packed.len == r->last.len && memcmp(packed.data, r->last.data, packed.len) == 0;
	if (same && !r->now && now - r->sent_ms < every) {
		buf_free(&packed);
		return;
	}
	buf_free(&r->last);
	r->last = packed;
	reporter__send(r);
}
