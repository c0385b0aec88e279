/* Random commands, half of them nonsense, from a seed: two models that get the same log are the same after each entry, so is
 * one that begins from a snapshot, and what must always hold holds. MODEL_SEED=N runs that one seed, and prints it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/limits.h"
#include "tests/unit/model_fixture.h"

#define SEEDS 16
#define STEPS 1500
#define DOMAINS 6
#define HOSTS 4
#define GIB (1024ull << 20)

#define BODY(x) GANTRY__COMMAND__BODY_##x
#define DOM(x) GANTRY__DOMAIN_STATE__DOMAIN_STATE_##x
#define IS(a, b) (strcmp((a), (b)) == 0)

struct rng { uint64_t s; };

/* splitmix64 */
static uint32_t rnd(struct rng *r, uint32_t n)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (uint32_t)((z ^ (z >> 31)) >> 32) % n;
}

static const char *host_name(struct rng *r)
{
	static const char *const names[] = {"host1", "host2", "host3", "host4", "host9"};

	return names[rnd(r, 20) ? rnd(r, HOSTS) : 4];
}

static void uuid_of(char *buf, size_t size, uint32_t n)
{
	snprintf(buf, size, "00000000-0000-4000-8000-%012u", n);
}

static Gantry__DomainSpec *random_spec(struct rng *r)
{
	Gantry__DomainSpec *s = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	uint32_t n = rnd(r, DOMAINS);
	char text[64];

	snprintf(text, sizeof(text), "vm%u", n);
	pb_set_string(&s->name, text);
	uuid_of(text, sizeof(text), rnd(r, 10) ? n : rnd(r, DOMAINS));
	pb_set_string(&s->uuid, text);
	s->memory_bytes = (1 + rnd(r, 4)) * GIB;
	s->vcpus = 1 + rnd(r, 3);
	s->on_crash = rnd(r, 4) ? 0 : rnd(r, 8);
	s->on_poweroff = rnd(r, 3) ? 0 : rnd(r, 8);
	if (rnd(r, 2)) {
		Gantry__Disk *disk = PB_NEW(Gantry__Disk, gantry__disk__init);

		pb_set_string(&disk->pool, "pool");
		snprintf(text, sizeof(text), "vol%u", rnd(r, 4));
		pb_set_string(&disk->volume, text);
		disk->readonly = !rnd(r, 3);
		PB_APPEND(s, disks, disk);
	}
	return s;
}

static const Gantry__Domain *any_domain(const struct model *m, struct rng *r)
{
	return m->state->n_domains ? m->state->domains[rnd(r, (uint32_t)m->state->n_domains)] : NULL;
}

static uint64_t any_job(const struct model *m, struct rng *r)
{
	size_t n = m->state->n_jobs;

	/* Mostly one that is under way. */
	for (size_t i = n; rnd(r, 8) && i-- > 0;)
		if (m->state->jobs[i]->kind == GANTRY__JOB_KIND__JOB_KIND_MIGRATE && m->state->jobs[i]->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING)
			return m->state->jobs[i]->id;
	return n ? m->state->jobs[rnd(r, (uint32_t)n)]->id : rnd(r, 3);
}

static void random_host_state(const struct model *m, struct rng *r, Gantry__Command *c)
{
	Gantry__CmdHostState *b = PB_NEW(Gantry__CmdHostState, gantry__cmd_host_state__init);
	const char *name = host_name(r);
	const Gantry__Host *h = model_host(m, name);
	static const int next[] = {1, 2, 3, 4, 1, 1};

	c->body_case = BODY(HOST_STATE);
	c->host_state = b;
	pb_set_string(&b->name, name);
	b->state = h && rnd(r, 8) ? (h->state == GANTRY__HOST_STATE__HOST_STATE_ONLINE ? (rnd(r, 5) ? 1 : 2) :
				     h->state == GANTRY__HOST_STATE__HOST_STATE_LOST ? (rnd(r, 2) ? 1 : 3) :
				     h->state == GANTRY__HOST_STATE__HOST_STATE_FENCING ? (rnd(r, 2) ? 1 : 4) : 1) : next[rnd(r, 6)];
	b->incarnation = h ? h->incarnation + (b->state == 1) + !rnd(r, 20) : 1;
	if (rnd(r, 10))
		pb_set_string(&b->proof, "fence: off");
}

