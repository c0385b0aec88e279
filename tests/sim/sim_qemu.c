/* QEMU processes and their guests: what they do by themselves, and what they answer. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_agent_internal.h"

#define EVENT_TAKES_US 200         /* from QEMU to the agent, and answers too: one socket, in order */
#define START_FAILS 0.002
#define GIVES_UP 0.01              /* a migration that QEMU declares failed by itself */
#define STREAM_LOOK_US (100 * MS)
#define RESCUE_TAKES_MAX_US (30 * SECOND)

struct vm_call { enum vm_command command; uint64_t asked_us, life; };   /* life: of the agent that asked */
struct vm_answer { enum vm_command command; int rc; bool running; };

struct sim_vm *vm_of(const struct sim_qemu *q)
{
	return (struct sim_vm *)q;
}

struct sim_qemu *qemu_first(const struct sim_host *h)
{
	return h->agent && h->agent->vms ? &h->agent->vms->q : NULL;
}

struct sim_vm *vm_find(const struct sim_host *h, uint64_t serial)
{
	for (struct sim_qemu *q = qemu_first(h); q && serial; q = q->next)
		if (q->serial == serial)
			return vm_of(q);
	return NULL;
}

static uint64_t fact(uint64_t kind, const struct sim_vm *vm)
{
	return kind << 56 ^ (uint64_t)vm->q.host->id << 48 ^ vm->q.generation << 32 ^ vm->shape.key ^ vm->q.serial << 20;
}

/* ---- to the agent ---- */

static void on_event(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_domain *d;

	AGENT_EVENT(on_event);
	d = domain_of_vm(h->agent, arg >> 8);
	if (d && d->qmp_ready && !d->vm_dead)
		domain_vm_event(s, d, (enum vm_event)(arg & 0xff));
}

static void tell(struct sim *s, const struct sim_vm *vm, enum vm_event event)
{
	if (agent_is_running(vm->q.host))
		agent_after(s, vm->q.host->agent, EVENT_TAKES_US, on_event, vm->q.serial << 8 | event, NULL);
}

static void on_ready(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_domain *d;

	AGENT_EVENT(on_ready);
	d = domain_of_vm(h->agent, arg);
	if (d && !d->vm_dead && !d->qmp_ready) {
		d->qmp_ready = true;
		domain_vm_ready(s, d);
	}
}

static void on_exit_seen(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_domain *d;

	AGENT_EVENT(on_exit_seen);
	d = domain_of_vm(h->agent, arg);
	if (d && !d->vm_dead)
		domain_vm_exited(s, d);
}

static void on_answer(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct vm_answer *answer = p;
	struct sim_domain *d;

	AGENT_EVENT(on_answer);
	d = domain_of_vm(h->agent, arg);
	if (d && !d->vm_dead)
		domain_answered(s, d, answer->command, answer->rc, answer->running);
	free(answer);
}

/* ---- what the guest does ---- */

static void runs(struct sim *s, struct sim_vm *vm)
{
	bool opens = !vm->open_rw;

	vm->open_rw = true;
	vm->q.phase = QEMU_RUNNING;
	sim_hash(s, fact(1, vm));
	sim_trace(s, "%s: QEMU of %s (generation %llu) runs", vm->q.host->name, vm->q.name, (unsigned long long)vm->q.generation);
	if (opens)
		check_writer(s, &vm->q);
	check_vcpus_run(s, &vm->q);
}

static void pauses(struct sim *s, struct sim_vm *vm, const char *why)
{
	vm->q.phase = QEMU_PAUSED;
	sim_hash(s, fact(2, vm));
	sim_trace(s, "%s: QEMU of %s (generation %llu) is paused: %s", vm->q.host->name, vm->q.name, (unsigned long long)vm->q.generation, why);
	tell(s, vm, EVENT_STOP);
}

