/* The shared pool: the shipped lease protocol over files in memory. A lease call is done at one instant (test_lease_model tries the
 * interleavings of its file operations); what varies is how long the way there and back takes, and whether the answer arrives. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "lib/limits.h"
#include "storage/lease.h"
#include "tests/sim/mem_pool.h"
#include "tests/sim/sim_agent_internal.h"

#define CALL_TIMES_OUT_US (10 * SECOND)
#define PROBE_EVERY_US (10 * SECOND)

/* Each volume is a pool of its own: the folder of its lease is all that is ever asked for. */
struct sim_volume {
	struct mem_files files;
	struct mem_pool mem;
	char pool[64], name[64];
	bool exists;
};

struct sim_store { struct sim_volume **volumes; size_t n, probed; };

struct store_call {
	enum store_what what;
	uint64_t domain, generation, next_generation;
	char next_host[32], break_host[32], proof[SIM_TEXT];
	uint64_t break_generation;
	store_done done;
	int rc;
	char text[SIM_TEXT];
};

/* ---- volumes ---- */

static void on_probe(struct sim *s, struct sim_host *none, uint64_t arg, void *p);

/* storage/lease.c reads the wall clock, for its records and for texts that end up in the log: here it is the world's (the programs
 * are linked with --wrap). */
static const struct sim *clock_of;
static uint64_t clock_reads;

int __real_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);

int __wrap_clock_gettime(clockid_t id, struct timespec *ret)
{
	uint64_t us;

	if (id != CLOCK_REALTIME || !clock_of)
		return __real_clock_gettime(id, ret);
	/* No two claims have the same incarnation. */
	us = 1700000000000000ull + clock_of->now_us + clock_reads++ % 1000;
	*ret = (struct timespec){.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};
	return 0;
}

void store_new(struct sim *s)
{
	clock_of = s;
	clock_reads = 0;
	s->store = mem_alloc(sizeof(*s->store));
	sim_after(s, PROBE_EVERY_US, NULL, LIFE_POWER, on_probe, 0, NULL, NULL);
}

void store_free(struct sim *s)
{
	clock_of = NULL;
	if (!s->store)
		return;
	for (size_t i = 0; i < s->store->n; i++) {
		mem_files_clear(&s->store->volumes[i]->files);
		free(s->store->volumes[i]);
	}
	free(s->store->volumes);
	free(s->store);
	s->store = NULL;
}

struct sim_volume *store_volume(struct sim *s, const char *pool, const char *name)
{
	struct sim_store *st = s->store;
	struct sim_volume *v;

	for (size_t i = 0; i < st->n; i++)
		if (!strcmp(st->volumes[i]->name, name) && !strcmp(st->volumes[i]->pool, pool))
			return st->volumes[i];
	v = mem_alloc(sizeof(*v));
	mem_pool_init(&v->mem, v->pool, &v->files);
	snprintf(v->pool, sizeof(v->pool), "%s", pool);
	snprintf(v->name, sizeof(v->name), "%s", name);
	st->volumes = mem_realloc(st->volumes, (st->n + 1) * sizeof(*st->volumes));
	st->volumes[st->n++] = v;
	return v;
}

const char *store_volume_name(const struct sim_volume *v)
{
	return v->name;
}

static bool reaches(const struct sim *s, const struct sim_host *h)
{
	return !h->store_cut && net_reaches_store(s, h);
}

int store_make(struct sim *s, struct sim_host *h, const char *pool, const char *name)
{
	struct sim_volume *v = store_volume(s, pool, name);

	if (!reaches(s, h))
		return -ETIMEDOUT;
	if (v->exists)
		return -EEXIST;
	v->exists = true;
	return 0;
}

int store_delete(struct sim *s, struct sim_host *h, const char *pool, const char *name)
{
	struct sim_volume *v = store_volume(s, pool, name);
	int rc = reaches(s, h) ? lease_remove_all(&v->mem.fs, name, NULL) : -ETIMEDOUT;

	if (rc == 0)
		v->exists = false;
	return rc;
}