static void random_host_info(struct rng *r, Gantry__Command *c)
{
	Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);

	c->body_case = BODY(HOST_INFO);
	c->host_info = PB_NEW(Gantry__CmdHostInfo, gantry__cmd_host_info__init);
	c->host_info->host = h;
	pb_set_string(&h->name, host_name(r));
	h->agent_connected = rnd(r, 20) != 0;
	h->memory_bytes = 8 * GIB;
	h->cpus = 2;
	pb_set_string(&h->accel, "tcg");
}

static void random_domain_command(const struct model *m, struct rng *r, Gantry__Command *c)
{
	const Gantry__Domain *d = any_domain(m, r);
	const char *name = d ? d->spec->name : "vm0";

	switch (rnd(r, 4)) {
	case 0:
		c->body_case = BODY(DOMAIN_CREATE);
		c->domain_create = PB_NEW(Gantry__CmdDomainCreate, gantry__cmd_domain_create__init);
		c->domain_create->spec = random_spec(r);
		c->domain_create->start = rnd(r, 2);
		c->domain_create->no_ha = !rnd(r, 3);
		if (!rnd(r, 4))
			pb_set_string(&c->domain_create->host, host_name(r));
		break;
	case 1:
		c->body_case = BODY(DOMAIN_START);
		c->domain_start = PB_NEW(Gantry__CmdDomainStart, gantry__cmd_domain_start__init);
		pb_set_string(&c->domain_start->domain, name);
		break;
	case 2:
		c->body_case = BODY(DOMAIN_GOAL);
		c->domain_goal = PB_NEW(Gantry__CmdDomainGoal, gantry__cmd_domain_goal__init);
		pb_set_string(&c->domain_goal->domain, name);
		c->domain_goal->goal = rnd(r, 5) ? 1 + rnd(r, 3) : 0;
		pb_set_string(&c->domain_goal->how, rnd(r, 2) ? "destroy" : rnd(r, 5) ? "shutdown" : "gently");
		break;
	default:
		if (rnd(r, 3))
			break;
		c->body_case = BODY(DOMAIN_UNDEFINE);
		c->domain_undefine = PB_NEW(Gantry__CmdDomainUndefine, gantry__cmd_domain_undefine__init);
		pb_set_string(&c->domain_undefine->domain, name);
	}
}

static void random_owner_word(const struct model *m, struct rng *r, Gantry__Command *c)
{
	const Gantry__Domain *d = any_domain(m, r);
	char uuid[64];

	uuid_of(uuid, sizeof(uuid), rnd(r, DOMAINS));
	switch (rnd(r, 8)) {
	case 0:
	case 1:
		c->body_case = BODY(DOMAIN_PLACE);
		c->domain_place = PB_NEW(Gantry__CmdDomainPlace, gantry__cmd_domain_place__init);
		pb_set_string(&c->domain_place->uuid, d ? d->spec->uuid : uuid);
		pb_set_string(&c->domain_place->host, host_name(r));
		c->domain_place->generation = (d ? d->generation : 0) + (rnd(r, 8) ? 1 : rnd(r, 4));
		break;
	case 2:
		c->body_case = BODY(DOMAIN_WAIT);
		c->domain_wait = PB_NEW(Gantry__CmdDomainWait, gantry__cmd_domain_wait__init);
		pb_set_string(&c->domain_wait->uuid, d ? d->spec->uuid : uuid);
		c->domain_wait->generation = (d ? d->generation : 0) + !rnd(r, 6);
		pb_set_string(&c->domain_wait->reason, rnd(r, 2) ? "no room" : "no host");
		break;
	default:
		c->body_case = BODY(DOMAIN_REPORT);
		c->domain_report = PB_NEW(Gantry__CmdDomainReport, gantry__cmd_domain_report__init);
		pb_set_string(&c->domain_report->uuid, d ? d->spec->uuid : uuid);
		pb_set_string(&c->domain_report->host, d && rnd(r, 8) ? d->host : host_name(r));
		c->domain_report->generation = d ? d->generation - (d->generation && !rnd(r, 8)) : 1;
		c->domain_report->state = !rnd(r, 6) ? rnd(r, 9) : d && d->goal == GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED ? DOM(STOPPED) :
					  d && d->goal == GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_PAUSED ? DOM(PAUSED) : DOM(RUNNING);
		c->domain_report->guest_shutdown = !rnd(r, 4);
		c->domain_report->host_fault = !rnd(r, 4);
		pb_set_string(&c->domain_report->reason, "so it is");
	}
}