static void dies(struct sim *s, struct sim_vm *vm, const char *how)
{
	struct sim_host *h = vm->q.host;
	struct sim_vm **p = &h->agent->vms;

	vm->q.phase = QEMU_DEAD;
	sim_hash(s, fact(3, vm));
	sim_trace(s, "%s: QEMU of %s (generation %llu) ends: %s", h->name, vm->q.name, (unsigned long long)vm->q.generation, how);
	if (agent_is_running(h))
		agent_after(s, h->agent, 3 * EVENT_TAKES_US, on_exit_seen, vm->q.serial, NULL);
	while (*p != vm)
		p = (struct sim_vm **)&(*p)->q.next;
	*p = (struct sim_vm *)vm->q.next;
	free(vm);
}

/* ---- beginning and end of a process ---- */

static void is_up(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_vm *vm = vm_find(h, arg);

	if (!vm)
		return;
	if (s->now_us < vm->answers_from_us) {
		sim_after(s, vm->answers_from_us - s->now_us, h, LIFE_POWER, is_up, arg, NULL, NULL);
		return;
	}
	if (vm->q.phase == QEMU_STARTING)
		vm->q.phase = vm->copy ? QEMU_INCOMING : QEMU_PAUSED;
	if (agent_is_running(h))
		agent_after(s, h->agent, EVENT_TAKES_US, on_ready, arg, NULL);
}

static void ends_now(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_vm *vm = vm_find(h, arg);

	if (vm)
		dies(s, vm, p);
}

/* `how` is static. */
static void ends_in(struct sim *s, struct sim_vm *vm, uint64_t us, const char *how)
{
	vm->dying = true;
	sim_after(s, us, vm->q.host, LIFE_POWER, ends_now, vm->q.serial, (void *)how, NULL);
}

uint64_t vm_start(struct sim *s, struct sim_host *h, const struct sim_shape *shape, uint64_t generation, bool copy, uint64_t job_id)
{
	struct sim_vm *vm = mem_alloc(sizeof(*vm)), **end = &h->agent->vms;
	uint64_t takes = sim_between(s, 30 * MS, 300 * MS), serial;

	vm->q.host = h;
	vm->q.serial = serial = ++s->seq;
	memcpy(vm->q.uuid, shape->uuid, sizeof(vm->q.uuid));
	memcpy(vm->q.name, shape->name, sizeof(vm->q.name));
	vm->q.generation = generation;
	vm->q.job_id = copy ? job_id : 0;
	vm->q.phase = QEMU_STARTING;
	vm->q.started_us = s->now_us;
	vm->shape = *shape;
	vm->copy = copy;
	vm->open_rw = !copy; /* a copy opens its images when it is told to run */
	while (*end)
		end = (struct sim_vm **)&(*end)->q.next;
	*end = vm;
	s->r->starts += !copy;
	sim_hash(s, fact(4, vm));
	sim_trace(s, "%s: QEMU of %s is started for generation %llu%s", h->name, vm->q.name, (unsigned long long)generation, copy ? ", to receive it" : "");
	check_started(s, &vm->q);
	if (vm->open_rw)
		check_writer(s, &vm->q);
	if (s->now_us < h->agent->starts_fail_until || (!s->quiet && sim_chance(s, START_FAILS)))
		ends_in(s, vm, takes, "it cannot start");
	else
		sim_after(s, takes, h, LIFE_POWER, is_up, serial, NULL, NULL);
	return serial;
}

void vm_adopt(struct sim *s, struct sim_vm *vm)
{
	sim_after(s, sim_between(s, 5 * MS, 50 * MS), vm->q.host, LIFE_POWER, is_up, vm->q.serial, NULL, NULL);
}

void vm_kill(struct sim *s, struct sim_vm *vm)
{
	/* Mostly at once; what is on its way to a slow disk holds it up. */
	ends_in(s, vm, sim_chance(s, 0.95) ? sim_between(s, 500, 20 * MS) : sim_between(s, 20 * MS, 500 * MS), "killed");
}