bool store_is_held_by(struct sim_volume *v, const char *host, uint64_t generation)
{
	struct buf text = {0};
	char wanted[LIMIT_LEASE_HOST_CHARS + 16], number[40];
	bool held;

	snprintf(wanted, sizeof(wanted), "held by %s for ", host);
	snprintf(number, sizeof(number), "(generation %llu)", (unsigned long long)generation);
	held = lease_describe(&v->mem.fs, v->name, &text, NULL) == 0 && strstr(buf_str(&text), wanted) && strstr(buf_str(&text), number);
	buf_free(&text);
	return held;
}

/* ---- the lease by itself ---- */

/* A clusterd that errs: a host without any right asks for the lease of a guest that runs elsewhere. The log is right in this world, so
 * that nobody else ever tries; the lease must refuse whatever clusterd believes. */
static void probe(struct sim *s, struct sim_volume *v, const struct sim_vm *vm)
{
	struct sim_host *intruder = &s->host[vm->q.host->id % s->o.hosts + 1];
	struct lease_id id = {.volume = v->name, .host = intruder->name, .domain_uuid = vm->q.uuid, .domain_name = vm->q.name};

	if (intruder == vm->q.host || !store_is_held_by(v, vm->q.host->name, vm->q.generation))
		return;
	for (int newer = 0; newer <= 1; newer++) {
		id.generation = newer ? vm->q.generation + 1 : vm->q.generation - 1;
		if (id.generation && lease_acquire(&v->mem.fs, &id, NULL, NULL) == 0)
			sim_violation(s, newer ? "two-writers" : "stale-generation", "%s is given the lease of %s for generation %llu without a proof; %s holds it with %llu",
				      intruder->name, v->name, (unsigned long long)id.generation, vm->q.host->name, (unsigned long long)vm->q.generation);
	}
}

static void on_probe(struct sim *s, struct sim_host *none, uint64_t arg, void *p)
{
	struct sim_volume *v = s->store->n ? s->store->volumes[s->store->probed++ % s->store->n] : NULL;

	sim_after(s, PROBE_EVERY_US, NULL, LIFE_POWER, on_probe, 0, NULL, NULL);
	for (unsigned i = 1; v && i <= s->o.hosts; i++)
		for (struct sim_qemu *q = qemu_first(&s->host[i]); q; q = q->next)
			for (size_t k = 0; k < vm_of(q)->shape.n_volumes; k++)
				if (vm_of(q)->shape.volumes[k] == v && q->phase == QEMU_RUNNING) {
					probe(s, v, vm_of(q));
					return;
				}
}

/* ---- leases ---- */

static struct lease_id id_of(const struct sim_domain *d, const struct sim_volume *v, uint64_t generation)
{
	return (struct lease_id){.volume = v->name, .host = d->agent->host->name, .domain_uuid = d->shape.uuid, .domain_name = d->shape.name,
				 .generation = generation};
}

/* The texts of the lease tell ages by the true clock: a run must not depend on it. */
static void text_of(struct store_call *c, int rc, const struct err *err)
{
	char *age = NULL;

	snprintf(c->text, sizeof(c->text), "%.*s", SIM_TEXT - 1, err->text[0] ? err->text : strerror(-rc));
	age = strstr(c->text, ", written");
	if (!age)
		age = strstr(c->text, ", its record");
	if (age)
		*age = '\0';
}

static int check_all(const struct sim_domain *d, struct store_call *c)
{
	for (size_t i = 0; i < d->shape.n_volumes; i++) {
		if (d->shape.volumes[i]->exists)
			continue;
		snprintf(c->text, sizeof(c->text), "volume %s is not in the pool", d->shape.volumes[i]->name);
		return -ENOENT;
	}
	return 0;
}