static void random_migration(const struct model *m, struct rng *r, Gantry__Command *c)
{
	const Gantry__Domain *d = any_domain(m, r);
	uint64_t id = any_job(m, r);
	const Gantry__Job *job = model_job(m, id);

	switch (rnd(r, 8)) {
	case 0:
	case 1:
	case 2:
		c->body_case = BODY(MIGRATE_START);
		c->migrate_start = PB_NEW(Gantry__CmdMigrateStart, gantry__cmd_migrate_start__init);
		pb_set_string(&c->migrate_start->domain, d ? d->spec->name : "vm0");
		pb_set_string(&c->migrate_start->destination, host_name(r));
		break;
	case 3:
		c->body_case = BODY(JOB_STAGE);
		c->job_stage = PB_NEW(Gantry__CmdJobStage, gantry__cmd_job_stage__init);
		c->job_stage->job_id = id;
		c->job_stage->stage = rnd(r, 8);
		pb_set_string(&c->job_stage->host, job && rnd(r, 4) ? job->source : host_name(r));
		break;
	case 4:
	case 5:
		c->body_case = BODY(MIGRATE_COMMIT);
		c->migrate_commit = PB_NEW(Gantry__CmdMigrateCommit, gantry__cmd_migrate_commit__init);
		c->migrate_commit->job_id = id;
		c->migrate_commit->generation = (job ? job->generation : 1) + !rnd(r, 8);
		break;
	case 6:
		c->body_case = BODY(MIGRATE_ABORT);
		c->migrate_abort = PB_NEW(Gantry__CmdMigrateAbort, gantry__cmd_migrate_abort__init);
		c->migrate_abort->job_id = id;
		c->migrate_abort->cancelled = rnd(r, 2);
		break;
	default:
		c->body_case = rnd(r, 3) ? BODY(JOB_DONE) : BODY(JOB_CANCEL);
		if (c->body_case == BODY(JOB_DONE)) {
			c->job_done = PB_NEW(Gantry__CmdJobDone, gantry__cmd_job_done__init);
			c->job_done->job_id = id;
		} else {
			c->job_cancel = PB_NEW(Gantry__CmdJobCancel, gantry__cmd_job_cancel__init);
			c->job_cancel->job_id = id;
		}
	}
}

static void random_storage(const struct model *m, struct rng *r, Gantry__Command *c)
{
	char name[16];
	const Gantry__Volume *v;

	snprintf(name, sizeof(name), "vol%u", rnd(r, 4));
	v = model_volume(m, "pool", name);
	switch (rnd(r, 5)) {
	case 0:
		c->body_case = BODY(VOLUME_CREATE);
		c->volume_create = PB_NEW(Gantry__CmdVolumeCreate, gantry__cmd_volume_create__init);
		c->volume_create->volume = PB_NEW(Gantry__Volume, gantry__volume__init);
		pb_set_string(&c->volume_create->volume->pool, "pool");
		pb_set_string(&c->volume_create->volume->name, name);
		pb_set_string(&c->volume_create->volume->host, host_name(r));
		c->volume_create->volume->size_bytes = GIB;
		break;
	case 1:
		if (rnd(r, 4))
			break;
		c->body_case = BODY(VOLUME_DELETE);
		c->volume_delete = PB_NEW(Gantry__CmdVolumeDelete, gantry__cmd_volume_delete__init);
		pb_set_string(&c->volume_delete->pool, "pool");
		pb_set_string(&c->volume_delete->name, name);
		break;
	default:
		c->body_case = BODY(VOLUME_REPORT);
		c->volume_report = PB_NEW(Gantry__CmdVolumeReport, gantry__cmd_volume_report__init);
		pb_set_string(&c->volume_report->pool, "pool");
		pb_set_string(&c->volume_report->name, name);
		pb_set_string(&c->volume_report->host, v ? v->host : host_name(r));
		c->volume_report->job_id = v ? v->job_id : 1;
		c->volume_report->ok = rnd(r, 4) != 0;
	}
}