void vm_is_complete(struct sim *s, struct sim_vm *vm)
{
	vm->q.phase = QEMU_COMPLETE;
	sim_trace(s, "%s: the copy of %s (generation %llu) is complete", vm->q.host->name, vm->q.name, (unsigned long long)vm->q.generation);
	check_copy_complete(s, vm);
}

void vm_is_activated(struct sim *s, struct sim_vm *vm)
{
	vm->activated = true;
	if (vm->q.phase != QEMU_RUNNING)
		vm->q.phase = QEMU_PAUSED;
}

void vm_feeder_gone(struct sim *s, struct sim_host *h)
{
	for (struct sim_qemu *q = qemu_first(h); q; q = q->next)
		if ((q->phase == QEMU_INCOMING || (q->phase == QEMU_STARTING && vm_of(q)->copy)) && !vm_of(q)->image_whole)
			ends_in(s, vm_of(q), sim_between(s, 1 * MS, 50 * MS), "the stream of its migration has ended");
}

void vm_all_lost(struct sim *s, struct sim_host *h)
{
	while (h->agent->vms) {
		struct sim_vm *vm = h->agent->vms;

		h->agent->vms = (struct sim_vm *)vm->q.next;
		free(vm);
	}
}

/* ---- the stream of a migration ---- */

static void stream_event(struct sim *s, struct sim_host *h, uint64_t arg, void *p);

static void stream_look_in(struct sim *s, struct sim_vm *vm, uint64_t us)
{
	sim_after(s, us, vm->q.host, LIFE_POWER, stream_event, vm->q.serial << 8 | (vm->stream_no & 0xff), NULL, NULL);
}

/* QEMU alone: the migration failed, the guest goes on here (MIGRATION.md, hazard 1). */
static void gives_up(struct sim *s, struct sim_vm *vm)
{
	bool held = vm->stream >= STREAM_PRESWITCH;

	sim_trace(s, "%s: QEMU of %s gives its migration up by itself", vm->q.host->name, vm->q.name);
	vm->stream = STREAM_NONE;
	vm->stream_no++;
	if (held && !vm->paused_before) {
		runs(s, vm);
		tell(s, vm, EVENT_RESUME);
	}
	tell(s, vm, EVENT_MIGRATION_FAILED);
}

static void stream_step(struct sim *s, struct sim_vm *vm)
{
	struct sim_vm *copy = NULL;
	bool moves = migration_stream_moves(s, vm, &copy);

	if (!moves) {
		/* Stalled, for ever unless somebody cancels. What little is left may fit into the buffers. */
		if (vm->stream == STREAM_ACTIVE && sim_chance(s, 0.002)) {
			vm->stream = STREAM_PRESWITCH;
			if (vm->q.phase == QEMU_RUNNING)
				pauses(s, vm, "the stream of its migration is stalled");
			return;
		}
		stream_look_in(s, vm, STREAM_LOOK_US);
		return;
	}
	if (!s->quiet && sim_chance(s, GIVES_UP)) {
		gives_up(s, vm);
	} else if (vm->stream == STREAM_ACTIVE) {
		vm->stream = STREAM_PRESWITCH;
		if (vm->q.phase == QEMU_RUNNING)
			pauses(s, vm, "pre-switchover");
		tell(s, vm, EVENT_PRESWITCH);
	} else if (vm->stream == STREAM_DEVICE && copy) {
		copy->image_whole = true;
		vm->stream = STREAM_SENT;
		tell(s, vm, EVENT_SENT);
	}
}

static void stream_event(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_vm *vm = vm_find(h, arg >> 8);

	if (!vm || (vm->stream_no & 0xff) != (arg & 0xff) || vm->dying)
		return;
	if (vm->stream != STREAM_ACTIVE && vm->stream != STREAM_DEVICE)
		return;
	if (s->now_us < vm->answers_from_us)
		stream_look_in(s, vm, STREAM_LOOK_US);
	else
		stream_step(s, vm);
}