static int release_all(const struct sim_domain *d, uint64_t generation)
{
	int rc = 0;

	for (size_t i = 0; i < d->shape.n_volumes; i++) {
		struct lease_id id = id_of(d, d->shape.volumes[i], generation);
		int one = lease_release(&d->shape.volumes[i]->mem.fs, &id, NULL);

		rc = rc ? rc : one;
	}
	return rc;
}

/* All or none: what was taken is released before the answer. */
static int acquire_all(struct sim *s, const struct sim_domain *d, struct store_call *c)
{
	struct lease_break brk = {.host = c->break_host, .generation = c->break_generation, .proof = c->proof};
	struct err err = {0};
	int rc = 0;

	for (size_t i = 0; i < d->shape.n_volumes && rc == 0; i++) {
		struct sim_volume *v = d->shape.volumes[i];
		struct lease_id id = id_of(d, v, c->generation);

		rc = lease_acquire(&v->mem.fs, &id, c->break_host[0] ? &brk : NULL, &err);
		if (rc == 0)
			check_lease_taken(s, d->agent->host, v->name, d->shape.uuid, c->generation);
	}
	if (rc < 0) {
		text_of(c, rc, &err);
		if (c->what == STORE_ACQUIRE)
			release_all(d, c->generation);
	}
	sim_trace(s, "%s: leases of %s, generation %llu: %s", d->agent->host->name, d->shape.name, (unsigned long long)c->generation, rc ? c->text : "taken");
	return rc;
}

static int hand_over_all(struct sim *s, const struct sim_domain *d, struct store_call *c)
{
	struct err err = {0};
	int rc = 0;

	for (size_t i = 0; i < d->shape.n_volumes && rc == 0; i++) {
		struct lease_id id = id_of(d, d->shape.volumes[i], c->generation);

		rc = lease_hand_over(&d->shape.volumes[i]->mem.fs, &id, c->next_host, c->next_generation, &err);
	}
	if (rc < 0)
		text_of(c, rc, &err);
	sim_trace(s, "%s: leases of %s are handed to %s, generation %llu: %s", d->agent->host->name, d->shape.name, c->next_host,
		  (unsigned long long)c->next_generation, rc ? c->text : "done");
	return rc;
}

static int call_do(struct sim *s, const struct sim_domain *d, struct store_call *c)
{
	switch (c->what) {
	case STORE_CHECK:
		return check_all(d, c);
	case STORE_ACQUIRE:
	case STORE_TAKE_BACK:
		return acquire_all(s, d, c);
	case STORE_HAND_OVER:
		return hand_over_all(s, d, c);
	case STORE_RELEASE:
		return release_all(d, c->generation);
	}
	return -EINVAL;
}

static void on_answer(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct store_call *c = p;
	struct sim_domain *d;

	AGENT_EVENT(on_answer);
	d = domain_by_no(h->agent, c->domain);
	if (d) {
		d->pending_store--;
		c->done(s, d, c->rc, c->text);
		domain_changed(s, d);
	}
	free(c);
}

static void no_answer(struct sim *s, struct sim_host *h, struct store_call *c)
{
	c->rc = -ETIMEDOUT;
	snprintf(c->text, sizeof(c->text), "the pool does not answer");
	agent_after(s, h->agent, CALL_TIMES_OUT_US, on_answer, 0, c);
}

/* It was done; does its answer come back? */
static void on_way_back(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	AGENT_EVENT(on_way_back);
	if (reaches(s, h))
		on_answer(s, h, arg, p);
	else
		no_answer(s, h, p);
}

static void on_server(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct store_call *c = p;
	const struct sim_domain *d;

	AGENT_EVENT(on_server);
	d = domain_by_no(h->agent, c->domain);
	if (!d) {
		free(c);
		return;
	}
	if (!reaches(s, h)) {
		no_answer(s, h, c);
		return;
	}
	c->rc = call_do(s, d, c);
	agent_after(s, h->agent, sim_between(s, 300, 3 * MS), on_way_back, 0, c);
}