static void random_membership(const struct model *m, struct rng *r, Gantry__Command *c)
{
	uint32_t node = 1 + rnd(r, HOSTS);
	char text[32];

	if (rnd(r, 6)) {
		Gantry__Host *h = PB_NEW(Gantry__Host, gantry__host__init);

		c->body_case = BODY(HOST_ADD);
		c->host_add = PB_NEW(Gantry__CmdHostAdd, gantry__cmd_host_add__init);
		c->host_add->host = h;
		h->node_id = node;
		snprintf(text, sizeof(text), "host%u", node);
		pb_set_string(&h->name, text);
		snprintf(text, sizeof(text), "10.79.0.%u", node);
		pb_set_string(&h->address, text);
	} else {
		c->body_case = BODY(HOST_REMOVE);
		c->host_remove = PB_NEW(Gantry__CmdHostRemove, gantry__cmd_host_remove__init);
		snprintf(text, sizeof(text), "host%u", node);
		pb_set_string(&c->host_remove->name, text);
		c->host_remove->node_id = node;
	}
}

static Gantry__Command *random_command(const struct model *m, struct rng *r)
{
	Gantry__Command *c = PB_NEW(Gantry__Command, gantry__command__init);
	uint32_t kind = rnd(r, 100);

	if (kind < 10)
		random_host_state(m, r, c);
	else if (kind < 18)
		random_host_info(r, c);
	else if (kind < 34)
		random_domain_command(m, r, c);
	else if (kind < 70)
		random_owner_word(m, r, c);
	else if (kind < 88)
		random_migration(m, r, c);
	else if (kind < 96)
		random_storage(m, r, c);
	else if (kind < 98)
		random_membership(m, r, c);
	else {
		c->body_case = BODY(FENCE_CONFIRM);
		c->fence_confirm = PB_NEW(Gantry__CmdFenceConfirm, gantry__cmd_fence_confirm__init);
		pb_set_string(&c->fence_confirm->host, host_name(r));
	}
	if (!rnd(r, 10)) {
		pb_set_string(&c->client, rnd(r, 2) ? "a" : "b");
		c->seq = rnd(r, 40);
	}
	c->proposer = rnd(r, HOSTS + 2);
	return c;
}

/* ---- what always holds ---------------------------------------------------------- */

static void check_sorted(const Gantry__ClusterModel *s)
{
	for (size_t i = 1; i < s->n_hosts; i++)
		assert_true(s->hosts[i - 1]->node_id < s->hosts[i]->node_id);
	for (size_t i = 1; i < s->n_domains; i++)
		assert_true(s->domains[i - 1]->id < s->domains[i]->id);
	for (size_t i = 1; i < s->n_volumes; i++)
		assert_true(strcmp(s->volumes[i - 1]->name, s->volumes[i]->name) < 0);
	for (size_t i = 1; i < s->n_jobs; i++)
		assert_true(s->jobs[i - 1]->id < s->jobs[i]->id);
	for (size_t i = 1; i < s->n_events; i++)
		assert_true(s->events[i - 1]->id + 1 == s->events[i]->id);
	for (size_t i = 1; i < s->n_voters; i++)
		assert_true(s->voters[i - 1] < s->voters[i]);
	assert_true(s->n_voters > 0);
	assert_true(s->n_events <= LIMIT_EVENTS_KEPT && s->n_requests <= LIMIT_REQUESTS_KEPT);
	assert_true(s->n_jobs <= LIMIT_JOBS_KEPT + DOMAINS + 4 + 1);
}

static bool is_owned(Gantry__DomainState state)
{
	return state == DOM(STARTING) || state == DOM(RUNNING) || state == DOM(PAUSED) || state == DOM(STOPPING);
}

static void check_jobs(const struct model *m)
{
	for (size_t i = 0; i < m->state->n_jobs; i++) {
		const Gantry__Job *j = m->state->jobs[i];
		const Gantry__Domain *d = *j->domain_uuid ? model_domain(m, j->domain_uuid) : NULL;

		if (j->state != GANTRY__JOB_STATE__JOB_STATE_RUNNING) {
			assert_int_equal(j->token.len, 0);
			continue;
		}
		if (!*j->domain_uuid)
			continue;
		/* One task at a time has a domain in hand, and each knows the other. */
		assert_non_null(d);
		assert_int_equal(d->job_id, j->id);
		if (j->kind != GANTRY__JOB_KIND__JOB_KIND_MIGRATE)
			continue;
		assert_string_equal(d->host, j->committed ? j->destination : j->source);
		assert_int_equal(d->generation, j->committed ? j->generation : j->generation - 1);
	}
}