static int stream_begins(struct sim *s, struct sim_vm *vm)
{
	uint64_t total = sim_chance(s, 0.7) ? sim_between(s, 200 * MS, 3 * SECOND) : sim_between(s, 3 * SECOND, 20 * SECOND);

	if (vm->stream != STREAM_NONE)
		return -1;
	vm->paused_before = vm->q.phase == QEMU_PAUSED;
	vm->stream = STREAM_ACTIVE;
	vm->stream_no++;
	stream_look_in(s, vm, total);
	return 0;
}

static int stream_continues(struct sim *s, struct sim_vm *vm)
{
	if (vm->stream != STREAM_PRESWITCH)
		return -1;
	vm->stream = STREAM_DEVICE;
	vm->open_rw = false; /* given up before the last bytes go out: the other side may open them then */
	stream_look_in(s, vm, sim_between(s, 5 * MS, 300 * MS));
	return 0;
}

/* migrate_cancel, yank or the cut of its socket: QEMU resumes by itself; after `completed` it is told to. */
static void stream_cancelled(struct sim *s, struct sim_vm *vm, bool rescue)
{
	bool held = vm->stream >= STREAM_PRESWITCH || (rescue && vm->q.phase == QEMU_PAUSED);

	if (vm->stream == STREAM_NONE && !rescue)
		return;
	vm->stream = STREAM_NONE;
	vm->stream_no++;
	if (held && !vm->paused_before) {
		runs(s, vm);
		tell(s, vm, EVENT_RESUME);
	}
}

/* ---- commands ---- */

static int go_on(struct sim *s, struct sim_vm *vm)
{
	if (vm->copy && !vm->image_whole)
		return -1;
	if (vm->q.phase != QEMU_RUNNING) {
		runs(s, vm);
		tell(s, vm, EVENT_RESUME);
	}
	return 0;
}

static void powers_down(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_vm *vm = vm_find(h, arg);

	if (!vm || vm->q.phase != QEMU_RUNNING || vm->dying)
		return;
	sim_trace(s, "%s: the guest %s shuts down", h->name, vm->q.name);
	tell(s, vm, EVENT_SHUTDOWN);
	ends_in(s, vm, sim_between(s, 5 * MS, 50 * MS), "its guest has shut down");
}

static int obeys(struct sim *s, struct sim_vm *vm, enum vm_command command)
{
	switch (command) {
	case VM_FIRST_CONT:
	case VM_CONT:
	case VM_ACTIVATE_CONT:
		return go_on(s, vm);
	case VM_STOP:
	case VM_RESTOP:
		if (vm->q.phase == QEMU_RUNNING)
			pauses(s, vm, "told to");
		return 0;
	case VM_POWERDOWN:
		/* A guest that is busy does not hear it the first time. */
		if (vm->q.phase == QEMU_RUNNING && sim_chance(s, 0.9))
			sim_after(s, sim_between(s, 500 * MS, 8 * SECOND), vm->q.host, LIFE_POWER, powers_down, vm->q.serial, NULL, NULL);
		return 0;
	case VM_QUIT:
		ends_in(s, vm, sim_chance(s, 0.9) ? sim_between(s, 2 * MS, 200 * MS) : sim_between(s, 200 * MS, 5 * SECOND), "told to quit");
		return 0;
	case VM_MIGRATE:
		return stream_begins(s, vm);
	case VM_CONTINUE:
		return stream_continues(s, vm);
	case VM_CANCEL:
	case VM_RESCUE:
		stream_cancelled(s, vm, command == VM_RESCUE);
		return 0;
	case VM_VERIFY:
		return vm->image_whole ? 0 : -1;
	default:
		return 0;
	}
}