void store_ask(struct sim *s, struct sim_domain *d, enum store_what what, const char *next_host, uint64_t next_generation, store_done done)
{
	struct store_call *c = mem_alloc(sizeof(*c));

	c->what = what;
	c->domain = d->no;
	c->generation = d->generation;
	c->done = done;
	c->next_generation = next_generation;
	snprintf(c->next_host, sizeof(c->next_host), "%s", next_host ? next_host : "");
	if (d->has_goal && d->goal.generation == d->generation) {
		memcpy(c->break_host, d->lease_from, sizeof(c->break_host));
		memcpy(c->proof, d->lease_proof, sizeof(c->proof));
		c->break_generation = d->goal.lease_from_generation;
	}
	agent_after(s, d->agent, sim_chance(s, 0.97) ? sim_between(s, 300, 5 * MS) : sim_between(s, 5 * MS, 400 * MS), on_server, 0, c);
}

/* ---- renewal ---- */

static void on_renewal(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_domain *d;

	AGENT_EVENT(on_renewal);
	for (d = h->agent->domains; d && !(d->leases && d->leases->no == arg); d = d->next)
		;
	if (!d)
		return;
	agent_after(s, h->agent, LEASE_RENEW_MS * MS, on_renewal, arg, NULL);
	if (!d->leases->held || !reaches(s, h))
		return;
	for (size_t i = 0; i < d->shape.n_volumes; i++) {
		struct sim_volume *v = d->shape.volumes[i];
		struct lease_id id = id_of(d, v, d->leases->generation);
		struct store_call c = {0};
		struct err err = {0};
		int rc;

		/* Nobody has written since: the answer is known. */
		if (v->files.version == d->leases->seen[i])
			continue;
		rc = lease_renew(&v->mem.fs, &id, &err);
		d->leases->seen[i] = v->files.version;
		if (rc != -ESTALE)
			continue;
		text_of(&c, rc, &err);
		sim_trace(s, "%s: lease of %s is lost: %s", h->name, d->shape.name, c.text);
		d->leases->held = false;
		store_lease_lost(s, d, c.text);
		return;
	}
}

void store_renewal_begin(struct sim *s, struct sim_domain *d)
{
	if (!d->leases) {
		d->leases = mem_alloc(sizeof(*d->leases));
		d->leases->no = ++s->seq;
		d->leases->generation = d->generation;
		agent_after(s, d->agent, LEASE_RENEW_MS * MS, on_renewal, d->leases->no, NULL);
	}
	d->leases->held = true;
	/* The first renewal removes what no longer counts: it is always done. */
	for (size_t i = 0; i < SIM_DOMAIN_VOLUMES; i++)
		d->leases->seen[i] = NEVER;
}

/* ---- shapes ---- */

/* The ends of a uuid differ most. */
uint64_t shape_key(const char *uuid)
{
	uint64_t first = 0, last = 0;
	size_t len = strlen(uuid);

	if (len >= sizeof(first)) {
		memcpy(&first, uuid, sizeof(first));
		memcpy(&last, uuid + len - sizeof(last), sizeof(last));
	}
	return (first ^ last << 7 ^ last >> 57) * 0x9e3779b97f4a7c15ull;
}

void shape_of(struct sim *s, const Gantry__DomainSpec *spec, struct sim_shape *ret)
{
	*ret = (struct sim_shape){.key = shape_key(spec->uuid), .memory_bytes = spec->memory_bytes};
	snprintf(ret->uuid, sizeof(ret->uuid), "%s", spec->uuid);
	snprintf(ret->name, sizeof(ret->name), "%s", spec->name);
	for (size_t i = 0; i < spec->n_disks && ret->n_volumes < SIM_DOMAIN_VOLUMES; i++) {
		const Gantry__Disk *disk = spec->disks[i];

		if (disk->pool[0] && !disk->empty && !disk->readonly)
			ret->volumes[ret->n_volumes++] = store_volume(s, disk->pool, disk->volume);
	}
}