static void check_state(const struct model *m)
{
	check_sorted(m->state);
	check_jobs(m);
	for (size_t i = 0; i < m->state->n_domains; i++) {
		const Gantry__Domain *d = m->state->domains[i];
		const Gantry__Job *j = d->job_id ? model_job(m, d->job_id) : NULL;
		const Gantry__Host *h = *d->host ? model_host(m, d->host) : NULL;

		assert_int_equal(is_owned(d->state), *d->host != '\0');
		if (*d->host) {
			assert_non_null(h);
			assert_int_not_equal(h->state, GANTRY__HOST_STATE__HOST_STATE_DEAD);
		}
		if (d->job_id)
			assert_true(j && j->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING);
		/* Somebody gave it up with a proof. */
		if (d->generation && !*d->host)
			assert_true(*d->previous_host && *d->previous_proof);
	}
	for (size_t i = 0; i < m->state->n_hosts; i++) {
		const struct model fresh = {.state = m->state};
		uint64_t memory, counted;
		uint32_t vcpus, counted_vcpus;

		model_host_use(m, m->state->hosts[i]->name, &memory, &vcpus);
		assert_true(memory <= 8 * GIB);
		model_host_use(&fresh, m->state->hosts[i]->name, &counted, &counted_vcpus);
		assert_true(memory == counted && vcpus == counted_vcpus);
	}
}

/* Who may take a domain from its owner: the owner, its proven death, COMMIT of a migration. */
static void check_step(const struct model *before, const struct model *after, const Gantry__Command *c)
{
	for (size_t i = 0; i < after->state->n_domains; i++) {
		const Gantry__Domain *now = after->state->domains[i];
		const Gantry__Domain *was = model_domain(before, now->spec->uuid);

		if (!was || was->id != now->id) {
			assert_int_equal(now->generation, 0);
			continue;
		}
		assert_true(now->generation == was->generation || now->generation == was->generation + 1);
		if (now->generation != was->generation)
			assert_true(*now->host);
		/* Only a word about this very generation counts. */
		if (c->body_case == BODY(DOMAIN_REPORT) && !pb_equal(was, now)) {
			assert_int_equal(c->domain_report->generation, was->generation);
			assert_string_equal(c->domain_report->host, was->host);
		}
		if (c->body_case == BODY(MIGRATE_COMMIT) && !pb_equal(was, now))
			assert_int_equal(c->migrate_commit->generation, was->generation + 1);
		if (IS(now->host, was->host))
			continue;
		if (*now->host)
			assert_int_equal(now->generation, was->generation + 1);
		if (*was->host && *now->host)
			assert_int_equal(c->body_case, BODY(MIGRATE_COMMIT));
		if (!*was->host)
			assert_int_equal(c->body_case, BODY(DOMAIN_PLACE));
		if (*was->host && !*now->host && c->body_case == BODY(DOMAIN_REPORT))
			assert_string_equal(c->domain_report->host, was->host);
		else if (*was->host && !*now->host)
			assert_int_equal(model_host(after, was->host)->state, GANTRY__HOST_STATE__HOST_STATE_DEAD);
	}
	for (size_t i = 0; i < before->state->n_domains; i++)
		if (*before->state->domains[i]->host)
			assert_non_null(model_domain(after, before->state->domains[i]->spec->uuid));
}

/* ---- the run --------------------------------------------------------------------- */

struct log_entry { struct buf command; };

static void apply(struct model *m, uint64_t index, const struct buf *command, struct buf *ret_result)
{
	Gantry__CommandResult *result = NULL;
	struct err err = {0};

	if (model_apply(m, index, 1, command->data, command->len, &result, &err))
		fail_msg("model_apply: %s", err.text);
	if (ret_result)
		pb_pack(result, ret_result);
	gantry__command_result__free_unpacked(result, NULL);
}

static void assert_same(const void *x, const void *y)
{
	assert_true(pb_equal(x, y));
}