static void on_command(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_vm *vm = vm_find(h, arg);
	struct vm_call *call = p;
	struct vm_answer *answer;
	int rc = -1;

	/* One that is dead answers by its death. */
	if (!vm) {
		free(call);
		return;
	}
	bool late = call->command == VM_RESCUE && s->now_us - call->asked_us >= RESCUE_TAKES_MAX_US;
	if (s->now_us < vm->answers_from_us && !late) {
		uint64_t wait = vm->answers_from_us - s->now_us;

		sim_after(s, call->command == VM_RESCUE && wait > SECOND ? SECOND : wait, h, LIFE_POWER, on_command, arg, call, free);
		return;
	}
	if (!late)
		rc = obeys(s, vm, call->command);
	if (agent_is_running(h) && h->life[LIFE_AGENT] == call->life) {
		answer = mem_alloc(sizeof(*answer));
		*answer = (struct vm_answer){call->command, rc, vm->q.phase == QEMU_RUNNING};
		agent_after(s, h->agent, EVENT_TAKES_US, on_answer, arg, answer);
	}
	free(call);
}

void vm_ask(struct sim *s, struct sim_host *h, uint64_t serial, enum vm_command command)
{
	struct vm_call *call = mem_alloc(sizeof(*call));
	uint64_t takes = command == VM_RESCUE ? sim_between(s, 5 * MS, 400 * MS) : sim_between(s, 200, 3 * MS);

	*call = (struct vm_call){command, s->now_us, h->life[LIFE_AGENT]};
	sim_after(s, takes, h, LIFE_POWER, on_command, serial, call, free);
}

/* ---- faults ---- */

/* The n-th of those that do something just now; NULL: there are not so many. */
static struct sim_vm *nth_vm(struct sim *s, uint64_t n)
{
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		if (s->host[i].frozen)
			continue;
		for (struct sim_qemu *q = qemu_first(&s->host[i]); q; q = q->next)
			if (n-- == 0)
				return vm_of(q);
	}
	return NULL;
}

static struct sim_vm *any_vm(struct sim *s)
{
	uint64_t n = 0;

	while (nth_vm(s, n))
		n++;
	return n ? nth_vm(s, sim_random(s, n)) : NULL;
}

bool qemu_fault_crash(struct sim *s)
{
	struct sim_vm *vm = any_vm(s);

	if (vm)
		dies(s, vm, "it crashed");
	return vm != NULL;
}

static void hang_over(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_vm *vm = vm_find(h, arg);

	if (!vm || s->now_us < vm->answers_from_us)
		return;
	vm->q.hung = false;
	sim_trace(s, "%s: QEMU of %s answers again", h->name, vm->q.name);
}

bool qemu_fault_hang(struct sim *s)
{
	struct sim_vm *vm = any_vm(s);

	if (!vm)
		return false;
	vm->q.hung = true;
	vm->answers_from_us = s->now_us + sim_between(s, 2 * SECOND, 60 * SECOND);
	sim_trace(s, "%s: QEMU of %s hangs", vm->q.host->name, vm->q.name);
	sim_after(s, vm->answers_from_us - s->now_us, vm->q.host, LIFE_POWER, hang_over, vm->q.serial, NULL, NULL);
	return true;
}

void qemu_fault_starts_fail(struct sim *s, struct sim_host *h, uint64_t for_us)
{
	if (h->agent)
		h->agent->starts_fail_until = s->now_us + for_us;
	if (for_us)
		sim_trace(s, "%s: no QEMU can start for %llu s", h->name, (unsigned long long)(for_us / SECOND));
}

bool qemu_guest_ends(struct sim *s, const char *uuid, bool panic)
{
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		if (s->host[i].frozen)
			continue;
		for (struct sim_qemu *q = qemu_first(&s->host[i]); q; q = q->next) {
			if (q->phase != QEMU_RUNNING || vm_of(q)->dying || strcmp(q->uuid, uuid) != 0)
				continue;
			sim_trace(s, "%s: the guest %s %s", q->host->name, q->name, panic ? "panics" : "powers off");
			tell(s, vm_of(q), panic ? EVENT_PANIC : EVENT_SHUTDOWN);
			ends_in(s, vm_of(q), sim_between(s, 5 * MS, 50 * MS), panic ? "its guest has panicked" : "its guest has powered off");
			return true;
		}
	}
	return false;
}