static void begin(struct log_entry *log, struct model *m, struct model *twin)
{
	static const char *const texts[] = {
		"{\"version\":1,\"cluster_init\":{\"name\":\"t\",\"uuid\":\"u\",\"host\":{\"node_id\":1,\"name\":\"host1\",\"address\":\"10.79.0.1\"}}}",
		"{\"version\":1,\"pool_add\":{\"pool\":{\"name\":\"pool\",\"type\":\"nfs\",\"target\":\"nfs://a/b\"}}}",
	};

	for (size_t i = 0; i < 2; i++) {
		json_t *json = fixture_json(texts[i]);
		Gantry__Command *c = fixture_message(json, &gantry__command__descriptor);

		pb_pack(c, &log[i].command);
		apply(m, i + 1, &log[i].command, NULL);
		apply(twin, i + 1, &log[i].command, NULL);
		gantry__command__free_unpacked(c, NULL);
		json_decref(json);
	}
}

static void step(struct log_entry *log, size_t i, struct rng *r, struct model *m, struct model *twin, unsigned *accepted)
{
	struct model before = {.state = pb_clone(m->state)};
	Gantry__Command *c = random_command(m, r);
	struct buf result = {0}, twin_result = {0};
	Gantry__CommandResult *unpacked;

	c->version = MODEL_COMMAND_VERSION;
	c->time_ms = i * (rnd(r, 50) ? 100 : 100000);
	if (c->body_case == BODY(MIGRATE_START))
		pb_set_bytes(&c->migrate_start->token, "0123456789abcdef", rnd(r, 20) ? 16 : 3);
	pb_pack(c, &log[i].command);
	/* Now and then only a part of it arrives in the log. */
	if (!rnd(r, 200))
		log[i].command.len = rnd(r, (uint32_t)log[i].command.len + 1);
	apply(m, i + 1, &log[i].command, &result);
	apply(twin, i + 1, &log[i].command, &twin_result);
	assert_int_equal(result.len, twin_result.len);
	assert_memory_equal(result.data, twin_result.data, result.len);
	assert_same(m->state, twin->state);
	check_state(m);
	check_step(&before, m, c);
	unpacked = gantry__command_result__unpack(NULL, result.len, result.data);
	*accepted += unpacked->status == GANTRY__STATUS__STATUS_OK;
	gantry__command_result__free_unpacked(unpacked, NULL);
	buf_free(&result);
	buf_free(&twin_result);
	gantry__command__free_unpacked(c, NULL);
	model_free(&before);
}

/* The twin is thrown away and made anew from a snapshot: it must not differ from one that never stopped. */
static void reinstall(const struct model *m, struct model *twin)
{
	struct buf packed = {0};
	struct err err = {0};

	model_snapshot(m, &packed);
	assert_int_equal(model_install(twin, packed.data, packed.len, &err), 0);
	buf_free(&packed);
}

static void run_seed(uint64_t seed, unsigned *moves, unsigned *accepted)
{
	struct log_entry *log = mem_alloc((STEPS + 2) * sizeof(*log));
	struct rng r = {.s = seed};
	struct model m, twin, again;

	model_init(&m);
	model_init(&twin);
	model_init(&again);
	begin(log, &m, &twin);
	for (size_t i = 2; i < STEPS + 2; i++) {
		step(log, i, &r, &m, &twin, accepted);
		if (!rnd(&r, 100))
			reinstall(&m, &twin);
	}
	for (size_t i = 0; i < STEPS + 2; i++) {
		apply(&again, i + 1, &log[i].command, NULL);
		buf_free(&log[i].command);
	}
	assert_same(m.state, again.state);
	for (size_t i = 0; i < m.state->n_jobs; i++)
		*moves += m.state->jobs[i]->committed;
	model_free(&m);
	model_free(&twin);
	model_free(&again);
	free(log);
}

static void test_random(void **state)
{
	const char *one = getenv("MODEL_SEED");
	unsigned moves = 0, accepted = 0;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		uint64_t s = one ? strtoull(one, NULL, 10) : seed;

		printf("seed %llu\n", (unsigned long long)s);
		fflush(stdout);
		run_seed(s, &moves, &accepted);
		if (one)
			return;
	}
	printf("%u commands accepted of %u, %u migrations committed\n", accepted, SEEDS * STEPS, moves);
	/* Else the test would look at nothing but refusals. */
	assert_true(moves > 40 && accepted > SEEDS * STEPS / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
